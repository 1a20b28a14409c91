// The menu of the layers: tints every word anew.
const data = JSON.parse(document.getElementById("data").textContent);
const signed = (value) => (value < 0 ? "−" : "+") + Math.abs(Number(value.toPrecision(3)));
const menu = document.getElementById("layer");
menu.addEventListener("change", () => {
  for (const row of document.querySelectorAll("[data-row]")) {
    const { layers, scores } = data[row.dataset.row];
    const shown = scores.at(menu.value === "" ? -1 : layers.indexOf(Number(menu.value)));
    const largest = Math.max(...shown.map(Math.abs)) || 1;
    row.querySelector(".end").textContent = `±${Number(largest.toPrecision(3))}`;
    for (const word of row.querySelectorAll(".word")) {
      const score = shown[word.dataset.word];
      const share = Math.abs(score) / largest;
      word.title = word.title.replace(/: [^:]*$/, `: ${signed(score)}`);
      word.style.cssText = share < 0.04 ? "" : `--share:${share};--tint:var(--${score < 0 ? "against" : "for"})`;
    }
  }
});
