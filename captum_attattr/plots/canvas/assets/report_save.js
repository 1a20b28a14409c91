// The picture of the links as a file: its lines and letters have the looks of the page, whose styles a file has not.
const LOOKS = ["fill", "stroke", "stroke-width", "stroke-opacity", "stroke-dasharray", "opacity", "font-family", "font-size", "font-weight", "text-anchor", "text-decoration-line"];
const copied = () => {
  const copy = svg.cloneNode(true);
  const parts = [...svg.querySelectorAll("*")];
  [...copy.querySelectorAll("*")].forEach((each, at) => {
    const style = getComputedStyle(parts[at]);
    each.setAttribute("style", LOOKS.map((name) => `${name}:${style.getPropertyValue(name)}`).join(";"));
    if (each.matches(".hit")) each.remove();
  });
  const [, , width, height] = copy.getAttribute("viewBox").split(" ");
  const ground = document.createElementNS("http://www.w3.org/2000/svg", "rect");
  set_(ground, { width, height, fill: getComputedStyle(document.body).backgroundColor });
  copy.prepend(ground);
  set_(copy, { xmlns: "http://www.w3.org/2000/svg" });
  make("title", copy).textContent = document.title;
  return { text: new XMLSerializer().serializeToString(copy), width, height };
};
const offer = (blob, name) => {
  const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
};
byId("svg").addEventListener("click", () => offer(new Blob([copied().text], { type: "image/svg+xml" }), "report.svg"));
byId("png").addEventListener("click", async () => {
  const { text, width, height } = copied();
  const image = Object.assign(new Image(), { src: `data:image/svg+xml;charset=utf-8,${encodeURIComponent(text)}` });
  await image.decode();
  const canvas = Object.assign(document.createElement("canvas"), { width: 2 * width, height: 2 * height });
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  canvas.toBlob((blob) => offer(blob, "report.png"));
});
