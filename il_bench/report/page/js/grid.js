// All episodes as small pictures: filtered, sorted, drawn in portions.

const PORTION = 120;
const WHICH = {
  all: ["all", () => true],
  failed: ["failed", (each) => !each.success],
  solved: ["solved", (each) => each.success],
  flipped: ["flipped against the baseline or the other run", (each) => each.flipped !== null],
  lost: ["flipped: lost", (each) => each.flipped === "lost"],
  near: ["near misses (coverage above 0.9)", isNear],
  slow: ["slowest tenth of the solved", (each, slow) => each.success && each.steps >= slow.get(each.policy)],
  outside: ["actions outside the arena", (each) => each.outside > 0],
  recorded: ["recorded", (each) => each.policy.tracks.has(each.seed)],
};
DATA.endings.filter((ending) => ending.name !== "success").forEach((ending) => {
  if (DATA.policies.some((policy) => policy.episodes.ending.includes(DATA.endings.indexOf(ending))))
    WHICH[ending.name] = [`ended: ${ending.name}`, (each) => each.ending === ending.name];
});
const ORDERS = {
  seed: ["seed", (each) => each.seed],
  slow: ["slowest first", (each) => -each.steps],
  fast: ["fastest first", (each) => each.steps],
  best: ["best coverage, lowest first", (each) => each.best ?? each.reward],
  worst: ["best coverage, highest first", (each) => -(each.best ?? each.reward)],
  final: ["final coverage, lowest first", (each) => each.final ?? 2],
};
const ONLY_CONTEXT = DATA.policies.every((policy) => policy.is_context);
const chosen = { policy: "", which: "failed", order: "seed" };
let shown = []; // what the filters leave, in order: the player's next and previous

function select(label, name, choices) {
  const options = Object.entries(choices).map(([value, [text]]) => el("option", { value }, text));
  const box = el("select", { id: `filter-${name}`, name, change: (event) => { chosen[name] = event.target.value; fillGrid(); } }, options);
  box.value = chosen[name];
  return el("label", { for: `filter-${name}` }, label, box);
}

function startGrid() {
  if (!byId("filters")) return;
  const flipped = DATA.policies.some((policy) => policy.flipped.size);
  const which = Object.fromEntries(Object.entries(WHICH).filter(([name]) => flipped || !["flipped", "lost"].includes(name)));
  if (!DATA.policies.some((policy) => policy.episodes.success.includes(0))) chosen.which = "all";
  const context = DATA.policies.some((policy) => policy.is_context) ? { "*": ["with ceiling and floor"] } : {};
  const policies = { "": ["all"], ...context, ...Object.fromEntries([...POLICIES].map(([key, policy]) => [key, [policy.name]])) };
  byId("filters").append(select("policy", "policy", policies), select("episodes", "which", which), select("order", "order", ORDERS));
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  fillGrid();
}

/** Choose from outside, such as an address. */
function choose(changes) {
  Object.assign(chosen, changes);
  for (const [name, value] of Object.entries(chosen)) {
    const box = byId(`filter-${name}`);
    if (box) box.value = value;
  }
  fillGrid();
}

function slowest() {
  const limits = new Map();
  for (const policy of POLICIES.values()) {
    const steps = policy.episodes.steps.filter((_, at) => policy.episodes.success[at]).sort((a, b) => a - b);
    limits.set(policy, steps[Math.floor(0.9 * steps.length)] ?? Infinity);
  }
  return limits;
}

function fillGrid() {
  const grid = byId("grid"), [, isIn] = WHICH[chosen.which], [, order] = ORDERS[chosen.order], slow = slowest();
  const policies = [...POLICIES.values()].filter((policy) => chosen.policy === "*" || (chosen.policy ? policy.key === chosen.policy : !policy.is_context || ONLY_CONTEXT));
  const all = policies.flatMap((policy) => policy.episodes.seed.map((seed) => episode(policy, seed)));
  shown = all.filter((each) => isIn(each, slow));
  shown.sort((a, b) => order(a) - order(b) || a.seed - b.seed);
  byId("found").textContent = `${shown.length.toLocaleString("en-US")} of ${all.length.toLocaleString("en-US")} episodes. A picture shows where block and agent ended, the dashed outline where the block began.`;
  grid.replaceChildren();
  portion(grid, 0);
}

/** Add the next pictures, and a button for those after them. */
function portion(grid, from) {
  grid.append(...shown.slice(from, from + PORTION).map(tile));
  const next = from + PORTION;
  if (next >= shown.length) return;
  const more = el("button", { id: "more", type: "button" }, `show more (${(shown.length - next).toLocaleString("en-US")})`);
  more.addEventListener("click", () => { more.remove(); portion(grid, next); });
  grid.append(more);
}

function tile(each) {
  const track = each.policy.tracks.get(each.seed);
  const kind = each.success ? "" : isNear(each) ? "failed near" : "failed";
  const said = `${each.policy.name}, seed ${each.seed}: ${each.ending ?? (each.success ? "success" : "failed")}, ${each.steps} steps${each.flipped ? `, ${each.flipped}` : ""}`;
  return el("a", { class: `tile ${kind}`, href: address([each.policy.key], each.seed), title: said, "aria-label": said },
    hasPoses(track) ? thumbnail(track) : el("div", { class: "blank" }),
    el("span", { "aria-hidden": "true" }, el("b", {}, `${shapeOf(each)}${each.flipped ? (each.flipped === "lost" ? "▼" : "▲") : ""}`), String(each.seed)),
    POLICIES.has(chosen.policy) ? null : el("span", { "aria-hidden": "true" }, each.policy.name));
}
