// Menus and the slider of a flow. plotly.js takes hundreds of milliseconds to draw a new cut, so the page draws the
// edges itself, one path for each width and sign, and hands them to plotly (which saves the pictures) at rest.
const { view, classes, most, dashed, heads, special, segments, layers: numbers } = meta.flow;
const [layerCount, headCount, size] = meta.flow.shape;
const area = size * size;
const signs = ["negative", "positive"];

// ---------------------------------------------------------------------------------------------- the data

const tokens = meta.flow.tokens.map(plain);
const cell = (layer, head) => (layer * headCount + head) * area;
const scoreAt = (layer, head, within) => {
  const code = heads.codes[cell(layer, head) + within] / heads.levels;
  return Math.sign(code) * code * code * heads.largest[layer * headCount + head];
};

// All edges but those of score 0, by falling |score| and then by index: a radix sort of the bits of float32.
const byStrength = (scores) => {
  const bits = new Uint32Array(scores.buffer, scores.byteOffset, scores.length);
  let order = Uint32Array.from(scores.keys()).filter((i) => scores[i]);
  for (const shift of [0, 16]) {
    const digit = (i) => 0xffff - (((bits[i] & 0x7fffffff) >>> shift) & 0xffff);
    const starts = new Uint32Array(0x10001);
    for (const i of order) starts[digit(i) + 1] += 1;
    for (let i = 1; i < starts.length; i++) starts[i] += starts[i - 1];
    const next = new Uint32Array(order.length);
    for (const i of order) next[starts[digit(i)]++] = i;
    order = next;
  }
  return { indices: order, score: Float32Array.from(order, (i) => scores[i]) };
};
const sums = byStrength(meta.flow.sums);
const ofHead = (head) =>
  byStrength(Float32Array.from({ length: layerCount * area }, (_, i) => scoreAt(Math.floor(i / area), head, i % area)));

let all = sums; // the edges of the chosen head, or of the sum
let edges; // what the menus let through, by falling |score|
let masses; // masses[sign][n]: attribution of the first n of them
let totals; // of the chosen layer and head: number of edges, negative and positive attribution
let shown = view.count;

const select = () => {
  const [indices, score] = [new Uint32Array(all.indices.length), new Float32Array(all.indices.length)];
  masses = signs.map(() => new Float64Array(all.indices.length + 1));
  totals = { count: 0, mass: [0, 0] };
  let n = 0;
  for (let i = 0; i < all.indices.length; i++) {
    const [at, value] = [all.indices[i], all.score[i]];
    if (view.layer !== null && Math.floor(at / area) !== view.layer) continue;
    const sign = value > 0 ? 1 : 0;
    totals.count += 1;
    totals.mass[sign] += Math.abs(value);
    const [query, key] = [Math.floor(at / size) % size, at % size];
    if (view.sign !== "both" && view.sign !== signs[sign]) continue;
    if (!view.special && (special[query] || special[key])) continue;
    const across = segments[query] !== segments[key];
    if (view.segment === "across" && !across) continue;
    if (view.segment === "first" && (across || segments[key])) continue;
    if (view.segment === "second" && (across || !segments[key])) continue;
    [indices[n], score[n]] = [at, value];
    masses[sign][n + 1] = masses[sign][n] + Math.abs(value);
    masses[1 - sign][n + 1] = masses[1 - sign][n];
    n += 1;
  }
  edges = { indices: indices.subarray(0, n), score: score.subarray(0, n) };
};

// ---------------------------------------------------------------------------------------------- the page

