// The charts: how verdicts came about, coverage over time, where failures begin, speed, and earlier runs.

const asked = () => DATA.policies.filter((policy) => policy.run && policy.episodes.seed.length);

function evidenceCharts() {
  for (const policy of asked()) for (const each of policy.evidence) {
    const points = (values) => values.map((value, at) => [each.n[at], value]);
    const all = [...each.fail, ...each.pass, each.fail_at, each.pass_at];
    const levels = each.fail_at === each.pass_at ? [{ y: each.fail_at, label: "decides" }]
      : [{ y: each.pass_at, label: "PASS decides" }, { y: each.fail_at, label: "FAIL decides", left: true }];
    byId("evidence").append(chart({
      title: `${policy.name}: evidence against its ${each.gate}`,
      x: { label: "episodes", low: 0, high: each.n.at(-1) }, y: { label: "log evidence", low: Math.max(-20, Math.min(0, ...all)), high: 1.08 * Math.max(...all) },
      series: [
        { name: "for PASS", color: "var(--good)", points: points(each.pass).filter((p) => p[1] >= -20) },
        { name: "for FAIL", color: "var(--bad)", points: points(each.fail).filter((p) => p[1] >= -20), dashed: true },
      ],
      levels, head: ["episodes", "for PASS", "for FAIL"], rows: () => each.n.map((n, at) => [n, each.pass[at], each.fail[at]]),
    }));
  }
}

function progressCharts() {
  const policies = asked(), most = Math.max(1, ...policies.map((policy) => policy.episodes.seed.length));
  if (!policies.length) return;
  byId("progress").append(chart({
    title: "Success rate against episodes", note: "with 95 % confidence sequences", height: 260,
    x: { label: "episodes", low: 0, high: most }, y: { low: 0, high: 1, ticks: [0, 0.25, 0.5, 0.75, 1] },
    series: policies.map((policy) => {
      const { n, rate, low, high } = policy.rates;
      return { name: policy.name, color: policy.color, points: n.map((x, at) => [x, rate[at]]), band: n.map((x, at) => [x, low[at], high[at]]) };
    }),
    head: ["policy", "episodes", "rate", "low", "high"],
    rows: () => policies.flatMap((policy) => policy.rates.n.map((n, at) => [policy.name, n, policy.rates.rate[at], policy.rates.low[at], policy.rates.high[at]])),
  }));
  const drawn = policies.map((policy) => ({ policy, points: coverageOverTime(policy) })).filter(({ points }) => points.length);
  if (!drawn.length) return;
  byId("progress").append(chart({
    title: "Coverage over time", note: "mean over the episodes; what has ended keeps its last", height: 260,
    x: { label: "step", low: 0, high: Math.max(...drawn.map(({ points }) => points.at(-1)[0])) }, y: { low: 0, high: 1, ticks: [0, 0.25, 0.5, 0.75, 1] },
    series: drawn.map(({ policy, points }) => ({ name: policy.name, color: policy.color, points })),
    levels: [{ y: DATA.solved, label: "solved" }],
    head: ["policy", "step", "mean coverage"], rows: () => drawn.flatMap(({ policy, points }) => points.map(([step, value]) => [policy.name, step, value])),
  }));
}

function coverageOverTime(policy) {
  const tracks = [...policy.tracks.values()].filter(hasPoses);
  if (!tracks.length) return [];
  const steps = Math.max(...tracks.map((track) => track.n)), points = [];
  for (let step = 0; step < steps; step += step < 100 ? 2 : 5)
    points.push([step, sum(tracks.map((track) => track.coverage[Math.min(step, track.n - 1)])) / tracks.length]);
  return points;
}

/** Where blocks begin: one map a policy, failures filled, solved ones small and pale. */
function startMaps() {
  const place = byId("starts"), maps = [];
  for (const policy of asked()) {
    const found = policy.episodes.seed.map((seed) => [episode(policy, seed), policy.tracks.get(seed)]).filter(([, track]) => hasPoses(track));
    const failed = found.filter(([each]) => !each.success);
    if (!failed.length || policy.is_context) continue;
    const dot = ([each, track], name) => el("svg:circle", { cx: track.block_x[0].toFixed(1), cy: track.block_y[0].toFixed(1), r: each.success ? 4 : 9, style: `fill:var(--${each.success ? "line" : name})` });
    const linked = failed.map((one) => el("svg:a", { href: address([policy.key], one[0].seed), "aria-label": `seed ${one[0].seed}, ${one[0].ending}` }, dot(one, isNear(one[0]) ? "open" : "bad")));
    const svg = el("svg:svg", { viewBox: `0 0 ${WORLD} ${WORLD}`, role: "group", "aria-label": `${policy.name}: where the blocks of failed episodes begin` },
      shape("goal", DATA.goal), found.filter(([each]) => each.success).map((one) => dot(one)), linked);
    maps.push(el("figure", {}, el("figcaption", {}, el("h3", {}, policy.name), `${failed.length} of ${found.length} recorded episodes failed`), svg,
      el("div", { class: "tools" }, numbers(`${policy.name}: starts of failures`, ["seed", "block x", "block y", "angle", "ended"],
        () => failed.map(([each, track]) => [String(each.seed), track.block_x[0], track.block_y[0], track.block_angle[0], each.ending])),
      el("button", { type: "button", click: () => save(`starts-${policy.policy}.svg`, svgFile(svg)) }, "save picture"))));
  }
  if (maps.length) place.append(el("h3", {}, "Where the blocks of failed episodes begin"), el("div", { class: "maps" }, maps));
}

