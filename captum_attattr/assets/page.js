// Runs when the figure is drawn; plotly.py puts the id of its element in the place of {plot_id}.
const plot = document.getElementById("{plot_id}");
const meta = plot.layout.meta || {};

if (meta.themes) {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const paint = (name) => Plotly.relayout(plot, meta.themes[name]);
  const follow = () => paint(dark.matches ? "dark" : "light");
  if (dark.matches) follow();
  dark.addEventListener("change", follow);
  addEventListener("beforeprint", () => paint("light"));
  addEventListener("afterprint", follow);
}

if (meta.attention) {
  const { labels, tiles, step, room } = meta.attention;
  const menu = (name) => plot.layout.updatemenus.findIndex((each) => each.name === name);
  const [rows, columns] = [menu("layer"), menu("head")];

  // Does what the menus of the layer and the head do, both at once.
  const choose = (layer, head) => {
    const change = { [`updatemenus[${rows}].active`]: layer, [`updatemenus[${columns}].active`]: head };
    for (const [at, index] of [[rows, layer], [columns, head]]) {
      Object.assign(change, plot.layout.updatemenus[at].buttons[index].args[0]);
    }
    document.getElementById("chosen").textContent = `layer ${layer}, head ${head}`;
    Plotly.relayout(plot, change);
  };

  // Labels as many tokens as there is room for: all of them when a part of a long text is enlarged.
  const steps = { x: step, y: step };
  plot.on("plotly_relayout", () => {
    const change = {};
    for (const axis of ["x", "y"]) {
      const [from, to] = plot.layout[`${axis}axis2`].range;
      const fits = Math.max(1, Math.ceil(Math.abs(to - from) / room));
      if (fits === steps[axis]) continue;
      steps[axis] = fits;
      const all = Array.from({ length: tiles[axis] * labels.length }, (_, place) => place);
      const marked = all.filter((place) => (place % labels.length) % fits === 0);
      change[`${axis}axis3.tickvals`] = marked.map((place) => (axis === "x" ? place : -place));
      change[`${axis}axis3.ticktext`] = marked.map((place) => labels[place % labels.length]);
    }
    if (Object.keys(change).length) Plotly.relayout(plot, change);
  });

  if (rows >= 0) {
    plot.tabIndex = 0;
    plot.setAttribute("role", "application");
    plot.setAttribute("aria-label", document.title);
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
}
