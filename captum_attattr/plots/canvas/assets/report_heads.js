// The heads of a report, the map of one of them, and what mouse and keys do.
const heads_ = byId("heads");
const nameOf = (map) => `layer ${data.layers[Math.floor(map / heads)]}, head ${map % heads}`;
let importance = 0; // which of the given scores the heads show
const buttons = [];
heads_.classList.toggle("many", heads > 24);
for (let layer = layers - 1; layer >= 0; layer--) {
  const row = make_("div", heads_);
  row.setAttribute("role", "row");
  make_("span", row, String(data.layers[layer])).setAttribute("role", "rowheader");
  for (let head = 0; head < heads; head++) {
    const button = make_("button", row);
    button.type = "button";
    button.dataset.head = layer * heads + head;
    button.tabIndex = -1;
    buttons[layer * heads + head] = button;
  }
}
const shades = () => {
  const { scores } = data.importance[importance];
  const largest = Math.max(...scores.map((score) => Math.abs(score ?? 0))) || 1;
  scores.forEach((score, map) => {
    const button = buttons[map];
    const told = score === null ? "this head is gone" : `${data.importance[importance].name} ${signed(score)}`;
    button.setAttribute("aria-label", `${nameOf(map)}: ${told}`);
    button.title = `${nameOf(map)}: ${told}`;
    button.classList.toggle("gone", score === null);
    button.style.setProperty("--share", score === null ? 0 : Math.abs(score) / largest);
    button.style.setProperty("--tint", score < 0 ? "var(--against)" : "var(--for)");
  });
};
const best = scales.attribution.indexOf(Math.max(...scales.attribution));
const shownHead = () => state.head ?? best;
const showHeads = (pointed = state.link) => {
  const lit = new Map();
  if (pointed) {
    const link = ofLink(pointed);
    const scores = headsOf(link);
    const largest = Math.abs(scores[0]?.[1] ?? 0);
    for (const [head, value] of scores) {
      if (Math.abs(value) > 0.15 * largest) lit.set(link.layer * heads + head, value);
    }
  }
  buttons.forEach((button, map) => {
    button.classList.toggle("lit", lit.has(map));
    button.setAttribute("aria-pressed", String(map === state.head));
    button.tabIndex = map === shownHead() ? 0 : -1;
  });
};

