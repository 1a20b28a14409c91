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

if (meta.menu) {
  const at = plot.layout.updatemenus.findIndex((each) => each.name === meta.menu);
  takeKeys(plot);
  plot.addEventListener("keydown", (event) => {
    const move = { ArrowUp: -1, ArrowLeft: -1, ArrowDown: 1, ArrowRight: 1 }[event.key];
    if (!move) return;
    event.preventDefault();
    const { active, buttons } = plot.layout.updatemenus[at];
    const next = Math.min(Math.max(active + move, 0), buttons.length - 1);
    const [traces, layout] = buttons[next].args;
    chosen.textContent = plain(buttons[next].label);
    Plotly.update(plot, traces, { ...layout, [`updatemenus[${at}].active`]: next });
  });
}
