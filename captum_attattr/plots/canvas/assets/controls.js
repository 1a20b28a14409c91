// Puts native controls in the place of plotly's menus, which are drawings: no key reaches them, no screen reader names
// them. The figure hides its menus and keeps what they do: their options, and which one is chosen.
const menus = plot.layout.updatemenus ?? [];
const bar = document.createElement("div");
bar.className = "controls";
bar.hidden = !menus.length;
plot.before(bar); // before plotly's buttons in the order of the keyboard

// Does what an option of a menu does.
const choose = (at, index) => {
  const menu = plot.layout.updatemenus[at];
  const { method, args: [first, second, third] } = menu.buttons[index];
  const active = { [`updatemenus[${at}].active`]: index };
  if (method === "relayout") Plotly.relayout(plot, { ...first, ...active });
  if (method === "restyle") Plotly.update(plot, first, active, second);
  if (method === "update") Plotly.update(plot, first, { ...second, ...active }, third);
  plot.emit("plotly_buttonclicked", { menu, active: index }); // a script does what "skip" leaves to it
};

const made = (tag, parent, properties) => {
  const element = Object.assign(document.createElement(tag), properties);
  parent.append(element);
  return element;
};
const select = ({ name, buttons }, at) => {
  const element = made("select", bar, { ariaLabel: name });
  for (const { label } of buttons) made("option", element, { textContent: plain(label) });
  element.addEventListener("change", () => choose(at, element.selectedIndex));
  return (active) => { element.selectedIndex = active; };
};
const radios = ({ name, buttons }, at) => {
  const group = made("fieldset", bar);
  made("legend", group, { textContent: name });
  const inputs = buttons.map(({ label }, index) => {
    const option = made("label", group);
    const input = made("input", option, { type: "radio", name: `${plot.id}-${at}` });
    made("span", option, { textContent: plain(label) });
    input.addEventListener("change", () => choose(at, index));
    return input;
  });
  return (active) => { inputs[active].checked = true; };
};
const shows = menus.map((menu, at) => (menu.type === "buttons" ? radios : select)(menu, at));

// All controls are in one line, which begins where the first menu would.
const follow = () => {
  shows.forEach((show, at) => show(plot.layout.updatemenus[at].active ?? 0));
  const { l, t, w, h } = plot._fullLayout._size;
  const { x = 0, y = 1, yanchor } = menus[0];
  const [left, top] = [plot.offsetLeft + l + x * w, plot.offsetTop + t + (1 - y) * h];
  Object.assign(bar.style, { left: `${left}px`, top: `${top}px`, transform: yanchor === "bottom" ? "translateY(-100%)" : "" });
};
if (menus.length) {
  follow();
  for (const event of ["plotly_relayout", "plotly_restyle", "plotly_update"]) plot.on(event, follow);
}

if (meta.menu) {
  const at = menus.findIndex((each) => each.name === meta.menu);
  takeKeys(plot);
  plot.addEventListener("keydown", (event) => {
    const move = { ArrowUp: -1, ArrowLeft: -1, ArrowDown: 1, ArrowRight: 1 }[event.key];
    if (!move) return;
    event.preventDefault();
    const { active = 0, buttons } = plot.layout.updatemenus[at];
    const next = Math.min(Math.max(active + move, 0), buttons.length - 1);
    chosen.textContent = plain(buttons[next].label);
    choose(at, next);
  });
}