if (!document.querySelector("style.flow")) {
  const style = document.createElement("style");
  style.className = "flow";
  style.textContent = `
    .flow-live .scatterlayer, .flow-live .gl-container, .flow-live .annotation { visibility: hidden; }
    .flow-controls { position: absolute; z-index: 2; display: flex; gap: 8px; align-items: center; }
    .flow-controls select, .flow-controls output { font: inherit; }
    .flow-controls select { padding: 2px 4px; }
    .flow-label { flex: 1; display: flex; gap: 8px; align-items: center; margin-left: 8px; white-space: nowrap; }
    .flow-label input { flex: 1; min-width: 120px; margin: 0; accent-color: #3b86d6; }
    .flow-told { position: absolute; z-index: 2; pointer-events: none; font-variant-numeric: tabular-nums; }
    .flow-tip { position: absolute; z-index: 3; max-width: 360px; padding: 4px 8px; border: 1px solid #7c8894;
      background: Canvas; color: CanvasText; overflow-wrap: anywhere; pointer-events: none; font-size: 12px; }
    .flow-tip b { unicode-bidi: isolate; }
    .flow-edges { fill: none; pointer-events: none; }
    @media print {
      .flow-live .annotation { visibility: visible; }
      .flow-controls, .flow-told, .flow-tip, .flow-near { display: none; }
    }`;
  document.head.append(style);
}
const element = (tag, name, parent) => {
  const made = document.createElement(tag);
  made.className = name;
  parent.append(made);
  return made;
};
const controls = element("div", "flow-controls", plot);
plot.prepend(controls); // before plotly's buttons in the order of the keyboard
const told = element("output", "flow-told", plot);
const tip = element("div", "flow-tip", plot);
told.setAttribute("aria-live", "polite");
tip.hidden = true;

const numbered = (whole, what, count, name = (i) => i) => {
  const each = Array.from({ length: count }, (_, i) => [`${what} ${name(i)}`, i]);
  return [[whole, null], ...each];
};
const within = [["all", "all"], ["within the first", "first"], ["within the second", "second"], ["across", "across"]];
const menus = [
  ["layer", numbered("all layers", "layer", layerCount, (i) => numbers[i]), layerCount > 1],
  ["head", numbered("sum over heads", "head", headCount), headCount > 1],
  ["sign", [["both signs", "both"], ["positive", "positive"], ["negative", "negative"]], true],
  ["special", [["special tokens shown", true], ["special tokens hidden", false]], special.some(Boolean)],
  ["segment", within.map(([text, value]) => [value === "all" ? "both texts" : text, value]), segments.some(Boolean)],
];
for (const [name, options, useful] of menus) {
  if (!useful) continue;
  const menu = element("select", `flow-${name}`, controls);
  menu.setAttribute("aria-label", name === "special" ? "special tokens" : name);
  for (const [text, value] of options) menu.add(new Option(text, String(value), false, value === view[name]));
  menu.addEventListener("change", () => {
    view[name] = options[menu.selectedIndex][1];
    if (name === "head") all = view.head === null ? sums : ofHead(view.head);
    refresh();
  });
}
const label = element("label", "flow-label", controls);
label.append("edges drawn");
const slider = element("input", "flow-cut", label);
Object.assign(slider, { type: "range", min: 0, step: 1 });

// Where the slider stops: every number at first, then steps of 4 %.
let stops;
const refresh = () => {
  select();
  const last = Math.min(edges.indices.length, most);
  stops = [];
  for (let n = 1; n < last; n = Math.max(n + 1, Math.round(1.04 * n))) stops.push(n);
  if (last) stops = [...new Set([...stops, Math.min(shown, last), last])].sort((a, b) => a - b);
  slider.disabled = !stops.length;
  slider.max = Math.max(stops.length - 1, 0);
  slider.value = Math.max(stops.findLastIndex((n) => n <= shown), 0);
  draw(Math.min(shown, last));
};

// ------------------------------------------------------------------------------------------- the picture

const layer = document.createElementNS("http://www.w3.org/2000/svg", "g");
layer.setAttribute("class", "flow-edges");
const path = (name) => {
  const made = document.createElementNS("http://www.w3.org/2000/svg", "path");
  made.setAttribute("class", name);
  layer.append(made);
  return made;
};
const paths = Array.from({ length: 2 * classes.length }, () => path("flow-line"));
const mark = path("flow-near");
let count = 0;

const classOf = (score) => {
  const share = Math.abs(score) / Math.abs(edges.score[0]);
  return 2 * classes.findLastIndex((from) => share >= from) + (score > 0 ? 1 : 0);
};
// From the units of the axes, which are linear, to pixels.
const scales = () => {
  const { xaxis, yaxis } = plot._fullLayout;
  const [x, y] = [xaxis.l2p(0), yaxis.l2p(0)];
  return [x, xaxis.l2p(1) - x, y, yaxis.l2p(1) - y];
};
const ends = (i, [x, dx, y, dy]) => {
  const index = edges.indices[i];
  const level = Math.floor(index / area);
  return [x + dx * (index % size), y + dy * level, x + dx * (Math.floor(index / size) % size), y + dy * (level + 1)];
};

