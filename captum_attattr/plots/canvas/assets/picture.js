// What pages with pictures share: arrows between the words of a picture, patches among them.
const arrowsOf = (root) => {
  const svg = root.querySelector(".arrows");
  const svgNode = (name, attributes) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    svg.append(node);
  };
  const middle = (word) => {
    const own = root.querySelector(`[data-word="${word}"]`).getBoundingClientRect();
    const whole = svg.getBoundingClientRect();
    return [own.x + own.width / 2 - whole.x, own.y + own.height / 2 - whole.y];
  };
  const arrow = (key, query, score, largest) => {
    const [[x0, y0], [x1, y1]] = [middle(key), middle(query)];
    const length = Math.hypot(x1 - x0, y1 - y0) || 1;
    const [ux, uy] = [(x1 - x0) / length, (y1 - y0) / length];
    const wide = 1.2 + 3.6 * Math.min(Math.abs(score) / largest, 1);
    const head = Math.min(4 + 2 * wide, length / 2);
    const bend = Math.min(30, length * 0.16); // so that there and back are two lines
    const [mx, my] = [(x0 + x1) / 2 - uy * bend, (y0 + y1) / 2 + ux * bend];
    const out = Math.hypot(x1 - mx, y1 - my) || 1;
    const [vx, vy] = [(x1 - mx) / out, (y1 - my) / out];
    const [bx, by] = [x1 - vx * head, y1 - vy * head];
    const kind = score < 0 ? "against" : "for";
    const d = `M${x0} ${y0}Q${mx} ${my} ${bx} ${by}`;
    svgNode("path", { d, class: "edge", "stroke-width": wide + 2 });
    svgNode("path", { d, class: kind, "stroke-width": wide });
    const half = head * 0.55;
    svgNode("path", { d: `M${x1} ${y1}L${bx - vy * half} ${by + vx * half}L${bx + vy * half} ${by - vx * half}Z`, class: `head ${kind}` });
  };
  // `links` are [key, query, score]; the widest arrow is of `largest`.
  return (links, largest) => {
    svg.replaceChildren();
    for (const [key, query, score] of links.toReversed()) arrow(key, query, score, largest || 1);
  };
};
// The links of a word, as [key, query, score], the strongest first.
const linksOf = ([read, gave], word) => {
  const both = [...read.map(([other, score]) => [other, word, score]), ...gave.map(([other, score]) => [word, other, score])];
  return both.sort((a, b) => Math.abs(b[2]) - Math.abs(a[2]));
};
// The patch that an arrow key leads to from the one that has the focus, if there is one.
const patchBeside = (patches, columns, event) => {
  const i = patches.indexOf(event.target);
  const column = i % columns;
  const step = { ArrowRight: column < columns - 1 ? 1 : 0, ArrowLeft: column ? -1 : 0, ArrowDown: columns, ArrowUp: -columns }[event.key];
  if (i < 0 || step === undefined) return null;
  event.preventDefault();
  return step ? patches[i + step] : null;
};
// Of all patches one is reached with Tab.
const focusOn = (patches, patch, now = true) => {
  for (const each of patches) each.tabIndex = each === patch ? 0 : -1;
  if (now) patch.focus();
};
