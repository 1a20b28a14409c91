// The picture in a report: arrows of the word that is chosen or pointed at, and keys that go from patch to patch.
const drawArrows = arrowsOf(byId("seen"));
let pointedWord = null;
const showArrows = () => {
  const word = pointedWord ?? state.word;
  let links = word === null ? [] : linksOf(data.picture.links[word], word);
  if (word === null && state.link !== null) {
    const { query, key, score } = ofLink(state.link);
    links = wordOf[query] === wordOf[key] ? [] : [[wordOf[key], wordOf[query], score]];
  }
  drawArrows(links, Math.abs(links[0]?.[2]));
};
followers.push(showArrows);
const field = document.querySelector(".field");
field.addEventListener("pointermove", (event) => {
  const { word } = event.target.closest("[data-word]")?.dataset ?? {};
  pointedWord = word === undefined || event.pointerType === "touch" ? null : Number(word);
  showArrows();
});
field.addEventListener("pointerleave", () => { pointedWord = null; showArrows(); });
field.addEventListener("click", () => { pointedWord = null; });
const patches = data.picture.patches.map((word) => field.querySelector(`[data-word="${word}"]`));
field.addEventListener("keydown", (event) => {
  const next = patchBeside(patches, data.picture.grid[1], event);
  if (next) focusOn(patches, next);
});
addEventListener("load", () => focusOn(patches, patches[0], false));
new ResizeObserver(showArrows).observe(field);
