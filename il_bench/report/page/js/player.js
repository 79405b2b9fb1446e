// An episode, or two policies on one seed in step: play, scrub, step, and what happened when.

const PERIOD = DATA.period / 1000;
const HEIGHT = 150;
const SPEEDS = [0.5, 1, 2, 4, 8];
const player = { dialog: byId("player"), keys: [], seed: null, step: 0, last: 0, playing: false, speed: 2, trails: true, stages: [] };

/** Open the player on an address's policies and seed. */
function openPlayer(keys, seed) {
  const found = keys.map((key) => POLICIES.get(key)).map((policy) => policy && episode(policy, seed));
  if (!found.length || found.some((each) => !each)) return false;
  Object.assign(player, { keys, seed, step: 0, playing: false });
  player.stages = found.map((each) => ({ each, track: each.policy.tracks.get(seed) }));
  player.last = Math.max(0, ...player.stages.map(({ track }) => (track ? track.n - 1 : 0)));
  if (!player.dialog.open) player.dialog.showModal();
  const shows = el("div", { class: "shows" }, el("div", { class: "stages" }, player.stages.map(stage)), ...(player.last ? [transport(), coverageChart()] : []));
  player.dialog.replaceChildren(head(), el("div", { class: "halves" }, shows, el("div", { class: "facts" }, player.stages.map(facts))));
  player.dialog.scrollTop = 0;
  byId("player-play")?.focus();
  draw();
  if (player.last && !matchMedia("(prefers-reduced-motion: reduce)").matches) play(true);
  return true;
}

function head() {
  const names = player.stages.map(({ each }) => each.policy.name).join(" and ");
  const others = [...POLICIES.values()].filter((policy) => policy.key !== player.keys[0] && policy.at.has(player.seed));
  const beside = el("select", { id: "player-beside", change: (event) => go([player.keys[0], ...(event.target.value ? [event.target.value] : [])], player.seed) },
    el("option", { value: "" }, "nothing"), others.map((policy) => el("option", { value: policy.key }, policy.name)));
  beside.value = player.keys[1] ?? "";
  return el("div", { class: "player-head" },
    el("h2", { id: "player-title" }, `${names}, seed ${player.seed}`),
    el("label", { for: "player-beside" }, "beside it ", beside),
    el("button", { type: "button", click: () => neighbour(-1) }, "previous"),
    el("button", { type: "button", click: () => neighbour(1) }, "next"),
    el("button", { class: "close", type: "button", click: () => player.dialog.close() }, "close"));
}

function stage(one) {
  const { each, track } = one;
  if (!hasPoses(track)) {
    const why = !canPlay ? "This browser cannot unpack recordings: it lacks DecompressionStream."
      : track ? "This environment tells no poses: only its rewards are recorded."
      : "No recording of this episode is in the report folder.";
    return el("div", { class: "stage" }, el("p", { class: "warning" }, each.policy.is_pusht && !each.policy.is_code ? `${why} The command shows it again.` : why));
  }
  one.canvas = el("canvas", { role: "img", "aria-label": `${each.policy.name}: the arena at the shown step` });
  one.readout = el("p", { class: "readout" });
  return el("div", { class: "stage" }, one.canvas, el("p", {}, el("b", {}, each.policy.name), ` ${shapeOf(each)} ${each.ending ?? ""}`), one.readout);
}

function facts({ each }) {
  const rows = {
    "how it ended": `${shapeOf(each)} ${each.ending ?? (each.success ? "success" : "failed")}`,
    steps: each.steps, "best coverage": short(each.best), "coverage at the end": short(each.final),
    "last reward": short(each.last), "actions outside": each.outside || null, [`against the ${DATA.changes.length ? "other run" : "baseline"}`]: each.flipped,
  };
  const command = `il-bench replay ${quoted(each.policy.spec)} --seed ${each.seed}`;
  return el("div", {}, el("h3", {}, each.policy.name),
    el("dl", {}, Object.entries(rows).filter(([, value]) => value !== null).map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, String(value))))),
    each.flipped && !DATA.changes.length ? el("p", { class: "note" }, `The baseline ${each.flipped === "lost" ? "solved" : "failed"} this seed. Of a baseline only outcomes are kept, no steps: what plays here is this run.`) : null,
    each.policy.is_pusht ? el("p", {}, "See it again: ", el("code", {}, command)) : null,
    each.policy.is_pusht && each.policy.is_code ? el("p", { class: "note" }, "No checkpoint has this policy's code: the command shows the recording. Give it the report's folder with --report.") : null);
}

const quoted = (text) => (/^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);

function transport() {
  const speed = el("select", { id: "player-speed", "aria-label": "speed", change: (event) => { player.speed = Number(event.target.value); } },
    SPEEDS.map((each) => el("option", { value: each }, `${each}×`)));
  speed.value = player.speed;
  return el("div", { class: "transport" },
    el("button", { id: "player-play", type: "button", click: () => play(!player.playing) }, "play"),
    el("button", { type: "button", "aria-label": "one step back", click: () => seek(Math.ceil(player.step) - 1) }, "−1"),
    el("button", { type: "button", "aria-label": "one step on", click: () => seek(Math.floor(player.step) + 1) }, "+1"),
    el("input", { id: "player-step", type: "range", min: 0, max: player.last, step: 1, "aria-label": "step", value: 0, input: (event) => seek(Number(event.target.value)) }),
    el("output", { id: "player-at", for: "player-step" }),
    speed,
    el("button", { type: "button", "aria-pressed": String(player.trails), click: (event) => { player.trails = !player.trails; event.target.setAttribute("aria-pressed", player.trails); draw(); } }, "path and action"),
    el("button", { type: "button", click: saveFrame }, "save picture"),
    el("small", {}, el("kbd", {}, "space"), " play ", el("kbd", {}, "←"), el("kbd", {}, "→"), " step ", el("kbd", {}, "p"), el("kbd", {}, "n"), " episode"));
}