// Negative edges come first of each pair. Browsers take a second for thousands of dashed lines; printers may.
let printing = false;
const isDashed = (trace) => trace % 2 === 0 && (count <= dashed || printing);
const paint = () => {
  const scale = scales();
  const parts = paths.map(() => []);
  for (let i = 0; i < count; i++) {
    const [x0, y0, x1, y1] = ends(i, scale);
    parts[classOf(edges.score[i])].push(`M${x0.toFixed(1)} ${y0.toFixed(1)}L${x1.toFixed(1)} ${y1.toFixed(1)}`);
  }
  paths.forEach((each, index) => {
    each.setAttribute("d", parts[index].join(""));
    const { width } = plot.data[index].line;
    each.setAttribute("stroke-dasharray", isDashed(index) ? `${3 + 2 * width} ${2 + width}` : "none");
  });
};
for (const [name, now] of [["beforeprint", true], ["afterprint", false]]) {
  addEventListener(name, () => {
    printing = now;
    paint();
  });
}
const percent = (part, whole) => Math.round((100 * part) / whole);
const short = (value, digits) => String(Number(Math.abs(value).toPrecision(digits))).replace("e-", "e−");
const describe = () => {
  if (!count) return "no edge: choose more in the menus";
  const parts = [1, 0].filter((sign) => totals.mass[sign] && ["both", signs[sign]].includes(view.sign));
  const shares = parts.map((sign) => `${percent(masses[sign][count], totals.mass[sign])} % of the ${signs[sign]}`);
  const number = (value) => value.toLocaleString("en-US");
  const edge = `${number(count)} of ${number(totals.count)} edges = ${shares.join(" and ")} attribution`;
  const full = count === most && count < edges.indices.length ? "; no more are drawn at once" : "";
  return `${edge}; |score| from ${short(edges.score[count - 1], 2)}${full}`;
};
// plotly's traces get the picture when the slider rests: its buttons save pictures from them.
const settle = () => {
  const filled = paths.map(() => ({ x: [], y: [] }));
  for (let i = 0; i < count; i++) {
    const [key, level, query, next] = ends(i, [0, 1, 0, 1]);
    const { x, y } = filled[classOf(edges.score[i])];
    x.push(key, query, NaN);
    y.push(level, next, NaN);
  }
  filled.forEach(({ x, y }, trace) => {
    Object.assign(plot.data[trace], { x: Float32Array.from(x), y: Float32Array.from(y) });
    plot.data[trace].line.dash = isDashed(trace) ? "dash" : "solid";
  });
  const layers = view.layer === null ? "" : `layer ${numbers[view.layer]}, `;
  const whose = view.head === null ? "sum over heads" : `head ${view.head}`;
  Plotly.relayout(plot, { "annotations[0].text": `${describe()} (${layers}${whose})` });
};
let timer;
const draw = (n) => {
  count = n;
  tip.hidden = true;
  mark.removeAttribute("d");
  paint();
  told.textContent = describe();
  slider.setAttribute("aria-valuetext", told.textContent);
  clearTimeout(timer);
  timer = setTimeout(settle, 200);
};

// After plotly has drawn: the looks of its traces for our lines, drawn anew, for axes may have moved.
const dress = () => {
  const parent = plot.querySelector(".cartesianlayer .scatterlayer").parentNode; // which is clipped, and moves
  if (layer.parentNode !== parent) parent.append(layer);
  const { _size, colorway, font, width } = plot._fullLayout;
  paths.forEach((each, trace) => {
    const { line, opacity } = plot.data[trace];
    each.setAttribute("stroke", colorway[trace]);
    each.setAttribute("stroke-width", line.width);
    each.setAttribute("stroke-opacity", opacity);
  });
  mark.setAttribute("stroke", font.color);
  mark.setAttribute("stroke-width", 3);
  const left = `${_size.l}px`;
  Object.assign(controls.style, { left, top: `${_size.t - 62}px`, width: `${width - _size.l - _size.r}px` });
  Object.assign(told.style, { left, top: `${_size.t - 28}px` });
  paint();
};

