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
// The page writes the title; a file has it in lines that fit, one annotation each.
const titled = () => {
  const { data, layout: { width, margin, height, title: { text }, annotations = [], ...rest } } = plot;
  const lines = [""];
  for (const word of plain(text).split(" ")) {
    if (`${lines.at(-1)} ${word}`.length * 8.4 > width) lines.push("");
    lines.push(`${lines.pop()} ${word}`.trim());
  }
  const above = 20 * lines.length + 8;
  const corner = { xref: "paper", x: 0, xanchor: "left", xshift: 8 - margin.l, yref: "paper", y: 1, yanchor: "top", showarrow: false };
  const head = lines.map((line, i) => ({ ...corner, yshift: margin.t + above - 8 - 20 * i, text: escaped(line), font: { size: 14 } }));
  return { data, layout: { ...rest, width, height: height + above, margin: { ...margin, t: margin.t + above }, annotations: [...annotations, ...head] } };
};
saveButtons(box, "The picture as a file:", plot._context.toImageButtonOptions.filename, titled);
new ResizeObserver(fit).observe(box);
