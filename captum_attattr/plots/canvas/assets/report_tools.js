// What the scripts of a report share.
const followers = []; // are called when the state has changed
const isPatch = (token) => /^patch \d+,\d+$/.test(token); // of a picture; needs no quotes
const byId = (id) => document.getElementById(id);
const set_ = (element, attributes) => {
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
};
const make = (name, parent, attributes = {}) => {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  set_(element, attributes);
  parent.append(element);
  return element;
};
const make_ = (name, parent, text = "") => {
  const element = document.createElement(name);
  element.textContent = text;
  parent.append(element);
  return element;
};
const bytes = (base64) => Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
const inflated = async (element) => {
  const stream = new Blob([bytes(element.textContent)]).stream().pipeThrough(new DecompressionStream("gzip"));
  element.remove();
  return new Uint8Array(await new Response(stream).arrayBuffer());
};
