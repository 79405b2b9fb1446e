// The data of the page, and how elements are made. Text is always set as text, never as HTML.

const DATA = JSON.parse(document.getElementById("data").textContent);
const SVG = "http://www.w3.org/2000/svg";

/** Make an element: el("p", {class: "note"}, "text", child, ..). Functions become listeners; null is left out. */
function el(tag, attributes = {}, ...children) {
  const is_svg = tag.startsWith("svg:");
  const node = is_svg ? document.createElementNS(SVG, tag.slice(4)) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") node.addEventListener(name, value);
    else if (name === "value" && !is_svg) node.value = value;
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return node;
}

const byId = (id) => document.getElementById(id);
const color = (number) => `var(--c${((number % 8) + 8) % 8})`;
const sum = (values) => values.reduce((a, b) => a + b, 0);

/** A number with three digits, such as 0.123, 12.3 and 1,234. */
function short(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (Math.abs(value) >= 100 || Number.isInteger(value)) return Math.round(value).toLocaleString("en-US");
  return Number(value.toPrecision(3)).toString();
}

/** A table in a closed part of the page, filled when it is opened. */
function numbers(title, head, rows) {
  const place = el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `${title}, numbers` });
  const fold = el("details", {}, el("summary", {}, "numbers"), place);
  fold.addEventListener("toggle", () => {
    if (!fold.open || place.firstChild) return;
    const cells = (row) => row.map((value, at) => el(at ? "td" : "th", at ? {} : { scope: "row" }, typeof value === "number" ? short(value) : String(value ?? "–")));
    place.append(
      el("table", {}, el("thead", {}, el("tr", {}, head.map((name) => el("th", { scope: "col" }, name)))),
        el("tbody", {}, rows().map((row) => el("tr", {}, cells(row))))),
    );
  });
  return fold;
}

/** Offer a file for download. */
function save(name, blob) {
  const url = URL.createObjectURL(blob);
  el("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

/** An SVG of the page as a file of its own, with the colours it has now. */
function svgFile(svg) {
  const copy = svg.cloneNode(true);
  const from = [svg, ...svg.querySelectorAll("*")];
  [copy, ...copy.querySelectorAll("*")].forEach((node, at) => {
    const style = getComputedStyle(from[at]);
    for (const name of ["fill", "stroke", "stroke-width", "stroke-dasharray", "font-size", "font-family", "opacity"])
      node.style.setProperty(name, style.getPropertyValue(name));
  });
  copy.setAttribute("xmlns", SVG);
  copy.style.background = getComputedStyle(document.body).backgroundColor;
  return new Blob([new XMLSerializer().serializeToString(copy)], { type: "image/svg+xml" });
}

// ---- policies and episodes

const POLICIES = new Map();
DATA.policies.forEach((policy) => {
  policy.key = policy.run ? policy.id : `${policy.id}~before`;
  const latest = DATA.policies.filter((each) => each.run === policy.run);
  policy.color = color(latest.indexOf(policy));
  const columns = policy.episodes;
  policy.at = new Map(columns.seed.map((seed, at) => [seed, at]));
  policy.flipped = new Map([...policy.lost.map((s) => [s, "lost"]), ...policy.won.map((s) => [s, "won"])]);
  POLICIES.set(policy.key, policy);
});
DATA.changes.forEach((change) => {
  for (const policy of DATA.policies)
    if (policy.policy === change.id && policy.run)
      policy.flipped = new Map([...change.lost.map((s) => [s, "lost"]), ...change.won.map((s) => [s, "won"])]);
});

/** One episode as an object. */
function episode(policy, seed) {
  const at = policy.at.get(seed), columns = policy.episodes;
  if (at === undefined) return null;
  const ending = columns.ending[at] < 0 ? null : DATA.endings[columns.ending[at]].name;
  return {
    policy, seed, ending, success: columns.success[at] === 1, steps: columns.steps[at], best: columns.best[at],
    final: columns.final[at], outside: columns.outside[at], reward: columns.reward[at], last: columns.last[at],
    flipped: policy.flipped.get(seed) ?? null,
  };
}

const isNear = (each) => !each.success && each.best !== null && each.best > DATA.near;
const SHAPES = {
  success: "✓", "never touched": "∅", "near miss": "≈", undone: "↶", stuck: "■", "still working": "…",
  terminated: "✗", truncated: "✗", "out of steps": "✗",
};
const shapeOf = (each) => SHAPES[each.ending] ?? (each.success ? "✓" : "✗");
const address = (keys, seed) => `#${keys.map(encodeURIComponent).join("+")}/${seed}`;
