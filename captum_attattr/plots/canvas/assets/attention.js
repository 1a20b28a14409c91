// Chooses the head that the large map shows, by click, key or menu, and labels as many tokens as there is room for.
const { labels, layers, tiles, step, room } = meta.attention;
const menu = (name) => plot.layout.updatemenus.findIndex((each) => each.name === name);
const [rows, columns] = [menu("layer"), menu("head")];

// Of the large maps only the shown one is drawn, in every view.
let shown = shownMap(plot.layout, meta.attention);
const bring = (next, change) => {
  if (next === shown) return Plotly.relayout(plot, change);
  const traces = [...meta.differences[shown], ...meta.differences[next]];
  shown = next;
  return Plotly.update(plot, { visible: traces.map((_, i) => i > 2) }, change, traces);
};

// Does what the menus of the layer and the head do, both at once.
const choose = (layer, head) => {
  const change = { [`updatemenus[${rows}].active`]: layer, [`updatemenus[${columns}].active`]: head };
  for (const [at, index] of [[rows, layer], [columns, head]]) {
    Object.assign(change, plot.layout.updatemenus[at].buttons[index].args[0]);
  }
  chosen.textContent = `layer ${layers[layer]}, head ${head}`;
  bring(layer * tiles.x + head, change);
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
  plot.on("plotly_click", (event) => {
    const tile = event.points.find((point) => point.data.name === "heads");
    if (tile) choose(...tile.pointNumber);
  });
  plot.addEventListener("keydown", (event) => {
    const move = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (!move) return;
    event.preventDefault();
    const next = (at, by, count) => Math.min(Math.max(plot.layout.updatemenus[at].active + by, 0), count - 1);
    choose(next(rows, move[0], tiles.y), next(columns, move[1], tiles.x));
  });
}
