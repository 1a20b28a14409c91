// A word of the answer, or a span of them, tints what it came from.
const data = JSON.parse(document.getElementById("data").textContent);
const by = (id) => document.getElementById(id);
const words = [...document.querySelectorAll("[data-word]")];
const answer = words.slice(data.prompt);
const short = (value) => String(Number(value.toPrecision(3))).replace("-", "−");
const signed = (value) => (value < 0 ? "" : "+") + short(value);
let [anchor, other] = data.chosen; // what is chosen, as indices of words of the answer
let dragging = false;
const box = document.querySelector(".answer .sentence");

const sums = (from, to) => {
  const total = new Float64Array(words.length);
  for (const row of data.scores.slice(from, to + 1)) row.forEach((score, i) => (total[i] += score));
  return total;
};

// Tint by a span of the answer; `speak` says it too.
const show = (first, second, speak = true) => {
  const [from, to] = first < second ? [first, second] : [second, first];
  const total = sums(from, to);
  const counts = (i) => by("special").checked || !data.special[i];
  const largest = Math.max(...[...total].map((score, i) => (counts(i) ? Math.abs(score) : 0))) || 1;
  words.forEach((word, i) => {
    const share = counts(i) ? Math.min(Math.abs(total[i]) / largest, 1) : 0;
    word.title = `${data.words[i]}: ${signed(total[i])}`;
    word.style.cssText = share < 0.04 ? "" : `--share:${share.toFixed(3)};--tint:var(--${total[i] < 0 ? "against" : "for"})`;
  });
  answer.forEach((word, i) => word.setAttribute("aria-selected", i >= from && i <= to));
  box.classList.toggle("part", to - from + 1 < answer.length); // the whole answer needs no marks
  by("end").textContent = `±${short(largest)}`;
  if (!speak) return;
  const strongest = [...total.keys()].filter((i) => total[i] && counts(i)).sort((a, b) => Math.abs(total[b]) - Math.abs(total[a]));
  const named = strongest.slice(0, 5).map((i) => `${data.words[i]} ${signed(total[i])}`);
  const likely = Math.exp(data.likely.slice(from, to + 1).reduce((a, b) => a + b, 0));
  const every = data.words.slice(data.prompt + from, data.prompt + to + 1);
  const taken = every.length < 8 ? every.join(" ") : `${every.slice(0, 4).join(" ")} … ${every.at(-1)} (${every.length} words)`;
  const against = [...new Set(data.against.slice(from, to + 1).filter(Boolean))].join(", ");
  const summed = to > from ? `; scores summed over its ${to - from + 1} words: ` : "; from ";
  by("told").textContent = `${taken}${against && ` against ${against}`}: probability ${short(likely)}${summed}${named.join(", ") || "nothing"}`;
  exact(from, to, total);
};

// How far the scores of a span are from adding up to what the attention did.
const exact = (from, to, total) => {
  const missing = data.missing.slice(from, to + 1);
  const size = total.reduce((sum, score) => sum + Math.abs(score), 0);
  const miss = missing.reduce((sum, value) => sum + value, 0);
  const rough = miss > 0.1 * size;
  by("exact").textContent = missing.includes(null)
    ? "How exact: this method's scores need not add up to anything."
    : `How exact: all scores, special tokens included, add up to what the attention did within ${short(miss)}` +
      (rough ? ` (${Math.round((100 * miss) / size)} % of their sizes): take them as rough, or pass more nodes (n_steps).` : ".");
  by("exact").classList.toggle("rough", rough);
};

const choose = (first, second, focus = false) => {
  [anchor, other] = [first, second];
  answer.forEach((word, i) => (word.tabIndex = i === other ? 0 : -1));
  if (focus) answer[other].focus();
  show(anchor, other);
};
const wordAt = (target) => (target instanceof Element ? answer.indexOf(target.closest(".answer .word")) : -1);

box.addEventListener("pointerdown", (event) => {
  const i = wordAt(event.target);
  if (i < 0 || event.button) return;
  dragging = true;
  event.target.releasePointerCapture?.(event.pointerId); // so that a finger's moves reach the words below it
  choose(event.shiftKey ? anchor : i, i, true);
});
box.addEventListener("pointermove", (event) => {
  const i = wordAt(document.elementFromPoint(event.clientX, event.clientY));
  if (i < 0) return;
  if (!dragging) show(i, i, true);
  else if (i !== other) choose(anchor, i, true);
});
box.addEventListener("pointerleave", () => show(anchor, other));
addEventListener("pointerup", () => (dragging = false));
addEventListener("pointercancel", () => (dragging = false));

box.addEventListener("keydown", (event) => {
  const rtl = box.dir === "rtl" ? -1 : 1;
  const steps = { ArrowRight: rtl, ArrowLeft: -rtl, ArrowDown: 1, ArrowUp: -1, Home: -Infinity, End: Infinity };
  if (event.key === "Escape") choose(0, answer.length - 1, true);
  else if (event.key in steps) {
    const i = Math.max(0, Math.min(answer.length - 1, other + steps[event.key]));
    choose(event.shiftKey ? anchor : i, i, true);
  } else return;
  event.preventDefault();
});
by("whole").addEventListener("click", () => choose(0, answer.length - 1));
by("special").addEventListener("change", () => show(anchor, other));
choose(anchor, other);
