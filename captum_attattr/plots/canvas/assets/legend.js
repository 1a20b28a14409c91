// Tab reaches the entries of a legend that a click hides or shows; Enter and space are the click.
const inLegend = () =>
  [...plot.querySelectorAll(".legend .traces")].filter((entry) => plot._fullLayout.legend.itemclick && entry.querySelector(".legendtoggle"));
let focused = -1; // plotly.js draws the legend anew after each change
const follow = () => {
  inLegend().forEach((entry, at) => {
    const [{ trace }] = entry.__data__;
    const looks = { tabindex: 0, role: "checkbox", "aria-checked": trace.visible === true, "aria-label": entry.textContent };
    for (const [name, value] of Object.entries(looks)) entry.setAttribute(name, value);
    if (at === focused) entry.focus();
  });
};
plot.addEventListener("focusin", ({ target }) => { focused = inLegend().indexOf(target); });
plot.addEventListener("keydown", (event) => {
  const entry = event.target.closest?.(".legend .traces");
  if (!entry || (event.key !== "Enter" && event.key !== " ")) return;
  event.preventDefault();
  for (const kind of ["mousedown", "mouseup"]) entry.querySelector(".legendtoggle").dispatchEvent(new MouseEvent(kind));
});
plot.on("plotly_afterplot", follow);
follow();