/** Seeds whose outcome flipped, each a link that opens both runs in step. */
function flips() {
  if (!byId("flips")) return;
  for (const change of DATA.changes) for (const kind of ["lost", "won"]) {
    if (!change[kind].length) continue;
    const now = DATA.policies.find((p) => p.run && p.policy === change.id), before = DATA.policies.find((p) => !p.run && p.policy === change.id);
    const links = change[kind].slice(0, 60).map((seed) => [" ", el("a", { href: address([now.key, before.key], seed) }, String(seed))]);
    byId("flips").append(el("p", {}, el("b", {}, `${change.id}, ${kind}:`), links, change[kind].length > 60 ? ` and ${change[kind].length - 60} more` : null));
  }
}

function speedCharts() {
  const place = byId("speed-charts"), rows = DATA.latency.filter((row) => row.batch === 1);
  if (!rows.length) { byId("speed").remove(); return; }
  const what = [...new Set(rows.map((row) => row.what))], names = [...new Set(rows.map((row) => row.label))];
  const times = rows.flatMap((row) => distribution(row).map(([, ms]) => ms)), low = 0.8 * Math.min(...times), high = 1.3 * Math.max(DATA.period, ...times);
  const format = (value) => `${short(value)}`;
  place.append(chart({
    title: "What a robot waits for", note: "dot: the median; thick: half of the calls; thin: eight of ten; hairline: from the fastest to the slowest",
    height: 50 + 62 * names.length, width: wide(place), x: { label: "ms", low, high, log: true, format },
    y: { low: -0.6, high: names.length - 0.4, ticks: names.map((_, at) => at), format: () => "" },
    series: what.map((each, number) => {
      const of = rows.filter((row) => row.what === each), y = (row) => names.length - 1 - names.indexOf(row.label) + 0.14 - 0.16 * number;
      return {
        name: each, color: color(number), dots: true, radius: 2.8,
        points: of.map((row) => [row.p50_ms, y(row), `${row.label}, ${each}: ${short(row.p50_ms)} ms`]),
        spans: of.flatMap((row) => [[0, 1, 1], [0.1, 0.9, 4], [0.25, 0.75, 9]].flatMap(([from, to, width]) => {
          const at = new Map(distribution(row));
          return at.has(from) && at.has(to) ? [[at.get(from), y(row), at.get(to), width]] : [];
        })),
      };
    }),
    levels: [{ x: DATA.period, label: "control period" }],
    head: ["policy", "call", "calls", ...SHARES.map((share) => (share === 0 ? "fastest" : share === 1 ? "slowest" : `p${Math.round(100 * share)}`))],
    rows: () => rows.map((row) => { const at = new Map(distribution(row)); return [row.label, row.what, row.n, ...SHARES.map((share) => at.get(share))]; }),
  }));
  const svg = place.lastChild.querySelector("svg"), up = scaleOf({ low: -0.6, high: names.length - 0.4 }, 50 + 62 * names.length - BOTTOM, TOP);
  names.forEach((name, at) => svg.append(el("svg:text", { x: LEFT + 2, y: up(names.length - 1 - at + 0.32), "text-anchor": "start", style: "fill:var(--ink)" }, name)));
  tradeOff(place);
}

const SHARES = [0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1];

/** Shares of a row's calls and their ms; older reports know three at most. */
const distribution = (row) => row.quantiles_ms ?? [[0.5, row.p50_ms], [0.9, row.p90_ms], [0.99, row.p99_ms]].filter(([, ms]) => ms !== null);