// --------------------------------------------------------------------------------------------- the mouse

const nearest = (x, y) => {
  const scale = scales();
  let [best, least] = [-1, 7];
  for (let i = 0; i < count; i++) {
    const [x0, y0, x1, y1] = ends(i, scale);
    if (y > y0 + 4 || y < y1 - 4) continue;
    const [dx, dy] = [x1 - x0, y1 - y0];
    const t = Math.min(Math.max(((x - x0) * dx + (y - y0) * dy) / (dx * dx + dy * dy), 0), 1);
    const off = Math.hypot(x0 + t * dx - x, y0 + t * dy - y);
    if (off < least) [best, least] = [i, off];
  }
  return best;
};
const signed = (value, digits = 3) => (value < 0 ? "−" : "+") + short(value, digits);
const tell = (i) => {
  const index = edges.indices[i];
  const [level, query, key] = [Math.floor(index / area), Math.floor(index / size) % size, index % size];
  tip.replaceChildren();
  const first = element("div", "", tip);
  element("b", "", first).textContent = tokens[query];
  first.append(` [${query}] from `);
  element("b", "", first).textContent = tokens[key];
  first.append(` [${key}]`);
  const what = view.head === null ? `sum over ${headCount} head${headCount > 1 ? "s" : ""}` : `head ${view.head}`;
  const exactly = (score) => (view.head === null ? signed(score) : `about ${signed(score, 2)}`);
  element("div", "", tip).textContent = `layer ${numbers[level]}, ${what}: ${exactly(edges.score[i])}`;
  if (view.head !== null || headCount === 1) return;
  const each = Array.from({ length: headCount }, (_, head) => [head, scoreAt(level, head, index % area)]);
  each.sort((a, b) => Math.abs(b[1]) - Math.abs(a[1]));
  for (const [head, value] of each.slice(0, 3)) {
    element("div", "", tip).textContent = `head ${head}: about ${signed(value, 2)}`;
  }
};
plot.addEventListener("pointermove", (event) => {
  const { left, top } = plot.getBoundingClientRect();
  const { _size, width } = plot._fullLayout;
  const [x, y] = [event.clientX - left + plot.scrollLeft, event.clientY - top];
  const inside = x > _size.l && y > _size.t && x < _size.l + _size.w && y < _size.t + _size.h;
  const i = inside && !event.buttons ? nearest(x - _size.l, y - _size.t) : -1;
  tip.hidden = i < 0;
  if (i < 0) {
    mark.removeAttribute("d");
    return;
  }
  const [x0, y0, x1, y1] = ends(i, scales());
  mark.setAttribute("d", `M${x0} ${y0}L${x1} ${y1}`);
  tell(i);
  const side = x > width / 2 ? x - tip.offsetWidth - 14 : x + 14;
  const under = Math.max(0, Math.min(y + 14, _size.t + _size.h - tip.offsetHeight));
  Object.assign(tip.style, { left: `${side}px`, top: `${under}px` });
});
plot.addEventListener("pointerleave", () => {
  tip.hidden = true;
  mark.removeAttribute("d");
});

// ------------------------------------------------------------------------------------------ the keyboard

const move = (to) => {
  slider.value = to;
  shown = stops[Number(slider.value)];
  draw(shown);
};
slider.addEventListener("input", () => move(slider.value));
takeKeys(plot);
plot.addEventListener("keydown", (event) => {
  const by = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, PageUp: 10, PageDown: -10 }[event.key];
  const end = { Home: 0, End: Number(slider.max) }[event.key];
  if (event.target !== plot || !stops.length || (by === undefined && end === undefined)) return;
  event.preventDefault();
  move(end ?? Number(slider.value) + by);
});

plot.classList.add("flow-live");
if (view.head !== null) all = ofHead(view.head);
Plotly.relayout(plot, { hovermode: false });
dress();
refresh();
plot.on("plotly_afterplot", dress);
