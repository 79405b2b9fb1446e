// Action tokenizers: bits against px lost, and the vocabulary as moves.

function tokenizers() {
  const rows = DATA.tokenizers;
  if (!rows.length) { byId("tokenizers").remove(); return; }
  for (const data of new Set(rows.map((row) => row.data))) {
    const of = rows.filter((row) => row.data === data), names = [...new Set(rows.map((row) => row.tokenizer))];
    const bits = of.map((row) => row.bits_per_chunk);
    const figure = chart({
      title: data ? `Loss on ${data} demonstrations` : "Loss", note: "what a coordinate loses on the way to tokens and back",
      x: { label: "bits a chunk", low: 0.8 * Math.min(...bits), high: 1.25 * Math.max(...bits), log: true, ticks: [4, 8, 16, 32, 64, 128].filter((each) => each >= 0.8 * Math.min(...bits) && each <= 1.25 * Math.max(...bits)) },
      y: { label: "px", low: 0, high: 1.15 * Math.max(...of.map((row) => row.l1_px)) },
      series: of.map((row) => ({ name: row.tokenizer, color: color(names.indexOf(row.tokenizer)), dots: true, points: [[row.bits_per_chunk, row.l1_px, `${row.tokenizer}: ${short(row.l1_px)} px, ${short(row.bits_per_chunk)} bits`]] })),
      head: ["tokenizer", "bits a chunk", "px lost", "usage", "perplexity"], rows: () => of.map((row) => [row.tokenizer, row.bits_per_chunk, row.l1_px, row.usage, row.perplexity]),
    });
    charted().append(figure);
  }
  for (const row of rows.filter((each) => each.vocabulary)) byId("tokens").append(vocabulary(row));
}

function charted() {
  const place = byId("tokens");
  if (!place.querySelector(".charts")) place.prepend(el("div", { class: "charts" }));
  return place.querySelector(".charts");
}

/** A part of the page that is filled when it is opened. */
function vocabulary(row) {
  const fold = el("details", {}, el("summary", {}, `${row.title}: ${row.vocabulary.n_moves.toLocaleString("en-US")} moves occur`));
  fold.addEventListener("toggle", () => {
    if (!fold.open || fold.children.length > 1) return;
    const { vocabulary: found } = row, total = row.n_chunks ?? sum(found.counts), said = el("p", { class: "said", "aria-live": "polite" }, "Point at a move for its tokens and use.");
    const scale = reach(found.moves, found.relative);
    const moves = found.moves.map((move, at) => {
      const text = `tokens ${move.indices.join("·")}: ${(found.counts[at] ?? 0).toLocaleString("en-US")} of ${total.toLocaleString("en-US")} chunks (${((100 * (found.counts[at] ?? 0)) / total).toFixed(1)} %)`;
      const tell = () => { said.textContent = text; };
      return el("button", { type: "button", "aria-label": text, pointerenter: tell, focus: tell }, drawMove(move, scale), move.indices.join("·").slice(0, 11));
    });
    fold.append(el("p", { class: "note" }, `The ${moves.length} most used moves, ${found.relative ? "from the agent (black)" : "in the arena"}, coloured by the first token. A picture is ${Math.round(2 * scale.reach)} px wide.`),
      said, el("div", { class: "moves" }, moves), useChart(row, total), reconstruction(row));
  });
  return fold;
}

function reach(moves, relative) {
  const points = moves.flatMap((move) => move.path);
  const middle = (axis) => (relative ? 0 : (Math.min(...points.map((p) => p[axis])) + Math.max(...points.map((p) => p[axis]))) / 2);
  const centre = [middle(0), middle(1)];
  const far = points.map(([x, y]) => Math.max(Math.abs(x - centre[0]), Math.abs(y - centre[1]))).sort((a, b) => a - b);
  return { centre, relative, reach: Math.max(1, far[Math.floor(0.97 * (far.length - 1))]) * 1.1 };
}

function drawMove(move, { centre, reach: far, relative }) {
  const [x, y] = move.path.at(-1), at = ([u, v]) => `${(u - centre[0]).toFixed(1)},${(v - centre[1]).toFixed(1)}`;
  const points = [...(relative ? ["0,0"] : []), ...move.path.map(at)].join(" "), stroke = color(move.indices[0]);
  return el("svg:svg", { viewBox: `${-far} ${-far} ${2 * far} ${2 * far}`, "aria-hidden": "true" },
    el("svg:polyline", { points, style: `fill:none;stroke:${stroke}`, "stroke-width": far / 22 }),
    el("svg:circle", { cx: x - centre[0], cy: y - centre[1], r: far / 11, style: `fill:${stroke}` }),
    relative ? el("svg:circle", { r: far / 16, style: "fill:var(--ink)" }) : null);
}

function useChart(row, total) {
  const counts = row.vocabulary.counts;
  return el("div", { class: "charts" }, chart({
    title: "How often each move is used", x: { label: "move, the most used first", low: 0, high: counts.length }, y: { label: "share of the chunks", low: 0, high: (1.1 * counts[0]) / total },
    series: [{ name: "use", color: "var(--c0)", points: counts.map((count, at) => [at + 1, count / total, `move ${at + 1}: ${count} chunks`]), band: counts.map((count, at) => [at + 1, 0, count / total]) }],
    head: ["move", "tokens", "chunks"], rows: () => counts.map((count, at) => [String(at + 1), row.vocabulary.moves[at]?.indices.join("·") ?? "", count]),
  }), []);
}

/** A held-out episode as it was and as its tokens decode. */
function reconstruction(row) {
  const { demonstration: shown } = row.vocabulary, size = shown.path.length / shown.indices.length;
  const line = (points, style) => el("svg:polyline", { points: points.map((p) => p.map((v) => v.toFixed(1)).join(",")).join(" "), style, "stroke-width": 3 });
  const chunks = shown.indices.map((tokens, at) => line(shown.decoded.slice(at * size, (at + 1) * size), `fill:none;stroke:${color(tokens[0])}`));
  return el("figure", { style: "max-width:24rem" }, el("figcaption", {}, el("h3", {}, `Held-out episode ${shown.episode}`), `in ${shown.indices.length} chunks; grey: as it was, coloured: decoded from its tokens`),
    el("svg:svg", { viewBox: `0 0 ${WORLD} ${WORLD}`, role: "img", "aria-label": `episode ${shown.episode} and its reconstruction` }, shape("goal", DATA.goal), line(shown.path, "fill:none;stroke:var(--soft)"), chunks),
    el("div", { class: "tools" }, numbers("Reconstruction", ["action", "x", "y", "decoded x", "decoded y"], () => shown.path.map((point, at) => [String(at), ...point, ...shown.decoded[at]]))));
}
