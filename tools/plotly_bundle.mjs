// Makes captum_attattr/plots/canvas/assets/plotly.min.js.gz: plotly.js with the traces that the figures use (scatter,
// bar, heatmap), and the licences of every package inside. In an empty folder:
//
//   npm install --ignore-scripts plotly.js@4.1.1 esbuild@0.28.2
//   node REPOSITORY/tools/plotly_bundle.mjs REPOSITORY/captum_attattr/plots/canvas/assets/plotly.min.js.gz
//
// The version is that of the plotly.js inside the Python package plotly of constraints.txt.
import { readFileSync, readdirSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { gzipSync } from "node:zlib";

const require = createRequire(`${process.cwd()}/`);
const { buildSync } = require("esbuild");
const source = `
const Plotly = require("plotly.js/lib/core");
Plotly.register([require("plotly.js/lib/bar"), require("plotly.js/lib/heatmap")]);
module.exports = Plotly;
`;
const { outputFiles, metafile } = buildSync({
  stdin: { contents: source, resolveDir: process.cwd() },
  bundle: true,
  minify: true,
  charset: "utf8",
  format: "iife",
  globalName: "Plotly",
  define: { global: "window", "define.amd": "false" },
  target: "es2020",
  legalComments: "none", // the whole licences are below
  loader: { ".css": "empty" }, // of maps, which need the network
  metafile: true,
  write: false,
});
const folder = (path) => path.match(/^node_modules\/(?:@[^/]+\/)?[^/]+/)?.[0];
const packages = [...new Set(Object.keys(metafile.inputs).map(folder))].filter(Boolean).sort();
const licences = packages.map((path) => {
  const { name, version, license } = JSON.parse(readFileSync(`${path}/package.json`));
  const file = readdirSync(path).find((each) => /^licen[cs]e/i.test(each));
  const text = file ? readFileSync(`${path}/${file}`, "utf8").trim() : "";
  if (!text && !license) throw new Error(`${name} has no licence`);
  return `${name} ${version}, ${license ?? "licence below"}\n${text}`.replaceAll("*/", "* /");
});
const start = "plotly.js with the traces scatter, bar and heatmap, built by tools/plotly_bundle.mjs. Licences:";
const [{ text }] = outputFiles;
const whole = `/*\n${[start, ...licences].join("\n\n")}\n*/\n${text.replaceAll("</script", "<\\/script")}`;
writeFileSync(process.argv[2], gzipSync(whole, { level: 9 }));
console.log(`${packages.length} packages, ${(whole.length / 1e6).toFixed(2)} MB`);
