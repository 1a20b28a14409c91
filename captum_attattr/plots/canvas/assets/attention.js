// Chooses the head that the large map shows, by click, key or menu, and labels as many tokens as there is room for.
const { labels, layers, tiles, step, room, ends } = meta.attention;
const menu = (name) => plot.layout.updatemenus.findIndex((each) => each.name === name);
const [rows, columns] = [menu("layer"), menu("head")];

// Of the large maps only the shown one is there, in every view.
let shown = shownMap(plot.layout, meta.attention);
// Where the colours end, if they fit the head that is shown, which is the first choice of that menu.
const range = menu("colours");
const fit = (map) => {
  const { active, buttons } = plot.layout.updatemenus[range];
  const [attribution, attention, difference] = ends[map];
  const own = { "coloraxis.cmax": attribution, "coloraxis.cmin": -attribution, "coloraxis2.cmax": attention };
  Object.assign(own, { "coloraxis3.cmax": difference, "coloraxis3.cmin": -difference });
  Object.assign(buttons[0].args[0], own); // for the next time that it is chosen
  return active ? {} : own;
};
const bring = (next, change) => {
  if (next === shown) return Plotly.relayout(plot, change);
  Object.assign(change, fit(next));
  shown = next;
  return Plotly.update(plot, meta.maps.of(next), change, meta.maps.traces);
};

// plotly.js takes hundreds of milliseconds for a new map. So a choice is drawn here, over the old map, and plotly follows
// when the choices rest.
const over = document.createElement("canvas");
over.className = "attention-over";
over.hidden = true;
plot.append(over);
const rgb = (colour) => {
  const context = document.createElement("canvas").getContext("2d");
  context.fillStyle = colour;
  context.fillRect(0, 0, 1, 1);
  return context.getImageData(0, 0, 1, 1).data;
};
const ramp = (scale) => {
  const colours = scale.map(([, colour]) => rgb(colour));
  return Uint32Array.from({ length: 256 }, (_, i) => {
    const at = (i / 255) * (colours.length - 1);
    const first = Math.min(Math.floor(at), colours.length - 2);
    const mixed = [0, 1, 2].map((k) => Math.round(colours[first][k] + (at - first) * (colours[first + 1][k] - colours[first][k])));
    return (255 << 24) | (mixed[2] << 16) | (mixed[1] << 8) | mixed[0];
  });
};
const overdraw = (map, values) => {
  const { xaxis2, yaxis2, ...layout } = plot._fullLayout;
  const shownView = Math.max(meta.maps.traces.findIndex((trace) => plot.data[trace].opacity), 0);
  const axis = plot.data[meta.maps.traces[shownView]].coloraxis;
  const { cmin, cmax } = { ...layout[axis], ...Object.fromEntries(
    Object.entries(fit(map)).filter(([name]) => name.startsWith(`${axis}.`)).map(([name, end]) => [name.split(".")[1], end])) };
  const colours = ramp(layout[axis].colorscale);
  const z = values.z[shownView];
  Object.assign(over, { width: z.length, height: z.length, hidden: false });
  const image = new ImageData(z.length, z.length);
  const cells = new Uint32Array(image.data.buffer);
  z.forEach((row, i) => row.forEach((value, j) => {
    cells[i * z.length + j] = colours[Math.round(255 * Math.min(Math.max((value - cmin) / (cmax - cmin), 0), 1))];
  }));
  over.getContext("2d").putImageData(image, 0, 0);
  const [left, top, width, height] = [xaxis2._offset, yaxis2._offset, xaxis2._length, yaxis2._length];
  Object.assign(over.style, Object.fromEntries(Object.entries({ left, top, width, height }).map(([k, v]) => [k, `${v}px`])));
};

// Does what the menus of the layer and the head do, both at once.
let wanted = null;
let timer;
const choose = (layer, head) => {
  wanted = { layer, head };
  chosen.textContent = `layer ${layers[layer]}, head ${head}`;
  const map = layer * tiles.x + head;
  overdraw(map, meta.maps.of(map));
  const frame = plot.querySelector('.shapelayer path[data-index="0"]');
  const { xaxis, yaxis } = plot._fullLayout;
  const [x, y] = [[head, head + 1].map(xaxis.l2p), [layer, layer + 1].map(yaxis.l2p)];
  frame?.setAttribute("d", `M${xaxis._offset + x[0]} ${yaxis._offset + y[0]}H${xaxis._offset + x[1]}V${yaxis._offset + y[1]}H${xaxis._offset + x[0]}Z`);
  clearTimeout(timer);
  timer = setTimeout(settle, 250);
};
const settle = async () => {
  const { layer, head } = wanted;
  const change = { [`updatemenus[${rows}].active`]: layer, [`updatemenus[${columns}].active`]: head };
  for (const [at, index] of [[rows, layer], [columns, head]]) {
    Object.assign(change, plot.layout.updatemenus[at].buttons[index].args[0]);
  }
  wanted = null;
  await bring(layer * tiles.x + head, change);
  over.hidden = wanted === null;
};

// Labels as many tokens as there is room for: all of them when a part of a long text is enlarged.
const steps = { x: step, y: step };
const follow = () => {
  const change = {};
  for (const axis of ["x", "y"]) {
    const [from, to] = plot.layout[`${axis}axis2`].range;
    const fits = Math.max(1, Math.ceil(Math.abs(to - from) / room));
    if (fits === steps[axis]) continue;
    steps[axis] = fits;
    const all = Array.from({ length: tiles[axis] * labels.length }, (_, position) => position);
    const marked = all.filter((position) => (position % labels.length) % fits === 0);
    change[`${axis}axis3.tickvals`] = marked.map((position) => (axis === "x" ? position : -position));
    change[`${axis}axis3.ticktext`] = marked.map((position) => labels[position % labels.length]);
  }
  const next = shownMap(plot.layout, meta.attention);
  if (next !== shown) {
    // A menu has moved the axes to where nothing was drawn, and plotly.js has chosen other ranges for them.
    for (const axis of ["xaxis2", "xaxis3", "yaxis2", "yaxis3"]) {
      const { minallowed, maxallowed } = plot.layout[axis];
      Object.assign(change, { [`${axis}.range`]: [minallowed, maxallowed], [`${axis}.autorange`]: true });
    }
  }
  if (Object.keys(change).length) bring(next, change);
};
plot.on("plotly_relayout", follow);
plot.on("plotly_update", follow);

if (rows >= 0) {
  takeKeys(plot);
  const now = () => wanted ?? { layer: plot.layout.updatemenus[rows].active, head: plot.layout.updatemenus[columns].active };
  plot.on("plotly_buttonclicked", ({ menu: { name }, active }) => {
    if (name === "layer" || name === "head") choose(...Object.values({ ...now(), [name]: active }));
  });
  plot.on("plotly_click", (event) => {
    const tile = event.points.find((point) => point.data.name === "heads");
    if (tile) choose(...tile.pointNumber);
  });
  plot.addEventListener("keydown", (event) => {
    const move = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (!move) return;
    event.preventDefault();
    const { layer, head } = now();
    const next = (at, by, count) => Math.min(Math.max(at + by, 0), count - 1);
    choose(next(layer, move[0], tiles.y), next(head, move[1], tiles.x));
  });
}
