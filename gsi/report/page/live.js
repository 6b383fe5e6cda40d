/* Follows a run in `gsi view`: asks every two seconds where it is, and takes a new page in when a stage has finished. */
"use strict";
{
  const url = document.body.dataset.live;
  const el = (tag, attrs = {}, ...children) => { const e = document.createElement(tag); for (const [k, v] of Object.entries(attrs)) e.setAttribute(k, v); e.append(...children); return e; };
  const panel = el("section", { class: "card live", "aria-label": "Where the run is", id: "live" });
  document.querySelector("h1").after(panel);
  const whole = (n) => Math.round(n).toLocaleString("en-US");
  const time = (s) => (s < 100 ? `${Math.round(s)} s` : s < 6000 ? `${Math.round(s / 60)} min` : `${(s / 3600).toFixed(1)} h`);
  let version = null, failed = 0;

  function show(now) {
    const title = { running: "Running", stopped: "Stopped", finished: "Finished" }[now.state];
    const at = now.stage ? now.stage.replace("iter_", "iteration ").replace("/", ": ") : "";
    const parts = [`${now.done} of ${now.stages} stages done`];
    if (now.iteration !== null) parts.push(`iteration ${now.iteration}: ${whole(now.rollouts)} rollouts, ${whole(now.accepted)} accepted, ${whole(now.tokens)} tokens`);
    if (now.asked) parts.push(`${whole(now.covered)} of ${whole(now.asked)} questions covered (${whole(now.seen)} seen)`);
    if (now.tokens_per_s) parts.push(`${now.rollouts_per_s.toFixed(1)} rollouts/s, ${whole(now.tokens_per_s)} tokens/s`);
    if (now.left_stage !== null) parts.push(`about ${time(now.left_stage)} left in this stage`);
    if (now.left_run !== null) parts.push(`about ${time(now.left_run)} left in the run`);
    const bars = el("div", { class: "bars" }, ...now.levels.flatMap((l) => [el("span", {}, `level ${l.level}`), el("meter", { min: 0, max: l.asked, value: l.covered, "aria-label": `level ${l.level} covered` }), el("span", {}, `${l.covered}/${l.asked}`)]));
    const latest = el("ol", {}, ...now.latest.map((r) => el("li", {}, el("strong", { class: r.accepted ? "yes" : "no" }, r.accepted ? "✓ " : "✗ "), `${r.level === null ? "" : `level ${r.level} · `}${r.guidance} · ${r.status} · `, r.response)));
    panel.replaceChildren(
      el("h2", {}, `${title}${at && now.state !== "finished" ? ` · ${at}` : ""}`),
      el("p", { class: "says" }, parts.join(" · ")),
      el("div", { class: "two" }, el("div", {}, el("div", { class: "label" }, `Coverage by level${now.iteration === null ? "" : `, iteration ${now.iteration}`}`), bars), el("div", {}, el("div", { class: "label" }, "Newest rollouts"), latest)));
    panel.hidden = now.state === "finished";
    panel.dataset.rollouts = now.rollouts;
    panel.dataset.state = now.state;
  }

  /* A stage has finished: the sections of the new page take the place of the old ones; samples and what was opened stay. */
  async function renew() {
    const fresh = new DOMParser().parseFromString(await (await fetch(location.pathname)).text(), "text/html");
    const opened = [...document.querySelectorAll("figure.plot details[open]")].map((d) => d.closest("figure").id);
    for (const block of fresh.querySelectorAll('script[type="application/json"]')) {
      const mine = document.getElementById(block.id);
      if (mine) mine.textContent = block.textContent;
    }
    window.gsiSpecs = {};
    const main = document.getElementById("main"), samples = main.querySelector("section:has(.browser)");
    for (const child of [...main.children]) if (child !== panel && child !== samples && child.tagName !== "H1") child.remove();
    let before = true;
    for (const child of [...fresh.getElementById("main").children]) {
      if (child.tagName === "H1") continue;
      if (child.id && samples && child.id === samples.id) { before = false; continue; }
      if (child.querySelector(".browser")) { main.append(document.adoptNode(child)); continue; }
      before && samples ? samples.before(document.adoptNode(child)) : main.append(document.adoptNode(child));
    }
    for (const id of opened) document.getElementById(id)?.querySelector("details")?.setAttribute("open", "");
    await drawAll(main);
    document.documentElement.dataset.renewed = String(+(document.documentElement.dataset.renewed ?? 0) + 1);
  }

  async function ask() {
    if (!document.hidden) {
      try {
        const answer = await fetch(url);
        if (!answer.ok) throw new Error(await answer.text());
        const now = await answer.json();
        show(now);
        if (version !== null && version !== now.version) await renew();
        version = now.version;
        failed = 0;
      } catch (e) {
        if (++failed > 2) panel.replaceChildren(el("h2", {}, "No answer from gsi view"), el("p", { class: "says", role: "status" }, `${e.message}. It is asked again every few seconds.`));
      }
    }
    setTimeout(ask, panel.dataset.state === "running" ? 2000 : 5000);
  }
  ask();
}
