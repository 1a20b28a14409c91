// Draws the page's figures one after another, and runs the scripts that each names. `scripts` holds all of them by
// name; they may call what is here.

// Labels are escaped for plotly; a parser that makes no element of the page gives the texts back.
const plain = (text) => new DOMParser().parseFromString(text, "text/html").body.textContent;

const bytes = (base64) => {
  const text = atob(base64);
  const codes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) codes[i] = text.charCodeAt(i);
  return codes;
};

// A figure that answers to keys can be focused, and says what it is.
const takeKeys = (plot) => {
  plot.tabIndex = 0;
  plot.setAttribute("role", "application");
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

// One map less another, each divided by its largest absolute value.
const difference = (first, second) => {
  const factors = [first, second].map((map) => {
    const largest = map.reduce((most, row) => row.reduce((a, b) => Math.max(a, Math.abs(b)), most), 0);
    return largest ? 1 / largest : 0;
  });
  return first.map((row, i) => row.map((value, j) => value * factors[0] - second[i][j] * factors[1]));
};

// Which of the large maps the axes show: layer by layer, head by head.
const shownMap = (layout, { labels, tiles }) => {
  const [head, layer] = [layout.xaxis2, layout.yaxis2].map(({ minallowed, maxallowed }) =>
    Math.floor(Math.abs(minallowed + maxallowed) / 2 / labels.length)
  );
  return layer * tiles.x + head;
};

// The text of an element, unpacked if it is packed; the element goes.
const unpackedText = async (element) => {
  element.remove();
  if (element.type !== "application/gzip") return element.textContent;
  const stream = new Blob([bytes(element.textContent)]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
};

// plotly.js, if it came packed.
const library = async () => {
  const element = document.querySelector("script.library");
  if (!element) return;
  const script = document.createElement("script");
  script.textContent = await unpackedText(element);
  document.head.append(script);
};

const parsed = async (figure) => {
  const content = JSON.parse(await unpackedText(figure.querySelector(".content")));
  const { data, layout } = content;
  for (const trace of data) if (trace.z?.halves) trace.z = unpacked(trace.z);
  const { differences, attention } = layout.meta || {};
  for (const [to, from, by] of differences || []) data[to].z = difference(data[from].z, data[by].z);
  if (attention) {
    // plotly.js takes its time for each trace, wherever it is; `attention.js` brings the others when they are chosen.
    const shown = shownMap(layout, attention);
    differences.forEach((traces, map) => {
      if (map !== shown) for (const trace of traces) data[trace].visible = false;
    });
  }
  return content;
};

// A button that saves what is seen, but for the menus: they do nothing there, and plotly.js paints them white.
const picture = (format, filename) => ({
  name: format,
  title: `Download the picture as ${format.toUpperCase()}`,
  icon: Plotly.Icons[format === "png" ? "camera" : "disk"],
  click: ({ data, layout }) => {
    const options = { format, filename, scale: format === "png" ? 2 : 1 };
    Plotly.downloadImage({ data, layout: { ...layout, updatemenus: [] } }, options);
  },
});

const draw = async (figure, { data, layout, config, frames }) => {
  const [plot, hint, chosen] = ["plot", "hint", "chosen"].map((name) => figure.querySelector(`.${name}`));
  const meta = layout.meta || {};
  config.modeBarButtonsToAdd = ["png", "svg"].map((format) => picture(format, config.toImageButtonOptions.filename));
  await Plotly.newPlot(plot, { data, layout, config, frames });
  if (frames) Plotly.animate(plot, null);
  for (const name of ["page", ...(meta.scripts || [])]) scripts[name](plot, meta, hint, chosen);
  figure.dataset.drawn = "";
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
    await draw(figure, contents[i]).catch(reportError); // the others are drawn all the same
    await new Promise((done) => setTimeout(done)); // the browser shows it before the next one is begun
  }
})();
