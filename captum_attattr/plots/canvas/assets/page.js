// Runs when a figure is drawn, with the constants `plot`, `meta`, `hint` and `chosen` of that figure.
if (meta.themes) {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const paint = (name) => Plotly.relayout(plot, meta.themes[name]);
  const follow = () => paint(dark.matches ? "dark" : "light");
  if (dark.matches) follow();
  dark.addEventListener("change", follow);
  addEventListener("beforeprint", () => paint("light"));
  addEventListener("afterprint", follow);
}
