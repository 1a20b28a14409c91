// The flow needs the scores of the maps; they are packed here for it, so that the file has them once.
scripts.prepare = (contents) => {
  const maps = contents.find(({ layout }) => layout.meta?.attention);
  const flow = contents.find(({ layout }) => layout.meta?.flow)?.layout.meta.flow;
  if (!maps || !flow) return;
  const [layers, heads, size] = flow.shape;
  const cells = size * size;
  const scores = new Float32Array(layers * heads * cells); // layer by layer, head by head, row by row
  maps.layout.meta.differences.forEach(([, attribution], map) => {
    maps.data[attribution].z.forEach((row, query) => scores.set(row, map * cells + query * size));
  });

  // Sums over heads that are not 0, by falling |score| and then by index.
  const sums = new Float32Array(layers * cells);
  unpacked(flow.sums).forEach((row, at) => sums.set(row, at * size));
  const indices = Uint32Array.from(sums.keys()).filter((at) => sums[at] !== 0);
  indices.sort((a, b) => Math.abs(sums[b]) - Math.abs(sums[a]) || a - b);

  // Scores of single heads as `flow_edges.py` packs them: 11 bits of the logarithm and one of the sign. A score that
  // is not 0 has at least the level 1, however small it is.
  const { scale, step, levels } = flow.heads;
  const [high, low] = [new Uint8Array(scores.length), new Uint8Array(Math.ceil(scores.length / 2))];
  scores.forEach((score, at) => {
    const level = Math.round(levels + Math.log(Math.abs(score) / scale) / step);
    const code = (score ? Math.max(1, Math.min(levels, level)) : 0) | (score < 0 ? 2048 : 0);
    high[at] = code >> 4;
    low[at >> 1] |= (code & 15) << (4 * (at % 2));
  });
  Object.assign(flow, { indices, score: Float32Array.from(indices, (i) => sums[i]) });
  Object.assign(flow.heads, { high, low });
};
