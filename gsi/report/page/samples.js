/* The browser over rollouts: filters, search, pages. Rows come from the page itself (packed blocks) or from `gsi view`. */
"use strict";
{
  const FIELDS = JSON.parse(document.getElementById("fields")?.textContent ?? "[]");
  const SIZE = 25;
  const el = (tag, attrs = {}, ...children) => {
    const e = document.createElement(tag);
    for (const [k, v] of Object.entries(attrs)) v === true ? e.setAttribute(k, "") : v !== false && v !== null && e.setAttribute(k, v);
    e.append(...children.filter((c) => c !== null && c !== undefined));
    return e;
  };
  const grouped = (n) => n.toLocaleString("en-US");

  async function unpack(id) {
    const text = atob(document.getElementById(id).textContent);
    const bytes = Uint8Array.from(text, (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return JSON.parse(await new Response(stream).text());
  }

  /* Both sources: choices() -> {iteration, level, guidance, status}; page(wanted, say) -> {count, page, rows} */
  class Embedded {
    constructor(run) { this.run = run; this.blocks = new Map(); }
    async open() {
      const { columns, words, block } = await unpack(`${this.run}-index`);
      Object.assign(this, { columns, words, block, size: columns.iteration.length, found: null, key: null });
      const one = (name) => [...new Set(columns[name])].filter((v) => v !== null).sort((a, b) => a - b);
      return { iteration: one("iteration"), level: one("level"), guidance: words.guidance, status: words.status };
    }
    async blockOf(i) {
      if (!this.blocks.has(i)) this.blocks.set(i, (await unpack(`${this.run}-block-${i}`)).map((values) => Object.fromEntries(FIELDS.map((f, j) => [f, values[j]]))));
      return this.blocks.get(i);
    }
    async page(wanted, say, stale) {
      const key = JSON.stringify({ ...wanted, page: 0 });
      if (key !== this.key) { const found = await this.select(wanted, say, stale); if (!found) return null; this.found = found; this.key = key; }
      const at = Math.max(0, Math.min(wanted.page, Math.ceil(this.found.length / SIZE) - 1));
      const rows = [];
      for (const i of this.found.slice(at * SIZE, (at + 1) * SIZE)) rows.push((await this.blockOf(Math.floor(i / this.block)))[i % this.block]);
      return { count: this.found.length, page: at, rows };
    }
    async select(wanted, say, stale) {
      const c = this.columns, words = this.words;
      let found = [];
      const kind = words.guidance.indexOf(wanted.guidance), status = words.status.indexOf(wanted.verdict);
      for (let i = 0; i < this.size; i++) {
        if (wanted.iteration !== "" && c.iteration[i] !== +wanted.iteration) continue;
        if (wanted.level !== "" && c.level[i] !== +wanted.level) continue;
        if (wanted.guidance === "guided" && kind < 0 ? words.guidance[c.guidance[i]] === "plain" : wanted.guidance !== "" && c.guidance[i] !== kind) continue;
        if (wanted.verdict === "accepted" || wanted.verdict === "rejected" ? c.accepted[i] !== (wanted.verdict === "accepted" ? 1 : 0) : wanted.verdict !== "" && c.status[i] !== status) continue;
        found.push(i);
      }
      if (wanted.text) {
        const text = wanted.text.toLowerCase(), kept = [];
        let last = -1;
        for (const i of found) {
          const b = Math.floor(i / this.block);
          if (b !== last) {
            if (stale()) return null;
            say(`searching: ${Math.round((100 * i) / this.size)} %`);
            await new Promise((done) => setTimeout(done, 0));
            last = b;
          }
          const row = (await this.blockOf(b))[i % this.block];
          if (`${row.query}\n${row.prompt}\n${row.given}${row.generated}\n${row.extracted ?? ""}`.toLowerCase().includes(text)) kept.push(i);
        }
        found = kept;
      }
      const order = { mixed: (a, b) => c.pick[a] - c.pick[b], hardest: (a, b) => (c.level[b] ?? -1) - (c.level[a] ?? -1) || c.pick[a] - c.pick[b], longest: (a, b) => c.tokens[b] - c.tokens[a] || a - b, question: null }[wanted.sort];
      return order ? found.sort(order) : found;
    }
  }
  class Served {
    constructor(url) { this.url = url; }
    async get(query) {
      const answer = await fetch(`${this.url}?${query}`);
      if (!answer.ok) throw new Error(await answer.text());
      return answer.json();
    }
    open() { return this.get("choices=1"); }
    page(wanted) { return this.get(new URLSearchParams(wanted)); }
  }

  /* ---- math: $...$, $$...$$, \(...\), \[...\] and \boxed{...}; anything that is no math stays as it was written */
  const MATH = /\$\$([\s\S]{1,2000}?)\$\$|\\\[([\s\S]{1,2000}?)\\\]|\\\(([\s\S]{1,2000}?)\\\)|\$(?![\s$])([^$\n]{1,400}?)(?<![\s\\])\$(?!\d)|(\\boxed\{(?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*\})/g;
  const looksLike = (tex) => /[\\^_={}<>+*\/]|^[A-Za-z]$|^-?[\d.,]+$/.test(tex.trim());
  function typeset(text, on) {
    if (!on || !window.temml) return [text];
    const parts = [];
    let last = 0;
    for (const hit of text.matchAll(MATH)) {
      const tex = hit[1] ?? hit[2] ?? hit[3] ?? hit[4] ?? hit[5];
      if (hit[4] !== undefined && !looksLike(tex)) continue;
      const at = document.createElement("span");
      try {
        window.temml.render(tex, at, { displayMode: hit[1] !== undefined || hit[2] !== undefined, throwOnError: true, trust: false, maxSize: [20, 20], maxExpand: 200 });
      } catch { continue; } // no valid math: shown as text
      parts.push(text.slice(last, hit.index), at);
      last = hit.index + hit[0].length;
    }
    return [...parts, text.slice(last)];
  }

  function body(row, math) {
    const facts = {
      question: row.query, task: row.task, strategy: row.strategy, guidance: row.guidance ?? "none",
      "iteration, attempt": `${row.iteration} (drawn by the iter_${row.iteration - 1} model), ${row.attempt}`, model: row.model, seed: row.seed,
      tokens: `${row.prompt_tokens} prompt, ${row.given_tokens} given, ${row.tokens} generated`, "ended by": row.finish_reason, status: row.status,
      "steps right": row.steps_ok === null ? null : row.steps_ok ? "yes" : "no", detail: row.detail || null, graded: row.created_at,
    };
    const text = (s) => el("pre", {}, ...typeset(s ?? "", math));
    const response = el("pre", {}, row.given ? el("mark", {}, ...typeset(row.given, math)) : null, ...typeset(row.generated ?? "", math));
    return el("div", { class: "body" },
      el("div", { class: "label" }, "Prompt"), text(row.prompt),
      el("div", { class: "label" }, row.given ? "Response, the given part marked" : "Response"), response,
      el("div", { class: "answers" },
        el("span", {}, el("span", { class: "label" }, "extracted answer "), el("strong", {}, row.extracted ?? "none")),
        el("span", {}, el("span", { class: "label" }, "gold answer "), el("strong", {}, row.gold ?? "not in this run folder"))),
      row.reference ? el("details", {}, el("summary", { class: "label" }, "Reference rationale"), text(row.reference)) : null,
      el("dl", {}, ...Object.entries(facts).filter(([, v]) => v !== null && v !== undefined).map(([k, v]) => el("div", {}, el("dt", {}, k), el("dd", {}, String(v))))));
  }

  function item(row, math) {
    const details = el("details", { class: "rollout" }, el("summary", {},
      el("span", { class: `verdict ${row.accepted ? "yes" : "no"}` }, row.accepted ? "✓ accepted" : `✗ ${row.status === "correct" ? "wrong steps" : row.status}`),
      el("span", {}, row.level === null ? row.task : `${row.task} level ${row.level}`),
      el("span", { class: "where" }, `iteration ${row.iteration} · ${row.guidance ?? "plain"} · ${row.tokens} tokens`),
      el("span", { class: "peek" }, row.prompt.slice(0, 160))));
    // filled on the click (by mouse or key) that opens it, so that it never opens empty: "toggle" comes a task later, and also when the browser's own search opens it
    const fill = () => details.querySelector(".body") ?? details.append(body(row, math()));
    details.querySelector("summary").addEventListener("click", fill);
    details.addEventListener("toggle", () => details.open && fill());
    details.again = () => details.querySelector(".body")?.replaceWith(body(row, math()));
    return details;
  }

  async function browse(root) {
    const source = root.dataset.source ? new Served(root.dataset.source) : new Embedded(root.dataset.run);
    const choices = await source.open();
    const select = (name, options) => el("select", { name }, ...options.map(([value, text]) => el("option", { value }, text)));
    const all = (list, text = String) => [["", "all"], ...list.map((v) => [v, text(v)])];
    const kinds = choices.guidance.length > 2 ? [["guided", "any guidance"]] : [];
    const inputs = {
      iteration: select("iteration", all(choices.iteration)),
      level: select("level", all(choices.level)),
      guidance: select("guidance", [...all(choices.guidance), ...kinds]),
      verdict: select("verdict", [["", "all"], ["accepted", "accepted"], ["rejected", "rejected"], ...choices.status.map((s) => [s, `status: ${s}`])]),
      sort: select("sort", [["mixed", "mixed (random)"], ["question", "by question"], ["hardest", "hardest first"], ["longest", "longest first"], ...(root.dataset.source ? [["newest", "newest first"]] : [])]),
      text: el("input", { type: "search", name: "text", placeholder: "question, prompt, response, answer" }),
    };
    const mathOn = el("input", { type: "checkbox", checked: true });
    const label = (name, input, cls = "") => { input.setAttribute("aria-label", name); return el("label", { class: cls }, name, input); };
    const filters = el("form", { class: "filters", role: "search" }, label("Iteration", inputs.iteration), label("Level", inputs.level), label("Guidance", inputs.guidance), label("Verdict", inputs.verdict), label("Order", inputs.sort), label("Text", inputs.text, "search"),
      window.temml ? el("label", { class: "check" }, mathOn, "Math as formulas") : null);
    const count = el("span", { role: "status" });
    const number = el("input", { type: "number", min: 1, value: 1, "aria-label": "Page" }), of = el("span");
    const prev = el("button", { type: "button" }, "Previous"), next = el("button", { type: "button" }, "Next");
    const list = el("div", { class: "list", "aria-busy": "true" });
    root.replaceChildren(filters, el("div", { class: "found" }, count, el("span", { class: "pager" }, prev, "page", number, of, next)), list);
    let page = 0, turn = 0;
    async function show() {
      const mine = ++turn;
      list.setAttribute("aria-busy", "true"); // until what is listed is what the filters ask for
      const wanted = { ...Object.fromEntries(Object.entries(inputs).map(([k, input]) => [k, input.value])), page };
      let got;
      try {
        got = await source.page(wanted, (text) => { if (mine === turn) count.textContent = text; }, () => mine !== turn);
      } catch (e) { if (mine === turn) { count.textContent = `This failed: ${e.message}`; list.setAttribute("aria-busy", "false"); } return; }
      if (mine !== turn || !got) return;
      page = got.page;
      const pages = Math.max(1, Math.ceil(got.count / SIZE));
      count.textContent = `${grouped(got.count)} rollout${got.count === 1 ? "" : "s"}`;
      number.value = page + 1; number.max = pages; of.textContent = `of ${grouped(pages)}`;
      prev.disabled = page === 0; next.disabled = page + 1 >= pages;
      list.replaceChildren(...got.rows.map((row) => item(row, () => mathOn.checked)));
      list.setAttribute("aria-busy", "false");
    }
    const restart = () => { page = 0; show(); };
    let typing;
    filters.addEventListener("submit", (e) => { e.preventDefault(); restart(); });
    for (const [name, input] of Object.entries(inputs)) input.addEventListener(name === "text" ? "input" : "change", () => { list.setAttribute("aria-busy", "true"); clearTimeout(typing); typing = setTimeout(restart, name === "text" ? 250 : 0); });
    mathOn.addEventListener("change", () => list.childNodes.forEach((details) => details.again()));
    prev.addEventListener("click", () => { page--; show(); });
    next.addEventListener("click", () => { page++; show(); });
    number.addEventListener("change", () => { page = Math.max(0, (+number.value || 1) - 1); show(); });
    await show();
  }
  for (const root of document.querySelectorAll(".browser")) browse(root).catch((e) => { root.textContent = `The samples cannot be shown: ${e.message}`; });
}
