/* Draws the plots of a page with Vega-Lite, and makes legend, zoom and tabs work. Loaded by report files and by `gsi view`. */
"use strict";
const read = (id) => { const at = document.getElementById(id); return at ? JSON.parse(at.textContent) : null; };
const theme = read("theme");
const views = new Map(); // figure element -> Vega view

async function draw(figure, spec) {
  const at = figure.querySelector(".drawing");
  if (views.has(figure)) { views.get(figure).finalize(); views.delete(figure); }
  const target = document.createElement("div");
  target.style.width = "100%";
  at.replaceChildren(target);
  const narrow = at.clientWidth < 480;
  const whole = { ...spec, width: "container", height: narrow ? 210 : 240, autosize: { type: "fit-x", contains: "padding" }, config: theme };
  const result = await window.gsiVega.embed(target, whole, { mode: "vega-lite", ast: true, renderer: "svg", actions: false, tooltip: { disableDefaultStyle: true } });
  // the figure says in words what is drawn, and the table has the numbers: the drawing itself is one image to assistive technology
  target.removeAttribute("role"); target.removeAttribute("aria-label"); target.removeAttribute("aria-roledescription");
  at.querySelectorAll("svg, svg *").forEach((e) => { for (const a of ["role", "aria-roledescription", "aria-label", "tabindex"]) e.removeAttribute(a); });
  at.querySelectorAll("svg").forEach((e) => e.setAttribute("aria-hidden", "true"));
  views.set(figure, result.view);
  figure.dataset.drawn = "1";
  const zoom = figure.querySelector(".zoom");
  if (zoom) zoom.hidden = !JSON.stringify(spec).includes('"bind":"scales"');
  hide(figure);
}

function hide(figure) {
  const view = views.get(figure);
  const off = [...figure.querySelectorAll('.legend button[aria-pressed="false"]')].map((b) => b.dataset.series);
  if (view) view.signal("hidden", off).runAsync();
}

function zoom(figure, factor) {
  const view = views.get(figure);
  for (const name of ["x", "y"]) {
    let domain = null;
    if (factor) {
      const scale = view.scale(name), log = scale.type === "log" || scale.base !== undefined;
      const [a, b] = scale.domain().map((v) => (log ? Math.log(v) : +v));
      const centre = (a + b) / 2, half = ((b - a) / 2) * factor;
      domain = [centre - half, centre + half].map((v) => (log ? Math.exp(v) : v));
    }
    view.signal(`grid_${name}`, domain);
  }
  if (!factor) view.data("grid_store", []);
  view.runAsync();
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  const figure = button && button.closest("figure.plot");
  if (!figure) return;
  if (button.dataset.series !== undefined) {
    button.setAttribute("aria-pressed", button.getAttribute("aria-pressed") === "true" ? "false" : "true");
    hide(figure);
  } else if (button.dataset.zoom !== undefined) zoom(figure, +button.dataset.zoom);
});

const pause = () => new Promise((done) => setTimeout(done, 0));
async function drawAll(root) {
  for (const figure of root.querySelectorAll("figure.plot:not([data-drawn])")) {
    if (!figure.offsetParent) continue; // in a tab that is not open
    const prefix = figure.id.slice(0, figure.id.length - figure.dataset.plot.length - 1);
    const specs = (window.gsiSpecs ??= {})[prefix] ??= read(`plots-${prefix}`);
    await draw(figure, specs[figure.dataset.plot]);
    await pause(); // the page stays responsive
  }
}

function openTab(tab, focus) {
  for (const other of document.querySelectorAll('[role="tab"]')) {
    const open = other === tab;
    other.setAttribute("aria-selected", String(open));
    other.tabIndex = open ? 0 : -1;
    document.getElementById(other.getAttribute("aria-controls")).hidden = !open;
  }
  if (focus) tab.focus();
  drawAll(document.getElementById(tab.getAttribute("aria-controls")));
}
const tabs = [...document.querySelectorAll('[role="tab"]')];
tabs.forEach((tab, i) => {
  tab.addEventListener("click", () => { openTab(tab); window.scrollTo(0, 0); });
  tab.addEventListener("keydown", (e) => {
    const to = { ArrowRight: i + 1, ArrowLeft: i - 1, Home: 0, End: tabs.length - 1 }[e.key];
    if (to === undefined) return;
    e.preventDefault();
    openTab(tabs[(to + tabs.length) % tabs.length], true);
  });
});
if (tabs.length) {
  const wanted = location.hash && document.querySelector(`${CSS.escape ? "#" + CSS.escape(location.hash.slice(1)) : location.hash}`);
  const panel = wanted && wanted.closest('[role="tabpanel"]');
  openTab(panel ? document.getElementById(panel.getAttribute("aria-labelledby")) : tabs[0]);
}
drawAll(document).then(() => { document.documentElement.dataset.ready = "1"; });
