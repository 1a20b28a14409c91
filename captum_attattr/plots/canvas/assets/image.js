// Pictures: a layer's tints, and what a patch read and gave to.
const every = JSON.parse(document.getElementById("data").textContent);
const by = (id) => document.getElementById(id);
const main = document.querySelector("main");
const signed = (value) => (value < 0 ? "−" : "+") + String(Math.abs(Number(value.toPrecision(3))));
const chosenRow = (data) => (by("layer").value === "" ? data.scores.length - 1 : data.layers.indexOf(Number(by("layer").value)));

const pictureOf = (section) => {
  const data = every[section.dataset.row];
  const words = [...section.querySelectorAll("[data-word]")];
  const elements = [];
  for (const word of words) elements[word.dataset.word] = word;
  const patches = data.patches.map((word) => elements[word]);
  const draw = arrowsOf(section);
  const told = section.querySelector(".told");
  const list = section.querySelector(".list");
  let kept = null;
  let pointed = null;

  const named = ([other, score, layer]) => `${data.words[other]} ${signed(score)} (most in layer ${layer})`;
  const tell = (word) => {
    const scores = data.scores[chosenRow(data)];
    if (word === null) {
      const order = [...scores.keys()].filter((i) => scores[i]).sort((a, b) => Math.abs(scores[b]) - Math.abs(scores[a]));
      told.textContent = `Largest scores: ${order.slice(0, 5).map((i) => `${data.words[i]} ${signed(scores[i])}`).join(", ") || "none"}.`;
      return;
    }
    const [read, gave] = data.links[word];
    const some = (links) => links.slice(0, 4).map(named).join(", ") || "nothing strong";
    told.textContent = `${data.words[word]} counts ${signed(scores[word])}. It read: ${some(read)}. It gave to: ${some(gave)}.`;
  };
  const show = () => {
    const word = pointed ?? kept;
    const links = word === null ? [] : linksOf(data.links[word], word);
    draw(links, Math.abs(links[0]?.[2]));
    tell(word);
    for (const each of words) {
      const mine = Number(each.dataset.word) === word;
      each.classList.toggle("on", mine);
      each.setAttribute("aria-pressed", String(mine && kept === word));
    }
  };
  for (const [key, query, score] of data.strongest) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = score < 0 ? "against" : "for";
    button.textContent = `${data.words[query]} read ${data.words[key]}: ${signed(score)}`;
    const alone = () => draw([[key, query, score]], Math.abs(score));
    for (const event of ["pointerenter", "focus", "click"]) button.addEventListener(event, alone);
    for (const event of ["pointerleave", "blur"]) button.addEventListener(event, show);
    const item = document.createElement("li");
    item.append(button);
    list.append(item);
  }
  const wordAt = (target) => {
    const found = target instanceof Element ? target.closest("[data-word]") : null;
    return found ? Number(found.dataset.word) : null;
  };
  const field = section.querySelector(".field");
  field.addEventListener("pointermove", (event) => {
    const word = wordAt(event.target);
    if (event.pointerType === "touch" || word === pointed) return;
    pointed = word;
    show();
  });
  field.addEventListener("pointerleave", () => { pointed = null; show(); });
  field.addEventListener("click", (event) => {
    const word = wordAt(event.target);
    kept = word === kept ? null : word;
    show();
  });
  for (const word of words) word.setAttribute("role", patches.includes(word) ? "gridcell" : "button");
  const size = (word) => Math.abs(data.scores.at(-1)[word]);
  const start = patches[data.patches.reduce((best, word, i) => (size(word) > size(data.patches[best]) ? i : best), 0)];
  focusOn(patches, start, false);
  for (const word of words) {
    if (!patches.includes(word)) word.tabIndex = 0;
    word.setAttribute("aria-label", word.title);
    word.addEventListener("focus", () => { pointed = Number(word.dataset.word); show(); });
    word.addEventListener("blur", () => { pointed = null; show(); });
  }
  field.addEventListener("keydown", (event) => {
    if (event.key === "Escape") { kept = pointed = null; show(); return; }
    if (event.key === "Enter" || event.key === " ") { event.target.click(); event.preventDefault(); return; }
    const next = patchBeside(patches, data.grid[1], event);
    if (next) focusOn(patches, next);
  });
  const tint = () => {
    const scores = data.scores[chosenRow(data)];
    const end = Math.max(...scores.map((score, i) => (data.special[i] ? 0 : Math.abs(score)))) || 1;
    for (const word of words) {
      const score = scores[word.dataset.word];
      const share = Math.min(Math.abs(score) / end, 1);
      word.title = `${data.words[word.dataset.word]}: ${signed(score)}`;
      word.setAttribute("aria-label", word.title);
      word.style.cssText = share < 0.04 ? "" : `--share:${share.toFixed(3)};--tint:var(--${score < 0 ? "against" : "for"})`;
    }
    const [low, , high] = section.querySelector(".scale").children;
    low.textContent = low.textContent.replace(/−.*/, `−${Number(end.toPrecision(3))}`);
    high.textContent = high.textContent.replace(/^\S+/, `+${Number(end.toPrecision(3))}`);
    show();
  };
  new ResizeObserver(show).observe(field);
  show();
  return tint;
};

const tints = [...document.querySelectorAll(".seen")].map(pictureOf);
const opacity = () => {
  document.documentElement.style.setProperty("--strong", `${by("tint").value}%`);
  by("opacity").textContent = `opacity is the share of the largest score of a patch, which has ${by("tint").value} %`;
};
by("layer").addEventListener("change", () => tints.forEach((tint) => tint()));
by("tint").addEventListener("input", opacity);
by("grey").addEventListener("change", () => main.classList.toggle("grey", by("grey").checked));
main.classList.add("grey");
opacity();
