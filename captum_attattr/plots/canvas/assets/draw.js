// Draws the page's figures one after another, and runs the scripts that each names. `scripts` holds all of them by
// name; they may call what is here.

// Labels are escaped for plotly; a parser that makes no element of the page gives the texts back.
const plain = (text) => new DOMParser().parseFromString(text, "text/html").body.textContent;

const escaped = (text) => text.replace(/[&<>]/g, (character) => `&#${character.charCodeAt(0)};`);

const bytes = (base64) => {
  const text = atob(base64);
  const codes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) codes[i] = text.charCodeAt(i);
  return codes;
};

// A figure that answers to keys can be focused, and says what it is.
const takeKeys = (plot) => {
  plot.tabIndex = 0;
  plot.setAttribute("role", "group"); // no application: there are buttons in it
  plot.setAttribute("aria-keyshortcuts", "ArrowUp ArrowDown ArrowLeft ArrowRight");
  plot.setAttribute("aria-label", plot.closest(".figure").getAttribute("aria-label"));
};

// The values of the 65,536 half floats.
const halves = () =>
  Float32Array.from({ length: 65536 }, (_, bits) => {
    const [sign, exponent, fraction] = [bits & 0x8000 ? -1 : 1, (bits >> 10) & 31, bits & 1023];
    if (exponent === 31) return fraction ? NaN : sign * Infinity;
    return sign * (exponent ? 2 ** (exponent - 25) * (1024 + fraction) : 2 ** -24 * fraction);
  });
let values = null;

// The rows of a map that travelled as half floats.
const unpacked = ({ halves: text, unit, shape: [rows, columns] }) => {
  values ??= halves();
  const packed = bytes(text);
  const flat = new Float32Array(rows * columns);
  for (let i = 0; i < flat.length; i++) {
    flat[i] = values[packed[2 * i] | (packed[2 * i + 1] << 8)] * unit;
  }
  return Array.from({ length: rows }, (_, row) => flat.subarray(row * columns, (row + 1) * columns));
};

// How much larger attributions are than if they lay in the order of the attention, as `beyond` of `attention_maps.py`.
const difference = (attributions, attention) => {
  const sizes = Float32Array.from(attributions.flatMap((row) => [...row]), Math.abs).sort();
  const sums = new Float64Array(sizes.length + 1);
  sizes.forEach((size, i) => { sums[i + 1] = sums[i] + size; });
  const counts = new Map();
  for (const row of attention) for (const value of row) counts.set(value, (counts.get(value) ?? 0) + 1);
  let first = 0;
  const expected = new Map(); // by attention; equal ones share the mean
  for (const value of [...counts.keys()].sort((a, b) => a - b)) {
    const last = first + counts.get(value);
    expected.set(value, (sums[last] - sums[first]) / (last - first));
    first = last;
  }
  const largest = sizes.at(-1) || 1;
  return attributions.map((row, i) => row.map((value, j) => (Math.abs(value) - expected.get(attention[i][j])) / largest));
};

const KINDS = { i1: Int8Array, u1: Uint8Array, i2: Int16Array, i4: Int32Array, u4: Uint32Array, f4: Float32Array, f8: Float64Array };

// The rows of a map that travelled as 8-bit codes: sign(c) (c / levels)² times the largest of the map.
const decoded = ({ codes: at, shape: [rows, columns], dtype, levels, largest }, arrays) => {
  const codes = new KINDS[dtype](arrays.buffer, at, rows * columns);
  const flat = Float32Array.from(codes, (code) => Math.sign(code) * (code / levels) ** 2 * largest);
  return Array.from({ length: rows }, (_, row) => flat.subarray(row * columns, (row + 1) * columns));
};

// What a figure's `meta` holds, its arrays as such; plotly.py writes them as base64, long ones are among `arrays`.
const revived = (value, arrays) => {
  if (!value || typeof value !== "object" || Array.isArray(value)) return value;
  if (value.bdata) return new (KINDS[value.dtype])(bytes(value.bdata).buffer);
  if (value.bytes) return new (KINDS[value.dtype])(arrays.slice(value.array, value.array + value.bytes).buffer);
  return Object.fromEntries(Object.entries(value).map(([name, each]) => [name, revived(each, arrays)]));
};

// Which of the large maps the axes show: layer by layer, head by head.
const shownMap = (layout, { labels, tiles }) => {
  const [head, layer] = [layout.xaxis2, layout.yaxis2].map(({ minallowed, maxallowed }) =>
    Math.floor(Math.abs(minallowed + maxallowed) / 2 / labels.length)
  );
  return layer * tiles.x + head;
};

// The content of an element, unpacked if it is packed; the element goes.
const unpackedContent = (element) => {
  element.remove();
  if (element.type !== "application/gzip") return new Response(element.textContent);
  return new Response(new Blob([bytes(element.textContent)]).stream().pipeThrough(new DecompressionStream("gzip")));
};

