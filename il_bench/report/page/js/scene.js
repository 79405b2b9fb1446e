// The arena: as small SVG pictures of the grid, and on the player's canvas.

const WORLD = 512, AGENT_RADIUS = 15;
const OUTLINE = DATA.outline.map(([x, y]) => `${x},${y}`).join(" ");

const placed = (x, y, angle) => `translate(${x.toFixed(1)} ${y.toFixed(1)}) rotate(${((angle * 180) / Math.PI).toFixed(1)})`;
const shape = (name, pose) => el("svg:polygon", { class: name, points: OUTLINE, transform: placed(...pose) });
const poseAt = (track, row) => [track.block_x[row], track.block_y[row], track.block_angle[row]];

/** The end of an episode over the goal, and the outline of where the block began. */
function thumbnail(track) {
  const last = track.n - 1;
  return el("svg:svg", { viewBox: `20 20 ${WORLD - 40} ${WORLD - 40}`, "aria-hidden": "true" },
    shape("goal", DATA.goal), shape("start", poseAt(track, 0)), shape("block", poseAt(track, last)),
    el("svg:circle", { class: "agent", cx: track.agent_x[last].toFixed(1), cy: track.agent_y[last].toFixed(1), r: 2 * AGENT_RADIUS }));
}

const shade = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** Draw a step, which may lie between two rows, on a canvas; `trails`: also the path and where actions pointed. */
function drawStep(canvas, track, step, trails) {
  const size = Math.round(canvas.clientWidth * (window.devicePixelRatio || 1)) || WORLD;
  if (canvas.width !== size || canvas.height !== size) canvas.width = canvas.height = size;
  const pen = canvas.getContext("2d"), scale = size / WORLD;
  pen.setTransform(scale, 0, 0, scale, 0, 0);
  pen.fillStyle = shade("--paper");
  pen.fillRect(0, 0, WORLD, WORLD);
  const row = Math.min(Math.floor(step), track.n - 1), next = Math.min(row + 1, track.n - 1), part = step - row;
  const between = (name) => track[name][row] + part * (track[name][next] - track[name][row]);
  fillShape(pen, DATA.goal, shade("--goal"));
  fillShape(pen, [between("block_x"), between("block_y"), turn(track.block_angle[row], track.block_angle[next], part)], shade("--block"));
  const x = between("agent_x"), y = between("agent_y");
  if (trails) {
    pen.lineWidth = 2;
    pen.strokeStyle = shade("--track");
    trail(pen, track.block_x, track.block_y, row);
    pen.strokeStyle = shade("--agent");
    pen.globalAlpha = 0.55;
    trail(pen, track.agent_x, track.agent_y, row);
    pen.globalAlpha = 1;
    if (row < track.n - 1) {
      pen.strokeStyle = shade("--aim");
      pen.beginPath();
      pen.moveTo(x, y);
      pen.lineTo(track.action_x[row], track.action_y[row]);
      pen.moveTo(track.action_x[row] - 6, track.action_y[row] - 6);
      pen.lineTo(track.action_x[row] + 6, track.action_y[row] + 6);
      pen.moveTo(track.action_x[row] - 6, track.action_y[row] + 6);
      pen.lineTo(track.action_x[row] + 6, track.action_y[row] - 6);
      pen.stroke();
    }
  }
  pen.fillStyle = shade("--agent");
  pen.beginPath();
  pen.arc(x, y, AGENT_RADIUS, 0, 2 * Math.PI);
  pen.fill();
}

function fillShape(pen, [x, y, angle], fill) {
  pen.save();
  pen.translate(x, y);
  pen.rotate(angle);
  pen.fillStyle = fill;
  pen.beginPath();
  DATA.outline.forEach(([u, v]) => pen.lineTo(u, v));
  pen.closePath();
  pen.fill();
  pen.restore();
}

function trail(pen, xs, ys, row) {
  pen.beginPath();
  for (let i = 0; i <= row; i++) pen.lineTo(xs[i], ys[i]);
  pen.stroke();
}

/** From one angle to another the short way round. */
function turn(from, to, part) {
  let by = (to - from) % (2 * Math.PI);
  if (by > Math.PI) by -= 2 * Math.PI;
  if (by < -Math.PI) by += 2 * Math.PI;
  return from + part * by;
}
