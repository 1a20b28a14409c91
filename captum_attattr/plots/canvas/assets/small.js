// Runs for the small form of a figure: the page writes its title, its width follows the window's, and what a pointed mark
// says stands below it, where nothing cuts it.
const box = plot.closest(".small");
const [title, subtitle, told] = ["h1", ".subtitle", ".told"].map((each) => box.querySelector(each));
const write = () => {
  const { text, subtitle: below } = plot.layout.title;
  title.textContent = plain(text);
  subtitle.textContent = plain(below?.text ?? "");
};
const fit = () => {
  const width = box.clientWidth;
  if (width && width !== plot.layout.width) Plotly.relayout(plot, { width });
};
for (const event of ["plotly_relayout", "plotly_restyle", "plotly_update"]) plot.on(event, write);
plot.on("plotly_hover", () => {
  const texts = [...plot.querySelectorAll(".hoverlayer .nums")];
  const lines = texts.flatMap((text) => (text.querySelector(".line") ? [...text.querySelectorAll(".line")] : [text]));
  told.textContent = lines.map((line) => line.textContent).join("\n");
});
write();
new ResizeObserver(fit).observe(box);
