// One way to draw a chart: lines, bands, points and levels on two axes, as SVG with its numbers in a table.

const LEFT = 44, RIGHT = 12, TOP = 10, BOTTOM = 34;
let charts = 0;

/**
 * options: title, note, x and y: {label, low, high, log, ticks, format}, width and height in px,
 * series: [{name, color, points: [[x, y, title?]], band: [[x, low, high]], dots, radius, dashed, spans: [[x, y, to, width?]], whiskers: [[x, low, high]]}],
 * levels: [{y or x, label, left}], head and rows() of the table.
 */
function chart(options) {
  const height = options.height ?? 240, width = options.width ?? 420, id = `chart-${++charts}`;
  const across = scaleOf(options.x, LEFT, width - RIGHT), up = scaleOf(options.y, height - BOTTOM, TOP);
  const svg = el("svg:svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-labelledby": id });
  svg.append(el("svg:title", {}, options.title));
  drawAxes(svg, options, across, up, width, height);
  for (const series of options.series) drawSeries(svg, series, across, up);
  for (const level of options.levels ?? []) drawLevel(svg, level, across, up, width, height);
  const legend = options.series.filter((series) => series.name && !series.quiet).map((series) => el("li", {}, el("i", { style: `background:${series.color}` }), series.name));
  const tip = el("div", { class: "tip", hidden: true });
  const figure = el("figure", {},
    el("figcaption", {}, el("h3", { id }, options.title), options.note ?? null),
    svg, legend.length > 1 ? el("ul", { class: "legend" }, legend) : null, tip,
    el("div", { class: "tools" }, numbers(options.title, options.head, options.rows),
      el("button", { type: "button", click: () => save(`${options.title}.svg`, svgFile(svg)) }, "save picture")));
  hover(figure, svg, tip, options.series, across, up, width);
  return figure;
}

/** The width of a chart in a wide part of the page, in which text keeps its size. */
const wide = (place) => Math.max(320, Math.min(560, place.clientWidth));

function scaleOf(axis, from, to) {
  const [low, high] = axis.log ? [Math.log10(axis.low), Math.log10(axis.high)] : [axis.low, axis.high];
  const at = (value) => from + (((axis.log ? Math.log10(value) : value) - low) / (high - low || 1)) * (to - from);
  at.ticks = axis.ticks ?? (axis.log ? decades(axis.low, axis.high) : evenly(axis.low, axis.high));
  at.text = axis.format ?? short;
  return at;
}

function evenly(low, high) {
  const raw = (high - low) / 4 || 1, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((each) => each >= raw);
  const ticks = [];
  for (let value = Math.ceil(low / step) * step; value <= high + step / 1e6; value += step) ticks.push(Number(value.toPrecision(12)));
  return ticks;
}

function decades(low, high) {
  const ticks = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high) + 1e-9; power++)
    for (const factor of high / low > 100 ? [1] : [1, 2, 5]) if (factor * 10 ** power >= low * 0.999 && factor * 10 ** power <= high * 1.001) ticks.push(factor * 10 ** power);
  return ticks;
}

function drawAxes(svg, options, across, up, width, height) {
  for (const value of up.ticks) {
    svg.append(el("svg:line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: up(value), y2: up(value) }));
    svg.append(el("svg:text", { x: LEFT - 6, y: up(value) + 4, "text-anchor": "end" }, up.text(value)));
  }
  for (const value of across.ticks) {
    svg.append(el("svg:line", { class: "axis", x1: across(value), x2: across(value), y1: height - BOTTOM, y2: height - BOTTOM + 4 }));
    svg.append(el("svg:text", { x: across(value), y: height - BOTTOM + 15, "text-anchor": "middle" }, across.text(value)));
  }
  svg.append(el("svg:line", { class: "axis", x1: LEFT, x2: width - RIGHT, y1: height - BOTTOM, y2: height - BOTTOM }));
  svg.append(el("svg:text", { x: width - RIGHT, y: height - 4, "text-anchor": "end" }, options.x.label));
  if (options.y.label) svg.append(el("svg:text", { x: LEFT, y: TOP - 2, "text-anchor": "start", dy: "-.2em" }, options.y.label));
}

function drawSeries(svg, series, across, up) {
  const path = (points) => points.map(([x, y], at) => `${at ? "L" : "M"}${across(x).toFixed(1)} ${up(y).toFixed(1)}`).join("");
  if (series.band?.length) {
    const there = series.band.map(([x, low]) => [x, low]), back = series.band.map(([x, , high]) => [x, high]).reverse();
    svg.append(el("svg:path", { d: `${path([...there, ...back])}Z`, style: `fill:${series.color}`, opacity: 0.16 }));
  }
  for (const [x, y, to, width] of series.spans ?? [])
    svg.append(el("svg:line", { x1: across(x), x2: across(to), y1: up(y), y2: up(y), style: `stroke:${series.color}`, "stroke-width": width ?? 3, opacity: 0.45 }));
  for (const [x, low, high] of series.whiskers ?? [])
    svg.append(el("svg:line", { x1: across(x), x2: across(x), y1: up(low), y2: up(high), style: `stroke:${series.color}`, "stroke-width": 1.8, opacity: 0.6 }));
  if (!series.dots && series.points.length)
    svg.append(el("svg:path", { d: path(series.points), style: `stroke:${series.color};fill:none`, "stroke-width": 1.8, "stroke-linejoin": "round", "stroke-dasharray": series.dashed ? "6 4" : "none" }));
  for (const [x, y, title, ring] of series.dots ? series.points : [])
    svg.append(el("svg:circle", { cx: across(x), cy: up(y), r: ring ? 6 : series.radius ?? 4.5, style: ring ? `fill:var(--paper);stroke:${series.color}` : `fill:${series.color}`, "stroke-width": 2.2 }, el("svg:title", {}, title ?? series.name)));
}

function drawLevel(svg, level, across, up, width, height) {
  const flat = level.y !== undefined;
  svg.append(el("svg:line", flat ? { class: "level", x1: LEFT, x2: width - RIGHT, y1: up(level.y), y2: up(level.y) } : { class: "level", x1: across(level.x), x2: across(level.x), y1: TOP, y2: height - BOTTOM }));
  svg.append(el("svg:text", flat ? { x: level.left ? LEFT + 4 : width - RIGHT, y: up(level.y) - 4, "text-anchor": level.left ? "start" : "end" } : { x: across(level.x) - 4, y: TOP + 10, "text-anchor": "end" }, level.label));
}

/** Show the nearest point of any series beside the pointer. */
function hover(figure, svg, tip, series, across, up, width) {
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect(), scale = width / box.width;
    const x = (event.clientX - box.left) * scale, y = (event.clientY - box.top) * scale;
    let best = null;
    for (const each of series) for (const point of each.points) {
      const far = Math.hypot(across(point[0]) - x, up(point[1]) - y);
      if (!best || far < best.far) best = { far, each, point };
    }
    tip.hidden = !best || best.far > 40;
    if (tip.hidden) return;
    tip.textContent = best.point[2] ?? `${best.each.name}: ${across.text(best.point[0])}, ${short(best.point[1])}`;
    const outer = figure.getBoundingClientRect();
    tip.style.left = `${Math.max(0, Math.min(event.clientX - outer.left + 12, outer.width - tip.offsetWidth))}px`;
    tip.style.top = `${event.clientY - outer.top + 14}px`;
  });
  svg.addEventListener("pointerleave", () => { tip.hidden = true; });
}