// plotly.js takes its time for each trace, wherever it is: the large maps become three traces, one for each view, and
// `attention.js` changes their values when another head is chosen.
const largeMap = ({ data, layout }, arrays) => {
  const { differences, attention } = layout.meta;
  const first = Math.min(...differences.flat());
  const found = differences.map((traces) => traces.map((trace) => data[trace]));
  const maps = {
    traces: [first, first + 1, first + 2],
    of: (map) => {
      const [gap, from, by] = found[map];
      const z = [from, by].map((each) => decoded(each.z, arrays));
      const part = (name) => [from, by, gap].map((each) => each[name]);
      const where = Object.fromEntries(["x0", "y0", "name", "hovertemplate"].map((name) => [name, part(name)]));
      return { z: [...z, difference(...z)], ...where };
    },
  };
  const shown = maps.of(shownMap(layout, attention));
  const order = [1, 2, 0].map((at) => found[0][at]);
  data.length = first;
  order.forEach((trace, at) => {
    data.push({ ...trace, ...Object.fromEntries(Object.keys(shown).map((name) => [name, shown[name][at]])) });
  });
  const ofViews = (opacity) => order.map((_, view) => opacity[first + view * found.length]);
  const views = layout.updatemenus.find(({ name }) => name === "view")?.buttons ?? [];
  for (const { args } of views) {
    const opacity = [...args[0].opacity.slice(0, first), ...ofViews(args[0].opacity)];
    args[0] = { opacity, visible: data.map((_, at) => at >= first || opacity[at] > 0) };
  }
  // A choice in these menus goes through `attention.js`, which is quick.
  for (const { name, buttons } of layout.updatemenus) {
    if (name === "layer" || name === "head") for (const button of buttons) button.method = "skip";
  }
  data.forEach((trace, at) => { if (at < first) trace.visible = trace.opacity !== 0; });
  return maps;
};

// plotly.js, if it came packed.
const library = async () => {
  const element = document.querySelector("script.library");
  if (!element) return;
  const script = document.createElement("script");
  script.textContent = await unpackedContent(element).text();
  document.head.append(script);
};

const parsed = async (figure) => {
  const content = await unpackedContent(figure.querySelector(".content")).json();
  const beside = figure.querySelector(".arrays");
  const arrays = beside && new Uint8Array(await unpackedContent(beside).arrayBuffer());
  for (const trace of content.data) if (trace.z?.halves) trace.z = unpacked(trace.z);
  content.meta = revived(content.layout.meta, arrays) || {};
  if (content.meta.attention) content.meta.maps = largeMap(content, arrays);
  return content;
};

// Saves a picture without its menus: they do nothing there, and plotly.js paints them white.
const save = ({ data, layout }, format, filename) =>
  Plotly.downloadImage({ data, layout: { ...layout, updatemenus: [] } }, { format, filename, scale: format === "png" ? 2 : 1 });
const inWords = (format) => `Download the picture as ${format.toUpperCase()}`;
const picture = (format, filename) => ({
  name: format,
  title: inWords(format),
  icon: Plotly.Icons[format === "png" ? "camera" : "disk"],
  click: (plot) => save(plot, format, filename),
});

// Buttons for a form of the page that has none of plotly's; `seen` returns what they save.
const saveButtons = (where, text, filename, seen) => {
  const line = Object.assign(document.createElement("p"), { className: "save", textContent: `${text} ` });
  for (const format of ["png", "svg"]) {
    const button = Object.assign(document.createElement("button"), { type: "button", textContent: format.toUpperCase(), title: inWords(format) });
    button.addEventListener("click", () => save(seen(), format, filename));
    line.append(button, " ");
  }
  where.append(line);
};

const draw = async (figure, { data, layout, config, frames, meta }, where = figure) => {
  const [plot, hint, chosen] = ["plot", "hint", "chosen"].map((name) => where.querySelector(`.${name}`));
  config.modeBarButtonsToAdd = ["png", "svg"].map((format) => picture(format, config.toImageButtonOptions.filename));
  if (meta.themes) for (const menu of layout.updatemenus ?? []) menu.visible = false; // see `controls.js`
  await Plotly.newPlot(plot, { data, layout, config, frames });
  if (frames) Plotly.animate(plot, null);
  for (const name of [...(meta.themes ? ["controls"] : []), "legend", "page", ...(meta.scripts || [])]) scripts[name](plot, meta, hint, chosen);
  figure.dataset.drawn = "";
};

// Draws a figure. A window that is narrower than it shows its small form; one without such a form scrolls in its own box.
// Each form is drawn when it is first seen.
const drawSeen = async (figure, content) => {
  const forms = new Map([[false, () => draw(figure, content)]]);
  const { filename } = content.config.toImageButtonOptions;
  const beside = figure.querySelector(".narrow");
  if (beside) saveButtons(beside, "The picture as a file:", filename, () => content);
  if (content.small) {
    const { data, layout } = content.small;
    const meta = { ...layout.meta, scripts: ["small", ...(layout.meta.scripts || [])] };
    const small = { data, layout, meta, config: { ...content.config, displayModeBar: false } };
    forms.set(true, () => draw(figure, small, figure.querySelector(".small")));
  }
  const narrow = matchMedia(`screen and (max-width: ${(content.layout.width ?? 700) + 22}px)`);
  const show = async () => {
    if (matchMedia("print").matches) return; // paper has what is seen
    const name = content.small ? "narrowed" : "scrolls";
    for (const each of [figure, figure.closest("main")]) each.classList.toggle(name, narrow.matches);
    const seen = content.small ? narrow.matches : false;
    const first = forms.get(seen);
    forms.delete(seen);
    await first?.();
  };
  narrow.addEventListener("change", show);
  return show();
};

(async () => {
  const figures = [...document.querySelectorAll(".figure")];
  if (!window.DecompressionStream && document.querySelector("script[type='application/gzip']")) {
    const told = "The picture needs a browser that unpacks pages (DecompressionStream): any of 2023 or later.";
    for (const figure of figures) figure.querySelector(".plot").textContent = told;
    return;
  }
  await library();
  const contents = await Promise.all(figures.map(parsed));
  if (scripts.prepare) scripts.prepare(contents);
  for (const [i, figure] of figures.entries()) {
    await drawSeen(figure, contents[i]).catch(reportError); // the others are drawn all the same
    await new Promise((done) => setTimeout(done)); // the browser shows it before the next one is begun
  }
})();