function coverageChart() {
  player.width = Math.max(340, Math.min(player.dialog.clientWidth - 40, 820)) * (player.dialog.clientWidth > 900 ? 0.85 : 1);
  const isCoverage = player.stages.some(({ track }) => hasPoses(track)), name = isCoverage ? "coverage" : "reward";
  const series = player.stages.filter(({ track }) => track?.[name]).map(({ each, track }, at) => ({
    name: each.policy.name, color: at ? "var(--c1)" : "var(--c0)", points: [...track[name]].map((value, step) => [step, value]),
  }));
  const values = series.flatMap((each) => each.points.map((point) => point[1]));
  const figure = chart({
    title: isCoverage ? "Coverage over the steps" : "Reward over the steps", height: HEIGHT, width: player.width,
    x: { label: "step", low: 0, high: Math.max(1, player.last), format: (value) => String(Math.round(value)) },
    y: isCoverage ? { low: 0, high: 1, ticks: [0, 0.5, 1] } : { low: Math.min(0, ...values), high: Math.max(1, ...values) },
    series, levels: isCoverage ? [{ y: DATA.solved, label: `solved above ${DATA.solved}` }] : [],
    head: ["step", ...series.map((each) => each.name)],
    rows: () => Array.from({ length: player.last + 1 }, (_, step) => [step, ...series.map((each) => each.points[step]?.[1] ?? null)]),
  });
  const svg = figure.querySelector("svg");
  player.head = svg.appendChild(el("svg:line", { class: "axis", y1: TOP, y2: HEIGHT - BOTTOM, style: "stroke:var(--ink)" }));
  svg.addEventListener("click", (event) => {
    const box = svg.getBoundingClientRect(), x = ((event.clientX - box.left) / box.width) * player.width;
    seek(Math.round(((x - LEFT) / (player.width - RIGHT - LEFT)) * player.last));
  });
  return figure;
}

function draw() {
  const at = Math.floor(player.step);
  for (const { canvas, track, readout } of player.stages) {
    if (!canvas) continue;
    drawStep(canvas, track, Math.min(player.step, track.n - 1), player.trails);
    const row = Math.min(at, track.n - 1), place = (x, y) => `${track[x][row].toFixed(1)}, ${track[y][row].toFixed(1)}`;
    const gap = Math.hypot(track.action_x[row] - track.agent_x[Math.min(row + 1, track.n - 1)], track.action_y[row] - track.agent_y[Math.min(row + 1, track.n - 1)]);
    readout.textContent = `coverage ${track.coverage[row].toFixed(3)} · agent ${place("agent_x", "agent_y")} · block ${place("block_x", "block_y")} · `
      + (row < track.n - 1 ? `action ${place("action_x", "action_y")}, the agent ended ${gap.toFixed(1)} px from it` : "the end");
    canvas.dataset.row = row;
  }
  if (!player.last) return;
  byId("player-step").value = at;
  byId("player-at").textContent = `step ${at} of ${player.last}`;
  byId("player-play").textContent = player.playing ? "pause" : "play";
  const x = LEFT + (player.step / player.last) * (player.width - RIGHT - LEFT);
  player.head.setAttribute("x1", x);
  player.head.setAttribute("x2", x);
}

function seek(step) {
  player.playing = false;
  player.step = Math.max(0, Math.min(step, player.last));
  draw();
}

function play(on) {
  player.playing = on && player.last > 0;
  if (player.playing && player.step >= player.last) player.step = 0;
  player.since = performance.now();
  if (player.playing) requestAnimationFrame(frame);
  draw();
}

function frame(now) {
  if (!player.playing || !player.dialog.open) return;
  player.step = Math.min(player.last, player.step + (player.speed * Math.max(0, now - player.since)) / 1000 / PERIOD);
  player.since = now;
  if (player.step >= player.last) player.playing = false;
  draw();
  if (player.playing) requestAnimationFrame(frame);
}

function saveFrame() {
  for (const { canvas, each } of player.stages)
    canvas?.toBlob((blob) => save(`${each.policy.policy}-${each.seed}-step-${Math.floor(player.step)}.png`, blob));
}

/** Go to the next or previous episode of what the grid shows. */
function neighbour(by) {
  const at = shown.findIndex((each) => each.policy.key === player.keys[0] && each.seed === player.seed);
  const next = shown[(at + by + shown.length) % shown.length];
  if (next) go([next.policy.key, ...player.keys.slice(1).filter((key) => key !== next.policy.key && POLICIES.get(key).at.has(next.seed))], next.seed);
}

function go(keys, seed) {
  history.replaceState(null, "", address(keys, seed));
  openPlayer(keys, seed);
}

function startPlayer() {
  player.dialog.addEventListener("close", () => {
    player.playing = false;
    history.replaceState(null, "", location.pathname + location.search);
  });
  player.dialog.addEventListener("keydown", (event) => {
    if (event.target.matches("select, summary") || event.ctrlKey || event.metaKey || event.altKey) return;
    const isButton = event.target.matches("button");
    const actions = { " ": isButton && event.target.id !== "player-play" ? null : () => play(!player.playing), ArrowLeft: () => seek(Math.ceil(player.step) - 1), ArrowRight: () => seek(Math.floor(player.step) + 1), Home: () => seek(0), End: () => seek(player.last), n: () => neighbour(1), p: () => neighbour(-1) };
    const act = actions[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  });
  addEventListener("resize", () => player.dialog.open && draw());
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => player.dialog.open && draw());
}
