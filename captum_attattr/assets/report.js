// The flow's arrays are those of the maps in another order; they are made here, so that the file has them once.
scripts.prepare = (contents) => {
  const maps = contents.find(({ layout }) => layout.meta?.attention);
  const flow = contents.find(({ layout }) => layout.meta?.flow)?.layout.meta.flow;
  if (!maps || !flow) return;
  const [layers, heads, size] = flow.shape;
  const scores = maps.layout.meta.differences.map(([, attribution]) => maps.data[attribution].z.flatMap((row) => [...row]));

  // Sums over heads that are not 0, by falling |score| and then by position.
  const cells = size * size;
  const sums = new Float32Array(layers * cells);
  scores.forEach((map, i) => {
    const start = Math.floor(i / heads) * cells;
    for (let cell = 0; cell < cells; cell++) sums[start + cell] += map[cell];
  });
  const place = Uint32Array.from(sums.keys()).filter((at) => sums[at] !== 0);
  place.sort((a, b) => Math.abs(sums[b]) - Math.abs(sums[a]) || a - b);

  // Scores of single heads as `flow_plot.py` packs them: 11 bits of the logarithm and one of the sign.
  const { scale, step, levels } = flow.heads;
  const [high, low] = [new Uint8Array(scores.length * cells), new Uint8Array(Math.ceil((scores.length * cells) / 2))];
  let at = 0;
  for (const map of scores) {
    for (const score of map) {
      const level = Math.max(0, Math.min(levels, Math.round(levels + Math.log(Math.abs(score) / scale) / step)));
      const code = level | (score < 0 ? 2048 : 0);
      high[at] = code >> 4;
      low[at >> 1] |= (code & 15) << (4 * (at % 2));
      at++;
    }
  }
  Object.assign(flow, { place, score: Float32Array.from(place, (i) => sums[i]) });
  Object.assign(flow.heads, { high, low });
};
