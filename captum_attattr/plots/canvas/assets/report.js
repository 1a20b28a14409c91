// The report: one picture of links, the heads beside it, a map of one head; all show the same state.
const data = JSON.parse(byId("data").textContent);
const [layers, heads, size] = data.shape;
const scales = data.maps;
const reading = data.tokens.map((token, i) => (data.special[i] || isPatch(token) ? token : `“${token}”`));
const wordOf = [];
data.positions.forEach((word, w) => word.forEach((token) => { wordOf[token] = w; }));
const signed = (value) => (value < 0 ? "−" : "+") + Math.abs(Number(value.toPrecision(3)));
const percent = (share) => `${Number((100 * share).toPrecision(2))} %`;
const edge = ([layer, query, key, score]) => ({ layer, query, key, score, id: `${layer},${query},${key}` });
const strongest = data.links.index.map((at, i) => {
  const cell = at % (size * size);
  return edge([Math.floor(at / (size * size)), Math.floor(cell / size), cell % size, data.links.score[i]]);
});
const exact = new Map(strongest.map((link) => [link.id, link.score]));
const trees = data.trees.map((tree) => ({ ...tree, links: tree.links.map(edge) }));
const firstTree = trees.findIndex(({ threshold }) => threshold === data.threshold);
const inTree = new Set(trees[firstTree].links.map(({ id }) => id));
const stops = [10, 20, 30, 50, 80, 120, 200, 400, 800, 1500].filter((n, i, all) => !i || all[i - 1] < strongest.length);

// ------------------------------------------------------------------------------------- the maps of the heads

let codes = null; // attribution, signed, and attention
const cells = scales.side ** 2;
const [levels, attentionLevels] = scales.levels; // of the codes
const attributionAt = (map, cell) => {
  const code = codes.attribution[map * cells + cell] / levels;
  return Math.sign(code) * code * code * scales.attribution[map];
};
const attentionAt = (map, cell) => (codes.attention[map * cells + cell] / attentionLevels) ** 2 * scales.attention[map];
const cellOf = (query, key) => Math.floor(query / scales.block) * scales.side + Math.floor(key / scales.block);
// How many cells of a head have a code of each size.
const levelsOf = (map) => {
  const counts = new Uint32Array(levels + 1);
  for (let i = map * cells; i < (map + 1) * cells; i++) counts[Math.abs(codes.attribution[i])]++;
  return counts;
};
const ofHead = (map) => {
  if (!codes || scales.block > 1) return [];
  // Only what may be drawn: cells from the level that as many reach.
  let [level, count] = [levels, 0];
  for (const counts = levelsOf(map); level > 1 && (count += counts[level]) < stops.at(-1); ) level--;
  const found = [];
  for (let cell = 0; cell < cells; cell++) {
    if (Math.abs(codes.attribution[map * cells + cell]) >= level) found.push(cell);
  }
  const coded = (cell) => Math.abs(codes.attribution[map * cells + cell]);
  found.sort((a, b) => coded(b) - coded(a) || a - b);
  const layer = Math.floor(map / heads);
  return found.map((cell) => edge([layer, Math.floor(cell / size), cell % size, attributionAt(map, cell)]));
};

// ------------------------------------------------------------------------------------------------ the state