const colours = () => {
  const style = getComputedStyle(document.documentElement);
  const parsed = (name) => style.getPropertyValue(name).trim().match(/[0-9a-f]{2}/gi).map((part) => parseInt(part, 16));
  return Object.fromEntries(["for", "against", "ground", "seen"].map((name) => [name, parsed(`--map-${name}`)]));
};
const paint = (canvas, valueAt, end, palette) => {
  const side = scales.side;
  Object.assign(canvas, { width: side, height: side });
  const context = canvas.getContext("2d");
  const image = context.createImageData(side, side);
  for (let cell = 0; cell < side * side; cell++) {
    const value = valueAt(cell);
    const share = Math.min(Math.abs(value) / end, 1);
    const colour = palette[canvas.id === "attention" ? "seen" : value < 0 ? "against" : "for"];
    for (let i = 0; i < 3; i++) image.data[4 * cell + i] = palette.ground[i] + share * (colour[i] - palette.ground[i]);
    image.data[4 * cell + 3] = 255;
  }
  context.putImageData(image, 0, 0);
};
let painted = null;
const showMaps = () => {
  if (!codes) return;
  const map = shownHead();
  const dark = matchMedia("(prefers-color-scheme: dark)").matches && !matchMedia("print").matches;
  if (painted === `${map} ${dark}`) return;
  painted = `${map} ${dark}`;
  const palette = colours();
  // In a large map one cell is smaller than the eye can find: the colours end at the tenth strongest there.
  const rank = size > 40 ? 10 : 1;
  const counts = levelsOf(map);
  let [level, count] = [levels, counts[levels]];
  while (count < rank && level > 1) count += counts[--level];
  const end = ((count < rank ? levels : level) / levels) ** 2 * scales.attribution[map] || 1;
  paint(byId("attribution"), (cell) => attributionAt(map, cell), end, palette);
  byId("map-name").textContent = nameOf(map) + (state.head === null ? ", which has the largest entry" : "");
  const scale = [`Colours of the attribution end at ±${Number(end.toPrecision(2))}, ${rank > 1 ? "the tenth of" : "the largest of"} this head`];
  if (codes.attention) {
    paint(byId("attention"), (cell) => attentionAt(map, cell), scales.attention[map] || 1, palette);
    scale.push(`of the attention at ${Number(scales.attention[map].toPrecision(2))}`);
  } else {
    byId("attention")?.closest("figure").replaceChildren("The attention was not kept.");
  }
  if (scales.block > 1) scale.push(`each cell is ${scales.block} x ${scales.block} tokens, with the entry farthest from zero`);
  byId("map-scale").textContent = `${scale.join(", ")}. ${scales.note}`.trim();
};
const cellAt = (event) => {
  const { left, top, width, height } = event.target.getBoundingClientRect();
  const place = (value, length) => Math.min(scales.side - 1, Math.max(0, Math.floor((value / length) * scales.side)));
  return [place(event.clientY - top, height), place(event.clientX - left, width)];
};
for (const id of ["attribution", "attention"]) {
  const canvas = byId(id);
  canvas?.addEventListener("pointermove", (event) => {
    if (!codes) return;
    const [row, column] = cellAt(event);
    const cell = row * scales.side + column;
    const names = [row, column].map((at) => data.tokens[at * scales.block] + (scales.block > 1 ? " …" : ""));
    const attention = codes.attention ? `, attention about ${Number(attentionAt(shownHead(), cell).toPrecision(2))}` : "";
    const value = signed(Number(attributionAt(shownHead(), cell).toPrecision(2)));
    byId("map-told").textContent = `${names[0]} ← ${names[1]}: attribution about ${value}${attention}`;
  });
  canvas?.addEventListener("click", (event) => {
    const [query, key] = cellAt(event);
    if (scales.block === 1) toggle("link", `${Math.floor(shownHead() / heads)},${query},${key}`);
  });
}

// ---------------------------------------------------------------------------------------- the mouse and the keys

