// Puts the page together, and opens what its address names.

/** `#act/200024`, `#act+bc/200024`, `#act/`, `#act/?stuck`. */
function route() {
  const found = /^#([^/?]+)\/(\d*)(?:\?(.*))?$/.exec(location.hash);
  if (!found) { if (player.dialog.open) player.dialog.close(); return; }
  let keys, which;
  try {
    keys = found[1].split("+").map(decodeURIComponent);
    which = decodeURIComponent(found[3] ?? "");
  } catch { return; }
  if (keys.some((key) => !POLICIES.has(key))) return;
  if (found[2]) {
    if (!openPlayer(keys, Number(found[2]))) say(`The report has no episode ${found[2]} of ${keys.join(" and ")}.`);
    return;
  }
  choose({ policy: keys[0], which: which === "success" ? "solved" : WHICH[which] ? which : "all" });
  byId("episodes").scrollIntoView();
}

function say(text) {
  byId("found").textContent = text;
}

function contents() {
  const list = document.querySelector("nav ul");
  for (const part of document.querySelectorAll("main > section[id]")) {
    const title = part.querySelector(":scope > h2");
    if (title) list.append(el("li", {}, el("a", { href: `#${part.id}` }, title.textContent)));
  }
  if (list.children.length < 2) list.parentNode.remove();
}

unpacked.then(() => {
  startGrid();
  startPlayer();
  flips();
  startMaps();
  evidenceCharts();
  progressCharts();
  speedCharts();
  tokenizers();
  historyCharts();
  trainingCharts();
  contents();
  addEventListener("hashchange", route);
  route();
  document.documentElement.dataset.ready = Math.ceil(performance.now()); // ms since it was opened
});