const initial = { mode: "strongest", n: Math.min(2, stops.length - 1), tree: firstTree, head: null, word: null, link: null };
const state = { ...initial };
const read = () => {
  const given = new URLSearchParams(location.hash.slice(1));
  const whole = (name, end) => {
    const value = given.get(name);
    return value !== null && /^\d+$/.test(value) && Number(value) < end ? Number(value) : initial[name];
  };
  const link = /^\d+,\d+,\d+$/.test(given.get("link") ?? "") ? given.get("link") : null;
  const [layer, query, key] = (link ?? "0,0,0").split(",").map(Number);
  Object.assign(state, {
    mode: ["strongest", "tree", "all"].includes(given.get("mode")) ? given.get("mode") : initial.mode,
    n: whole("n", stops.length),
    tree: whole("tree", trees.length),
    head: whole("head", layers * heads),
    word: whole("word", data.words.length),
    link: link && layer < layers && query < size && key < size ? link : null,
  });
};
const set = (change) => {
  Object.assign(state, change);
  const told = new URLSearchParams();
  for (const name in state) if (state[name] !== initial[name]) told.set(name, state[name]);
  try {
    history.replaceState(null, "", `#${told}`);
  } catch { /* inside a notebook there is no address */ }
  show();
};
const toggle = (name, value) => set({ [name]: state[name] === value ? null : value });

// ----------------------------------------------------------------------------------------------- the picture

const UNSEEN = 860; // pixels: the width where the page hides the picture, which can be saved all the same
const plot = byId("picture");
const svg = make("svg", plot, { class: "main-svg", role: "img" });
const tip = byId("tip");
const chosenLinks = () => {
  if (state.mode === "tree") return trees[state.tree].links;
  const all = state.head === null ? strongest : ofHead(state.head);
  return all.slice(0, state.mode === "all" ? stops.at(-1) : stops[state.n]);
};
const touches = ({ query, key, id }) =>
  (state.word === null || wordOf[query] === state.word || wordOf[key] === state.word) &&
  (state.link === null || id === state.link);