plot.addEventListener("pointermove", (event) => {
  const { link } = event.target.closest(".link") ?? {};
  const word = event.target.dataset?.word;
  tip.hidden = !link && word === undefined;
  for (const each of svg.querySelectorAll(".link.under")) if (each.link !== link) each.classList.remove("under");
  if (link) event.target.closest(".link").classList.add("under");
  showHeads(link ? link.id : state.link);
  if (tip.hidden) return;
  tip.textContent = link ? about(link) : ofWord(Number(word));
  const { left, top, width } = plot.getBoundingClientRect();
  const x = event.clientX - left;
  tip.style.left = `${Math.max(0, Math.min(x + 14, width - tip.offsetWidth - 4))}px`;
  tip.style.top = `${event.clientY - top + 16}px`;
});
plot.addEventListener("pointerleave", () => {
  tip.hidden = true;
  for (const each of svg.querySelectorAll(".link.under")) each.classList.remove("under");
  showHeads();
});
plot.addEventListener("click", (event) => {
  const link = event.target.closest(".link")?.dataset.link;
  const word = event.target.dataset?.word;
  if (link) toggle("link", link);
  else if (word !== undefined) toggle("word", Number(word));
  else set({ word: null, link: null, head: null });
});
document.addEventListener("click", (event) => {
  const { link, word, head } = event.target.closest("button, .word")?.dataset ?? {};
  if (link) {
    const change = state.link === link ? { link: null } : { link, word: null, head: null };
    // A link that the picture does not draw is brought into it.
    if (change.link && state.mode !== "tree" && !chosenLinks().some(({ id }) => id === link)) {
      const at = strongest.findIndex(({ id }) => id === link);
      const enough = stops.findIndex((n) => n > at);
      if (at >= 0 && enough >= 0) change.n = Math.max(state.n, enough);
    }
    set(change);
  } else if (word !== undefined) {
    set({ word: state.word === Number(word) ? null : Number(word), link: null });
  } else if (head !== undefined) {
    set({ head: state.head === Number(head) ? null : Number(head), mode: state.mode === "tree" ? "strongest" : state.mode });
  }
});
// Of all words Tab reaches one, and the arrow keys the others; patches of a picture have their own keys.
const words_ = [...document.querySelectorAll(".sentence .word")];
const onward = data.rtl ? -1 : 1;
const steps = { ArrowRight: onward, ArrowLeft: -onward, ArrowDown: 1, ArrowUp: -1, Home: -Infinity, End: Infinity };
if (!data.picture) document.querySelector(".sentence").addEventListener("keydown", (event) => {
  const step = steps[event.key];
  if (!step) return;
  event.preventDefault();
  const next = words_[Math.max(0, Math.min(words_.length - 1, words_.indexOf(event.target) + step))];
  for (const each of words_) each.tabIndex = each === next ? 0 : -1;
  next.focus();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") return set({ word: null, link: null, head: null });
  const word = event.target.closest?.(".sentence .word");
  if (word && (event.key === "Enter" || event.key === " ")) {
    event.preventDefault();
    set({ word: state.word === Number(word.dataset.word) ? null : Number(word.dataset.word), link: null });
  }
});
heads_.addEventListener("keydown", (event) => {
  const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: heads, ArrowDown: -heads }[event.key];
  const next = Number(event.target.dataset.head) + by;
  if (!by || !(next in buttons)) return;
  event.preventDefault();
  for (const button of buttons) button.tabIndex = -1;
  buttons[next].tabIndex = 0;
  buttons[next].focus();
});
for (const each of document.querySelectorAll("input[name=mode]")) {
  each.addEventListener("change", () => set({ mode: each.value, head: each.value === "tree" ? null : state.head }));
}
byId("cut").addEventListener("input", ({ target }) => set({ [state.mode === "tree" ? "tree" : "n"]: Number(target.value) }));
byId("reset").addEventListener("click", () => set({ ...initial }));
byId("scores")?.addEventListener("change", ({ target }) => {
  importance = target.selectedIndex;
  shades();
});
byId("layer").addEventListener("change", ({ target }) => {
  const scores = data.scores.at(target.selectedIndex ? target.selectedIndex - 1 : -1);
  const counted = (word) => !data.picture || !data.special[data.positions[word][0]]; // for where the colours end
  const largest = Math.max(...scores.map((score, word) => (counted(word) ? Math.abs(score) : 0))) || 1;
  for (const each of document.querySelectorAll(".sentence .word")) {
    const score = scores[each.dataset.word];
    each.title = `${data.words[each.dataset.word]}: ${signed(score)}`;
    each.style.cssText = Math.abs(score) < 0.04 * largest ? "" : `--share:${Math.min(Math.abs(score) / largest, 1)};--tint:var(--${score < 0 ? "against" : "for"})`;
  }
  const [low, , high] = document.querySelector(".scale").children;
  low.textContent = low.textContent.replace(/−.*/, `−${Number(largest.toPrecision(3))}`);
  high.textContent = high.textContent.replace(/^\S+/, `+${Number(largest.toPrecision(3))}`);
});
addEventListener("hashchange", () => { read(); show(); });
new ResizeObserver(() => picture(chosenLinks())).observe(plot);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", showMaps);

(async () => {
  shades();
  words_.forEach((each, at) => set_(each, { tabindex: at && !data.picture ? -1 : 0, role: "button" }));
  read();
  show();
  if (window.DecompressionStream) {
    const packed = await inflated(byId("maps"));
    const count = layers * heads * cells;
    codes = { attribution: new Int8Array(packed.buffer, 0, count) };
    if (packed.length > count) codes.attention = packed.subarray(count);
    show();
  } else {
    byId("map-told").textContent = "The maps of single heads need a browser of 2023 or later (DecompressionStream).";
  }
  plot.dataset.drawn = "";
})();