function tradeOff(place) {
  const points = asked().flatMap((policy) => {
    const row = DATA.latency.find((each) => each.policy === policy.policy && each.batch === 1 && each.what === "control step") ?? DATA.latency.find((each) => each.policy === policy.policy && each.batch === 1);
    return row ? [{ policy, ms: row.p50_ms, what: row.what }] : [];
  });
  if (points.length < 2) return;
  const times = points.map((each) => each.ms);
  const figure = chart({
    title: "Speed against success", note: "one dot a policy, with the 95 % interval of its success rate", width: wide(place),
    x: { label: "ms a control step", low: 0.6 * Math.min(...times), high: 1.8 * Math.max(...times), log: true },
    y: { label: "success rate", low: Math.max(0, Math.min(...points.map(({ policy }) => policy.rate.low)) - 0.05), high: 1.02 },
    series: points.map(({ policy, ms }) => ({ name: policy.name, color: policy.color, dots: true, whiskers: [[ms, policy.rate.low, policy.rate.high]], points: [[ms, policy.rate.estimate, `${policy.name}: ${short(ms)} ms, ${policy.rate.estimate.toFixed(3)}`]] })),
    head: ["policy", "ms", "timed", "success rate", "low", "high"], rows: () => points.map(({ policy, ms, what }) => [policy.name, ms, what, policy.rate.estimate, policy.rate.low, policy.rate.high]),
  });
  place.append(figure);
}

function historyCharts() {
  const place = byId("history-charts");
  if (!place || !DATA.history.length) return;
  const runs = Math.max(...DATA.history.flatMap((each) => each.runs.map((run) => run.run)));
  const drawing = (title, field, axis) => chart({
    title, x: { label: "run", low: 0.5, high: runs + 0.5, ticks: evenly(1, runs).filter(Number.isInteger), format: String }, y: axis,
    series: DATA.history.flatMap((each, at) => {
      const there = each.runs.filter((run) => run[field] !== null), text = (run) => `${each.name}, ${run.when} ${run.commit}: ${short(run[field])}${run.changed ? `, now ${run.gates.filter(Boolean).join(", ")}` : ""}`;
      return [{ name: each.name, color: color(at), points: there.map((run) => [run.run, run[field]]) },
        { name: each.name, quiet: true, color: color(at), dots: true, points: there.map((run) => [run.run, run[field], text(run), run.changed]) }];
    }),
    head: ["policy", "run", "when", "commit", title, "target", "baseline"],
    rows: () => DATA.history.flatMap((each) => each.runs.map((run) => [each.name, run.run, run.when, run.commit, run[field], ...run.gates])),
  });
  place.append(drawing("Success rate", "rate", { low: 0, high: 1, ticks: [0, 0.25, 0.5, 0.75, 1] }));
  const times = DATA.history.flatMap((each) => each.runs.map((run) => run.latency_ms)).filter((ms) => ms !== null);
  if (times.length) place.append(drawing("New chunk, ms", "latency_ms", { low: 0.7 * Math.min(...times), high: 1.4 * Math.max(...times), log: true }));
}

function trainingCharts() {
  const place = byId("training-charts");
  if (!place) return;
  const most = Math.max(1, ...DATA.curves.flatMap((each) => [...each.success, ...each.loss].map(([step]) => step)));
  const drawing = (title, note, field, axis, value) => chart({
    title, note, x: { label: "step", low: 0, high: most }, y: axis, height: 280, width: wide(place),
    series: DATA.curves.flatMap((each, at) => {
      const points = each[field].map(([step, y]) => [step, value(each, y), `${each.name}, step ${short(step)}: ${short(y)}`]).filter((point) => point[1] !== null);
      const whiskers = field === "success" ? each.intervals : [];
      const line = { name: each.name, color: color(at), whiskers, dashed: each.is_shipped && DATA.curves.some((other) => !other.is_shipped), points };
      return points.length > 40 ? [line] : [line, { ...line, whiskers: [], quiet: true, dots: true, radius: 2.8 }]; // one point is no line
    }),
    head: ["run", "step", title], rows: () => DATA.curves.flatMap((each) => each[field].map(([step, y]) => [each.name, step, y])),
  });
  place.append(drawing("Success rate", null, "success", { low: 0, high: 1, ticks: [0, 0.25, 0.5, 0.75, 1] }, (_, y) => y));
  const share = (each, y) => (each.first > 0 && y > 0 ? y / each.first : null);
  const shares = DATA.curves.flatMap((each) => each.loss.map(([, y]) => share(each, y))).filter((y) => y !== null);
  if (shares.length) place.append(drawing("Loss", "divided by the run's own after 100 steps", "loss", { low: Math.min(0.5, ...shares), high: Math.max(1, ...shares), log: true }, share));
}