const columnsOf = (links) => {
  const taking = new Set(data.readers.length > 2 ? [] : data.readers);
  for (const { query, key } of links) taking.add(query).add(key);
  const shown = [];
  for (let i = 0; i < size; i++) {
    if (size <= 40 || taking.has(i)) shown.push(i);
    else if (shown.length && shown.at(-1) !== null) shown.push(null);
  }
  return data.rtl ? shown.reverse() : shown;
};
const picture = (links) => {
  const width = Math.max(plot.clientWidth || UNSEEN, 300);
  const shown = columnsOf(links);
  const [left, right] = [54, 12];
  const step = (width - left - right) / shown.length;
  const longest = Math.max(...shown.map((i) => (i === null ? 1 : data.tokens[i].length)));
  const flat = longest * 6.6 + 6 < step;
  const below = flat ? 24 : Math.ceil(Math.min(longest, 18) * 6.4) + 22;
  const row = Math.max(26, Math.min(64, Math.floor(430 / (layers + 1))));
  const height = 34 + row * (layers + 1) + below;
  const y = (level) => 34 + row * (layers + 1 - level); // level 0 is the words, level l what leaves layer l - 1
  const x = new Map(shown.map((i, at) => [i, left + step * (at + 0.5)]));
  svg.replaceChildren();
  set_(svg, { viewBox: `0 0 ${width} ${height}`, width, height });
  for (let layer = 0; layer < layers; layer++) {
    if (row * (layer % 2 ? 1 : 2) < 26 && layer % 2) continue;
    const text = make("text", svg, { x: left - 8, y: (y(layer) + y(layer + 1)) / 2 + 4, class: "layer" });
    text.textContent = layers > 20 && layer % 2 ? "" : `layer ${data.layers[layer]}`;
  }
  for (let i = 1; i < shown.length; i++) {
    const [a, b] = [shown[i - 1], shown[i]];
    if (a === null || b === null || data.segments[a] === data.segments[b] || data.special[b]) continue;
    const at = (x.get(a) + x.get(b)) / 2;
    make("line", svg, { x1: at, x2: at, y1: y(layers), y2: height, class: "divider" });
  }
  const label = (i, at) => {
    const turn = flat ? {} : { transform: `rotate(-55 ${at} ${y(0) + 14})` };
    const kind = `name${i !== null && data.special[i] ? " special" : ""}${i !== null && wordOf[i] === state.word ? " on" : ""}`;
    const text = make("text", svg, { x: at, y: y(0) + 18, class: kind, "text-anchor": flat ? "middle" : "end", ...turn });
    text.textContent = i === null ? "…" : data.tokens[i].slice(0, flat ? 24 : 18);
    if (i === null) return;
    text.dataset.word = wordOf[i];
    make("line", svg, { x1: at, x2: at, y1: y(0) + 2, y2: y(layers), class: "column" });
  };
  shown.forEach((i, at) => label(i, left + step * (at + 0.5)));
  const read = data.readers.filter((i) => x.has(i)).map((i) => x.get(i));
  const top = read.reduce((sum, at) => sum + at, 0) / read.length;
  for (const at of read) make("line", svg, { x1: at, x2: top, y1: y(layers), y2: y(layers + 1), class: "to-decision" });
  make("circle", svg, { cx: top, cy: y(layers + 1), r: 6, class: "decision" });
  const over = top > width / 2;
  const name = make("text", svg, { x: top + (over ? -11 : 11), y: y(layers + 1) + 5, class: "decision-name", "text-anchor": over ? "end" : "start" });
  name.textContent = data.label;
  const largest = Math.max(...links.map(({ score }) => Math.abs(score)), 1e-300);
  const curve = ({ layer, query, key }) => {
    const [x0, y0, x1, y1] = [x.get(key), y(layer), x.get(query), y(layer + 1)];
    return `M${x0} ${y0}C${x0} ${y0 - row * 0.6} ${x1} ${y1 + row * 0.6} ${x1} ${y1}`;
  };
  const lit = links.map(touches);
  for (const [i, link] of [...links.entries()].reverse()) {
    const group = make("g", svg, { class: `link ${link.score < 0 ? "against" : "for"}${lit[i] ? "" : " dim"}` });
    const d = curve(link);
    const wide = 1 + 8 * Math.abs(link.score) / largest;
    if (state.mode !== "tree" && inTree.has(link.id)) make("path", group, { d, class: "tree", "stroke-width": wide + 4 });
    make("path", group, { d, class: "line", "stroke-width": wide });
    make("path", group, { d, class: "hit", "stroke-width": Math.max(10, wide) });
    group.dataset.link = link.id;
    group.link = link;
  }
  for (const i of x.keys()) {
    if (i !== null && links.some(({ query, key }) => query === i || key === i)) {
      const dot = make("circle", svg, { cx: x.get(i), cy: y(0), r: 4, class: "token" });
      dot.dataset.word = wordOf[i];
    }
  }
  svg.setAttribute("aria-label", `${links.length} links between ${data.nouns[1]}, from those below up to ${data.label}`);
};

// -------------------------------------------------------------------------------------------- what is told

const sentence = ({ layer, query, key, score }) =>
  `${reading[query]} read ${query === key ? "itself" : reading[key]} in layer ${data.layers[layer]}: ${signed(score)}`;
