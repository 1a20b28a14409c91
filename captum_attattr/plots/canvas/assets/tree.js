// A click on a token, or an arrow key, lights up what it gathers from and who gathers from it.
const { edges, steps, nodes, labels, index: tokens } = meta.tree;
const all = edges.map((_, index) => index + 1); // the trace of the tokens is the first one
const usual = all.map((trace) => plot.data[trace].opacity ?? 1);
const name = (node) => `${plain(labels[node])} [${tokens[node]}]`;
let picked = null;

// All nodes that are reached from one over edges, upwards (to queries) or downwards (to keys).
const reached = (from, up) => {
  const nodesReached = new Set();
  const visit = (node) => {
    for (const [query, key] of edges) {
      const [here, next] = up ? [key, query] : [query, key];
      if (here !== node || nodesReached.has(next)) continue;
      nodesReached.add(next);
      visit(next);
    }
  };
  visit(from);
  nodesReached.delete(from);
  return nodesReached;
};
const listed = (some) => [...some].sort((a, b) => a - b).map(name).join(", ") || "none";

const choose = (node) => {
  picked = node === picked ? null : node;
  let [opacity, bright] = [usual, null];
  if (picked === null) {
    chosen.textContent = "";
  } else {
    const [above, below] = [reached(picked, true), reached(picked, false)];
    const upper = new Set([...above, picked]);
    const lower = new Set([...below, picked]);
    const on = ([query, key]) => (above.has(query) && upper.has(key)) || (lower.has(query) && below.has(key));
    opacity = edges.map((edge, index) => (on(edge) ? usual[index] : 0.07));
    bright = nodes.flatMap((each, index) => (upper.has(each) || below.has(each) ? [index] : []));
    chosen.textContent = `${name(picked)}: gathered by ${listed(above)}; gathers from ${listed(below)}`;
  }
  Plotly.restyle(plot, { opacity: [1, ...opacity], selectedpoints: [bright, ...all.map(() => null)] }, [0, ...all]);
};

takeKeys(plot);

// A token is its mark, or its label below.
const near = (event) => {
  const { left, top } = plot.getBoundingClientRect();
  const { xaxis, yaxis } = plot._fullLayout;
  const [x, y] = [event.clientX - left + plot.scrollLeft - xaxis._offset, event.clientY - top - yaxis._offset];
  if (y > yaxis._length) {
    const below = event.clientY - top < plot.offsetHeight; // further down are plotly's buttons
    return below ? nodes.find((node) => Math.abs(xaxis.p2l(x) - node) < 0.5) : undefined;
  }
  const { x: columns, y: rows } = plot.data[0];
  let [best, least] = [undefined, 16];
  nodes.forEach((node, index) => {
    const off = Math.hypot(xaxis.l2p(columns[index]) - x, yaxis.l2p(rows[index]) - y);
    if (off < least) [best, least] = [node, off];
  });
  return best;
};
let pressed = null; // a drag is no click
plot.addEventListener("pointerdown", (event) => { pressed = [event.clientX, event.clientY]; }, true);
addEventListener("pointerup", (event) => {
  if (!pressed || Math.hypot(event.clientX - pressed[0], event.clientY - pressed[1]) > 4) return;
  pressed = null;
  const node = near(event);
  if (node === undefined) return;
  plot.focus({ preventScroll: true }); // plotly keeps a click from it, and the arrow keys would not arrive
  choose(node);
}, true);

addEventListener("keydown", ({ key }) => {
  if (key === "Escape" && picked !== null) choose(picked);
});
plot.addEventListener("keydown", (event) => {
  const [first, last] = plot._fullLayout.xaxis.range;
  const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key] * (first > last ? -1 : 1) || undefined;
  const up = { ArrowUp: true, ArrowDown: false }[event.key];
  if (move === undefined && up === undefined) return;
  event.preventDefault();
  let next;
  if (picked === null) {
    next = move === -1 ? nodes.at(-1) : nodes[0];
  } else if (move) {
    next = nodes[nodes.indexOf(picked) + move];
  } else {
    // The last edge of the tree is the nearest one upwards, the first one the nearest downwards.
    const ends = steps.filter((edge) => edge[up ? 1 : 0] === picked).map((edge) => edge[up ? 0 : 1]);
    next = up ? ends.at(-1) : ends[0];
  }
  if (next !== undefined && next !== picked) choose(next);
});