const ofLink = (id) => {
  const [layer, query, key] = id.split(",").map(Number);
  const score = exact.get(id) ?? trees.flatMap((tree) => tree.links).find((each) => each.id === id)?.score;
  return { layer, query, key, id, score: score ?? sumOver(layer, query, key) };
};
const sumOver = (layer, query, key) => {
  let sum = 0;
  for (let head = 0; codes && head < heads; head++) sum += attributionAt(layer * heads + head, cellOf(query, key));
  return sum;
};
const headsOf = ({ layer, query, key }) => {
  if (!codes || scales.block > 1) return [];
  const scores = Array.from({ length: heads }, (_, head) => [head, attributionAt(layer * heads + head, cellOf(query, key))]);
  return scores.sort((a, b) => Math.abs(b[1]) - Math.abs(a[1]));
};
const about = (link) => {
  const parts = headsOf(link).filter(([, value]) => value).slice(0, 3).map(([head, value]) => `head ${head} ${signed(value)}`);
  return sentence(link) + (parts.length ? ` (${parts.join(", ")})` : "") + (inTree.has(link.id) ? "; in the tree" : "");
};
const ofWord = (word) => {
  const scores = data.scores.at(-1);
  const mine = (token) => wordOf[token] === word;
  const list = (links, other) =>
    links.slice(0, 4).map((link) => `${reading[link[other]]} in layer ${data.layers[link.layer]} ${signed(link.score)}`).join(", ") || "nothing strong";
  const gave = strongest.filter(({ query, key }) => mine(key) && !mine(query));
  const took = strongest.filter(({ query, key }) => mine(query) && !mine(key));
  const name = isPatch(data.words[word]) ? data.words[word] : `“${data.words[word]}”`;
  return `${name} counts ${signed(scores[word])}. It gave to: ${list(gave, "query")}. It took from: ${list(took, "key")}.`;
};
const tell = (links) => {
  const told = byId("told");
  told.classList.toggle("chosen", state.link !== null || state.word !== null);
  if (state.link !== null) told.textContent = about(ofLink(state.link));
  else if (state.word !== null) told.textContent = ofWord(state.word);
  else told.textContent = `Choose a ${data.nouns[0]}, a link or a head, by mouse or by Tab, arrow keys and Enter; a click on empty space, or Escape, shows all again.`;
  const absolute = links.reduce((sum, { score }) => sum + Math.abs(score), 0);
  const slider = byId("cut");
  const warning = byId("warning");
  warning.hidden = true;
  if (state.mode === "tree") {
    const { threshold, left, why } = trees[state.tree];
    Object.assign(slider, { min: 0, max: trees.length - 1, value: state.tree, disabled: false });
    byId("cut-name").textContent = "threshold of the tree";
    byId("count").textContent = `${threshold.toPrecision(2).replace(/\.?0+$/, "")}: ${links.length} links`;
    warning.hidden = left <= 0.9;
    warning.textContent = why ?? `The tree shows little of the decision: it leaves out ${percent(left)} of the positive attribution.`;
  } else {
    Object.assign(slider, { min: 0, max: stops.length - 1, value: state.mode === "all" ? stops.length - 1 : state.n });
    slider.disabled = state.mode === "all";
    byId("cut-name").textContent = "how many links";
    const ofAll = state.head === null
      ? `${percent(absolute / (data.total || 1))} of all attribution`
      : `of head ${state.head % heads} in layer ${data.layers[Math.floor(state.head / heads)]}`;
    byId("count").textContent = `${links.length} links, ${ofAll}`;
    if (state.mode === "all" && data.count > links.length) {
      warning.hidden = false;
      warning.textContent = `Of ${data.count} links the ${links.length} strongest are drawn.`;
    }
  }
  slider.setAttribute("aria-valuetext", byId("count").textContent);
  const list = byId("list");
  list.replaceChildren();
  for (const link of links.filter(touches).toSorted((a, b) => Math.abs(b.score) - Math.abs(a.score)).slice(0, 12)) {
    const button = make_("button", make_("li", list), sentence(link) + (inTree.has(link.id) ? " ◦ tree" : ""));
    button.type = "button";
    button.className = link.score < 0 ? "against" : "for";
    button.dataset.link = link.id;
    button.setAttribute("aria-pressed", String(state.link === link.id));
  }
  byId("list-title").textContent =
    state.word === null && state.link === null ? "Strongest links" : "Strongest links of what is chosen";
};
const show = () => {
  const links = chosenLinks();
  picture(links);
  tell(links);
  showHeads();
  showMaps();
  for (const each of document.querySelectorAll(".sentence .word")) {
    each.classList.toggle("on", Number(each.dataset.word) === state.word);
    each.setAttribute("aria-pressed", String(Number(each.dataset.word) === state.word));
  }
  for (const each of document.querySelectorAll("input[name=mode]")) each.checked = each.value === state.mode;
  for (const follow of followers) follow();
};
