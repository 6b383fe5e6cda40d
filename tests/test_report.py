"""The report of run folders: true to their files, whole when they are not, and unmoved by hostile text."""

import base64
import csv
import gzip
import hashlib
import json
import random
import re
import shutil
import sqlite3
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
import scripted
import yaml

import gsi
from gsi.bench.report import build_run
from gsi.ledger import Ledger
from gsi.metrics import wilson
from gsi.progress import Reporter
from gsi.report import comparison, html
from gsi.report.html import write_report
from gsi.report.read import read_run
from gsi.report.samples import FIELDS, LONGEST, pack
from gsi.report.tally import Tally
from gsi.types import STATUSES, GsiError


def unpack(packed: str):
    return json.loads(gzip.decompress(base64.b64decode(packed)))


VOID = {"meta", "link", "img", "br", "hr", "input"}
HOSTILE = "</pre></mark></details><script>alert('owned')</script><img src=http://evil.test/x onerror=alert(1)>\"'{{ 7*7 }}&amp;"


class Page(HTMLParser):
    """A page as its tags, its text, its tables and its exact values. Fails on tags that do not nest."""

    def __init__(self, path: Path):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.tables: dict[str, list[list[str]]] = {}
        self.values: dict[str, list[list[float | None]]] = {}  # like `tables`, the `<data value>` of a cell
        self.headings: list[int] = []
        self.pre: list[str] = []
        self.scripts: dict[str, str] = {}  # id, or a number, -> content
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "caption":
            self.caption = ""
        elif tag == "tr":
            self.row, self.row_values = [], []
        elif tag in ("td", "th"):
            self.row.append("")
            self.row_values.append(None)
        elif tag == "data":
            self.row_values[-1] = float(dict(attrs)["value"])
        elif tag == "pre":
            self.pre.append("")
        elif tag == "script":
            self.script = dict(attrs).get("id") or str(len(self.scripts))
            self.scripts[self.script] = ""
        elif tag[0] == "h" and tag[1:].isdigit():
            self.headings.append(int(tag[1:]))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        if tag == "caption":
            self.tables.setdefault(self.caption, []), self.values.setdefault(self.caption, [])
        elif tag == "tr":
            self.tables[self.caption].append(self.row)
            self.values[self.caption].append(self.row_values)

    def handle_data(self, data):
        if "script" in self.open:
            self.scripts[self.script] += data
        if {"style", "script"} & set(self.open):
            return
        self.text += data
        if "caption" in self.open:
            self.caption += data
        elif "td" in self.open or "th" in self.open:
            self.row[-1] += data.strip()
        if "pre" in self.open:
            self.pre[-1] += data

    def json(self, name: str):
        return json.loads(self.scripts[name])

    def rollouts(self, run: str = "r1") -> list[dict]:
        """What the page's browser over rollouts holds."""
        found = []
        for i in range(10_000):
            if f"{run}-block-{i}" not in self.scripts:
                return found
            found += [dict(zip(FIELDS, values, strict=True)) for values in unpack(self.scripts[f"{run}-block-{i}"])]

    def row_of(self, caption: str, first: str) -> dict[str, float | str]:
        """A row as column -> exact value, or text where there is none."""
        (name,) = [c for c in self.tables if c.startswith(caption)]
        (i,) = [i for i, row in enumerate(self.tables[name]) if row[0] == first]
        texts, values = self.tables[name][i], self.values[name][i]
        return {h: t if v is None else v for h, t, v in zip(self.tables[name][0], texts, values, strict=True)}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two finished runs; tests that change one copy it."""
    root = tmp_path_factory.mktemp("runs")
    evaluate = {"validation": 0.2, "tasks": [{"name": "chain", "args": {"seed": 77, "per_level": 2}}], "pass_at_k": [1, 4]}
    for strategy in ("state_reset", "vanilla"):
        gsi.run(scripted.config(root / strategy, strategy=strategy, evaluate=evaluate, curate={"cap": 2}), reporter=Reporter("quiet"))
    return root


@pytest.fixture
def copy(runs, tmp_path):
    shutil.copytree(runs / "state_reset", tmp_path / "copy")
    return tmp_path / "copy"


def report(*paths: Path, to: Path) -> Page:
    assert write_report(list(paths), to) == to
    assert not list(to.parent.glob("*.part"))
    page = Page(to)
    assert "nan" not in page.text.lower().split()
    assert "None" not in page.text
    return page


def test_the_figures_are_those_of_the_run_folder(runs, tmp_path):
    run = runs / "state_reset"
    page = report(run, to=tmp_path / "new" / "r.html")
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for line in lines[1:]:
        name = f"iteration {line['iteration']}"
        row = page.row_of("Tokens and FLOPs", name)
        for column in ("rollouts", "accepted", "tokens", "prompt tokens", "given tokens"):
            assert row[column] == line["sample/" + column.replace(" ", "_")]
        assert row["tokens per accepted rollout"] == line["sample/tokens"] / line["sample/accepted"]
        coverage, share = page.row_of("Coverage:", name), page.row_of("Share of the training set", name)
        for level in range(1, 11):
            assert coverage[f"level {level}"] == line[f"tail/coverage/level_{level}"]
            assert share[f"level {level}"] == line.get(f"tail/share/level_{level}", 0)
        assert (coverage["all"], share["hard"], share["rows"]) == (line["tail/coverage"], line["tail/hard_share"], line["train/rows"])
        statuses = page.row_of("Rollouts by status", name)
        assert {s: statuses[s] for s in STATUSES} == {s: line.get(f"sample/status/{s}", 0) for s in STATUSES}
        dropped = page.row_of("Training rows", name)
        reasons = {key[14:]: value for key, value in line.items() if key.startswith("train/dropped/")}
        assert reasons, "the cap drops some"
        assert {r: dropped[r] for r in reasons} == reasons
        assert page.row_of("Seconds by stage", name)["train"] == line["time/train"]
    queries = page.row_of("Share of the training set", "the questions")
    assert [queries[f"level {x}"] for x in range(1, 11)] == [lines[-1][f"tail/query_share/level_{x}"] for x in range(1, 11)]
    price = page.row_of("Tokens per accepted rollout", "all")
    for kind in ("plain", "state_reset"):
        tokens, accepted = (sum(line.get(f"sample/{kind}/{what}", 0) for line in lines) for what in ("tokens", "accepted"))
        assert (price[f"{kind}: accepted"], price[f"{kind}: tokens per accepted"]) == (accepted, tokens / accepted)
    clock = json.loads((run / "run.json").read_text())["clock"]
    assert page.row_of("Seconds by phase", "wall")["seconds"] == clock["wall"]


def test_accuracy_carries_its_interval(runs, tmp_path):
    run = runs / "vanilla"
    rows = report(run, to=tmp_path / "r.html").tables["Accuracy by iteration and task"][1:]
    assert [row[:2] for row in rows if row[1] == "validation"] == [["0", "validation"], ["1", "validation"], ["2", "validation"]]
    result = json.loads((run / "iter_2" / "eval.json").read_text())["test"]["chain"]
    low, high = result["interval"]
    right = round(result["pass@1"] * result["n"])
    assert (low, high) == wilson(right, result["n"])
    (row,) = [row for row in rows if row[:2] == ["2", "test"]]
    assert row[4:6] == [f"{result['pass@1']:.1%}", f"{low:.1%} to {high:.1%}"]


def test_guidance_adds_up_to_the_ledger(runs, tmp_path):
    run = runs / "state_reset"
    page = report(run, to=tmp_path / "r.html")
    rows = page.values["Success by guidance, the whole run"][1:]
    with sqlite3.connect(run / "ledger.sqlite") as db:
        assert [sum(row[i] for row in rows) for i in (2, 3)] == list(db.execute("select count(*), sum(correct) from rollouts").fetchone())
        plain = db.execute("select count(*), sum(correct) from rollouts where guidance is null").fetchone()
    assert tuple(rows[0][2:4]) == plain
    assert 2 <= len(rows) <= 7, "sizes are put together"


def test_the_curve_of_coverage_is_a_recount_of_the_ledger(tmp_path):
    build_run(tmp_path / "run", 2000)
    with sqlite3.connect(tmp_path / "run" / "ledger.sqlite") as db:
        rows = db.execute("SELECT iteration + 1, query_id, correct, generated_tokens FROM rollouts ORDER BY iteration, rowid").fetchall()
    tokens, ever, expected = 0, set(), []
    for n in sorted({row[0] for row in rows}):
        covered = set()
        for _, q, right, spent in (row for row in rows if row[0] == n):
            tokens += spent
            covered |= {q} if right else set()
            ever |= covered
            expected.append((n, tokens, len(covered), len(ever)))
    assert len(expected) == 2000
    with Tally(tmp_path / "run", "answer") as tally:
        assert tally.curve(points=10**6) == expected
        few = tally.curve(points=7)
    assert set(few) <= set(expected)
    assert {n: row for n, *row in few} == {n: row for n, *row in expected}, "the last of each iteration is among them"


def test_several_runs_are_compared(runs, tmp_path):
    one = report(runs / "vanilla", to=tmp_path / "one.html")
    two = report(runs / "vanilla", runs / "state_reset", to=tmp_path / "two.html")
    assert not [c for c in one.tables if c.startswith("Runs side by side")]
    for name in ("vanilla", "state_reset"):
        row = two.row_of("Runs side by side", name)
        lines = [json.loads(line) for line in (runs / name / "metrics.jsonl").read_text().splitlines()]
        assert row["tokens"] == sum(line.get("sample/tokens", 0) for line in lines)
        assert row["coverage (95 %)"] == lines[-1]["tail/coverage"]
        assert row["validation (95 %)"] == pytest.approx(lines[-1]["eval/chain/pass@1"])
    text = next(row for row in two.tables[next(iter(two.tables))] if row[0] == "vanilla")[3]
    assert "to" in text, "an interval stands beside the accuracy"


def test_the_page_is_whole_alone_and_in_order(runs, tmp_path):
    page = report(runs / "vanilla", runs / "state_reset", to=tmp_path / "r.html")
    names = {tag for tag, _ in page.tags}
    assert not names & {"link", "img", "iframe", "object", "embed", "base", "form"}
    for tag, attrs in page.tags:
        assert not [a for a in attrs if a.startswith("on")]
        assert all(v and v.startswith("#") for a, v in attrs.items() if a in ("src", "srcset", "href", "action", "data")), (tag, attrs)
    assert dict(page.tags)["html"]["lang"] == "en"
    assert page.headings[0] == 1
    assert all(b - a <= 1 for a, b in zip(page.headings, page.headings[1:], strict=False)), "no level of heading is skipped"
    assert [tag for tag, _ in page.tags].count("table") == [tag for tag, _ in page.tags].count("caption")
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert {attrs["href"][1:] for tag, attrs in page.tags if tag == "a"} <= set(ids)


def test_only_the_pages_own_scripts_may_run_and_nothing_may_be_fetched(runs, tmp_path):
    page = report(runs / "vanilla", to=tmp_path / "r.html")
    (policy,) = [a["content"] for t, a in page.tags if t == "meta" and a.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe-eval" not in policy
    assert "connect-src" not in policy
    run = [content for name, content in page.scripts.items() if name.isdigit()]
    assert set(re.findall(r"'sha256-([^']+)'", policy)) == {base64.b64encode(hashlib.sha256(c.encode()).digest()).decode() for c in run}


def test_every_plot_has_words_and_a_table_and_its_rows(runs, tmp_path):
    page = report(runs / "state_reset", to=tmp_path / "r.html")
    plots = page.json("plots-r1")
    shown = [attrs["data-plot"] for tag, attrs in page.tags if "data-plot" in attrs]
    assert sorted(shown) == sorted(plots)
    assert {"shares", "coverage", "right-counts", "lengths", "gained", "effective", "distinct", "price", "coverage-tokens", "time", "hints", "hint-sizes", "gap", "drops"} <= set(plots)  # fmt: skip
    drawings = [attrs for tag, attrs in page.tags if attrs.get("class") == "drawing"]
    assert len(drawings) == len(plots)
    assert all(a["role"] == "img" and len(a["aria-label"]) > 40 for a in drawings)
    assert all(spec["data"]["values"] for spec in plots.values())
    rows = {(row["s"], row["x"]): row["y"] for row in plots["shares"]["data"]["values"]}
    line = json.loads((runs / "state_reset" / "metrics.jsonl").read_text().splitlines()[-1])
    assert [rows["kept", x] for x in range(1, 11)] == [line.get(f"tail/share/level_{x}", 0) for x in range(1, 11)]


def test_perplexity_is_drawn_where_it_was_measured(copy, tmp_path):
    page = report(copy, to=tmp_path / "a.html")
    assert "perplexity" not in page.json("plots-r1")
    assert "perplexity (the metrics hold no" in page.text
    path = copy / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines[1:]:
        line |= {
            "tail/perplexity/reference": 4.5,
            "tail/perplexity/kept": 3.25,
            "tail/perplexity/kept/level_1": 2.0,
            "tail/perplexity/reference/level_1": 4.0,
            "tail/perplexity/reference/from_4.000": 1.0,
            "tail/perplexity/kept/from_2.828": 0.25,
            "tail/perplexity/kept/from_3.364": 0.75,
        }
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    page = report(copy, to=tmp_path / "b.html")
    assert page.values["Perplexity"][-1][1:] == [3.25, 4.5]
    assert page.values["Perplexity by level"][-1][1:] == [2.0, 4.0]
    assert [row[1:] for row in page.values["Share of responses by perplexity"][-3:]] == [[0.25, 0.0], [0.75, 0.0], [0.0, 1.0]]


def test_all_rollouts_are_there_to_read(runs, tmp_path):
    run = runs / "state_reset"
    page = report(run, to=tmp_path / "a.html")
    rows = page.rollouts()
    with sqlite3.connect(run / "ledger.sqlite") as db:
        stored = {
            (q, i + 1, a): (prompt, given, response, status)
            for q, i, a, prompt, given, response, status in db.execute(
                "select query_id, iteration, attempt, prompt, given, response, status from rollouts"
            )
        }
        golds = dict(db.execute("select id, answer from queries where split = 'train'"))
    assert len(rows) == len(stored)
    for row in rows:
        prompt, given, response, status = stored.pop((row["query"], row["iteration"], row["attempt"]))
        assert (row["prompt"], row["given"], row["given"] + row["generated"], row["status"]) == (prompt, given, response, status)
        assert row["gold"] == golds[row["query"]]
    index = unpack(page.scripts["r1-index"])
    kinds = index["words"]["guidance"]
    for name, column in (("iteration", "iteration"), ("level", "level"), ("accepted", "accepted"), ("tokens", "tokens")):
        assert index["columns"][name] == [row[column] for row in rows], name
    assert [kinds[i] for i in index["columns"]["guidance"]] == [(row["guidance"] or "plain").split(":")[0] for row in rows]


def test_what_does_not_fit_is_sampled_from_every_stratum_and_always_the_same(runs):
    with Tally(runs / "state_reset", "answer", seed=3) as tally:
        whole, few, again = pack(tally, 10_000_000), pack(tally, 12_000), pack(tally, 12_000)
        assert whole.rows == whole.total == few.total
        assert few == again
        assert 20 < few.rows < 0.8 * few.total
        assert few.bytes <= 12_000
        index = unpack(few.index)["columns"]
        strata = set(zip(index["iteration"], index["level"], index["accepted"], (g == 0 for g in index["guidance"]), strict=True))
        assert len(strata) == len(tally("SELECT DISTINCT n, level, good, kind = 'plain' FROM slim")), "no stratum is left out"


def test_a_sampled_browser_says_so(runs, tmp_path, monkeypatch):
    monkeypatch.setattr("gsi.report.html.pack", lambda tally, budget: pack(tally, 12_000))
    page = report(runs / "state_reset", to=tmp_path / "r.html")
    assert re.search(r"\d+ of 4\d\d rollouts: a sample from every stratum", page.text)
    assert "gsi view" in page.text


def test_figures_as_files(runs, tmp_path, monkeypatch):
    every = html._figures
    monkeypatch.setattr(
        html, "_figures", lambda *args: [(run, f) for run, f in every(*args) if f.id in ("shares", "coverage", "equal-tokens-coverage")]
    )
    write_report([runs / "vanilla", runs / "state_reset"], tmp_path / "r.html", tmp_path / "figures")
    names = {p.stem for p in (tmp_path / "figures").iterdir()}
    assert names == {"state_reset-shares", "vanilla-shares", "state_reset-coverage", "vanilla-coverage", "comparison-equal-tokens-coverage"}
    for name in names:
        svg = (tmp_path / "figures" / f"{name}.svg").read_text()
        assert svg.startswith("<svg")
        assert "var(--" not in svg, "colours are written out"
        if not name.endswith("-coverage") or name.startswith("comparison"):
            assert ("vanilla" if name.startswith("comparison") else "sampled") in svg, "a legend names the series"
        assert (tmp_path / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    with (tmp_path / "figures" / "state_reset-shares.csv").open() as f:
        rows = list(csv.DictReader(f))
    line = json.loads((runs / "state_reset" / "metrics.jsonl").read_text().splitlines()[-1])
    assert [float(row["kept"]) for row in rows] == [line.get(f"tail/share/level_{x}", 0) for x in range(1, 11)]


def test_hostile_text_is_shown_and_does_nothing(copy, tmp_path):
    ledger = Ledger(copy / "ledger.sqlite")
    row = next(ledger.rows())
    response = HOSTILE + "\x1b[31m\x00\u202ered\x9b " + "x" * 1_000_000 + "END"
    bad = dict.fromkeys(
        ("extracted", "detail", "model", "guidance", "query_id", "finish_reason", "task", "status", "prompt", "given"), HOSTILE
    )
    ledger.add([replace(row, **bad, response=response, attempt=i, level=99) for i in range(9)])
    ledger.close()
    with sqlite3.connect(copy / "ledger.sqlite") as db:  # broken UTF-8, wherever text is kept
        for i, column in enumerate(("prompt", "response", "completion", "extracted", "status", "guidance", "query_id")):
            db.execute(f"update rollouts set {column} = cast(x'61ff62c328' as text) where level = 99 and attempt = ?", (i,))
    path = copy / "config.yaml"
    path.write_text(path.read_text().replace("model: scripted-base", "model: " + json.dumps(HOSTILE)))
    path = copy / "metrics.jsonl"
    lines = [json.loads(line) | {f"train/dropped/{HOSTILE}": 3} for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    page = report(copy, to=tmp_path / "r.html")
    assert "img" not in {tag for tag, _ in page.tags}
    assert page.source.count("<script") == len(page.scripts)
    assert "<script>alert" not in page.source
    assert HOSTILE in page.text, "as text, every character of it"
    (shown,) = [r for r in page.rollouts() if r["attempt"] == 8 and r["level"] == 99]
    assert shown["given"] == HOSTILE
    assert shown["generated"].startswith("\\x1b[31m\\x00\\x202ered\\x9b")
    assert "characters left out" in shown["generated"]
    assert shown["generated"].endswith("END")
    assert shown["extracted"] == HOSTILE
    broken = [r for r in page.rollouts() if "a\ufffdb" in json.dumps(r, ensure_ascii=False)]
    assert len(broken) == 6, "all but the one in `completion`, which is not shown"
    assert max(len(r["generated"]) for r in page.rollouts()) < 1.1 * LONGEST
    assert not {"\x1b", "\x00", "\u202e", "\x9b"} & set(page.source)
    assert len(page.source) < 3_000_000


def test_no_accepted_rollout_and_no_levels(copy, tmp_path):
    with sqlite3.connect(copy / "ledger.sqlite") as db:
        db.execute("update rollouts set correct = 0, status = 'wrong', level = null")
    path = copy / "metrics.jsonl"
    lines = [{k: v for k, v in json.loads(line).items() if "level" not in k and "hard" not in k} for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(line | {"sample/accepted": 0}) + "\n" for line in lines))
    page = report(copy, copy, to=tmp_path / "r.html")
    assert "No rollout was accepted" in page.text
    assert "declare no levels" in page.text


def remove_stages(run: Path) -> None:
    state = json.loads((run / "run.json").read_text())
    state["stages"] = {k: v for k, v in state["stages"].items() if not k.startswith("iter_2")}
    (run / "run.json").write_text(json.dumps(state))


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda run: (run / "metrics.jsonl").unlink(), "metrics.jsonl: No such file"),
        (lambda run: (run / "metrics.jsonl").write_text('{"iteration": 0}\n{"iter'), "metrics.jsonl line 2: "),
        (lambda run: (run / "metrics.jsonl").write_text('{"iteration": 0}\n[3]\n'), "metrics.jsonl line 2: no mapping with an iteration"),
        (lambda run: (run / "iter_1" / "eval.json").unlink(), "iter_1/eval.json: not there"),
        (lambda run: (run / "iter_1" / "eval.json").write_text('{"validation": {"chain": {"n": 8}}}'), "iter_1/eval.json: not the results"),
        (lambda run: (run / "iter_1" / "eval.json").write_text("{"), "iter_1/eval.json: "),
        (lambda run: (run / "run.json").unlink(), "run.json: No such file"),
        (lambda run: (run / "run.json").write_text("{}"), "0 of 11 stages are done"),
        (lambda run: (run / "config.yaml").unlink(), "config.yaml: No such file"),
        (lambda run: (run / "config.yaml").write_text(""), "config.yaml: holds no mapping"),
        (lambda run: (run / "ledger.sqlite").unlink(), "ledger.sqlite: "),
        (lambda run: (run / "ledger.sqlite").write_bytes(b"not a database, not at all" * 99), "not a readable ledger"),
        (remove_stages, "left: iter_2/sample, iter_2/curate, iter_2/train, iter_2/evaluate"),
    ],
)
def test_a_broken_or_unfinished_run_has_a_report_that_says_so(copy, tmp_path, damage, named):
    damage(copy)
    page = report(copy, to=tmp_path / "r.html")
    assert named in page.text
    assert "Reproduce" in page.text


def test_a_run_at_work_can_be_reported(copy, tmp_path):
    """Another process holds the ledger open and has just added rows that are only in its write-ahead log."""
    before = report(copy, to=tmp_path / "a.html")
    with_figures = before.row_of("Rollouts by status", "iteration 2")["wrong"]
    ledger = Ledger(copy / "ledger.sqlite")
    try:
        row = next(ledger.rows())
        ledger.add([replace(row, iteration=2, attempt=i, status="timeout", correct=False) for i in range(5)])
        page = report(copy, to=tmp_path / "b.html")
    finally:
        ledger.close()
    assert page.row_of("Rollouts by status", "iteration 3")["timeout"] == 5
    assert page.row_of("Rollouts by status", "iteration 2")["wrong"] == with_figures
    assert "rollouts so far" in page.text
    assert "rollouts so far" not in before.text


def test_figures_that_are_no_numbers_are_dashes(copy, tmp_path):
    path = copy / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[2] |= {"tail/coverage": float("nan"), "sample/tokens": None, "tail/hard_share": float("inf"), "sample/plain/tokens": float("nan")}
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    page = report(copy, copy, to=tmp_path / "r.html")
    name = next(c for c in page.tables if c.startswith("Coverage"))
    assert page.tables[name][2][-1] == "–"
    assert "inf%" not in page.text
    assert "NaN" not in page.scripts["plots-r1"]


NASTY = [float("nan"), float("inf"), -1, 0, 1e308, 10**400, "x</script>", [], {}, [1], {"a": 1}, True, None, 1.5, "9" * 50, "\ud800", 2**70]
KEYS = ["", "|", "level_x", "level_99999999999999999999", "level_\u00b2", "\ud800"]


def spoiled(value, rng: random.Random, p: float):
    """The value with a share p of everything in it replaced by something else."""
    if rng.random() < p:
        return rng.choice(NASTY)
    if isinstance(value, dict):
        return {k if rng.random() > p / 4 else rng.choice(KEYS): spoiled(v, rng, p) for k, v in value.items()}
    return [spoiled(v, rng, p) for v in value] if isinstance(value, list) else value


def test_figures_of_any_shape_break_nothing(copy):
    """Whatever stands in the files of a run, the page is made; what is drawn of it is sound JSON and text."""
    config = yaml.safe_load((copy / "config.yaml").read_text())
    state, result = (json.loads((copy / name).read_text()) for name in ("run.json", "iter_1/eval.json"))
    lines = [json.loads(line) for line in (copy / "metrics.jsonl").read_text().splitlines()]
    lines[2] |= {"tail/perplexity/kept/level_1": 2.0, "tail/perplexity/kept/from_2.8": 0.25, "monitor/gap": 4.0, "monitor/alarms": 1}
    with Tally(copy, "answer") as tally:
        for seed in range(12):
            rng, p = random.Random(seed), (0.01, 0.05, 0.2)[seed % 3]
            (copy / "config.yaml").write_text(json.dumps(spoiled(config, rng, p)))
            (copy / "run.json").write_text(json.dumps(spoiled(state, rng, p)))
            (copy / "iter_1" / "eval.json").write_text(json.dumps(spoiled(result, rng, p)))
            (copy / "iter_2" / "monitor.json").write_text(json.dumps(spoiled({"gap": {"was": 0.1, "now": 0.2, "alarm": True}}, rng, p)))
            (copy / "metrics.jsonl").write_text("".join(json.dumps(spoiled(line, rng, p)) + "\n" for line in lines))
            run = read_run(copy)
            made = html.build(run, "spoiled", "r1", tally)
            side = comparison.side("spoiled", run, tally)
            for block in html.data([made], html.compared([side, side])).values():
                json.loads(block, parse_constant=lambda name, seed=seed: pytest.fail(f"seed {seed}: {name}"))
                block.encode("utf-8")
            page = html.render("report.html", runs=[made], comparison=None, title="t", data={}, math=False, live=None, home=None, scripts=[], policy=None)  # fmt: skip
            assert "x</script>" not in page


def test_files_that_cannot_be_read_at_all_are_named(copy, tmp_path):
    (copy / "run.json").write_text("[" * 100_000)
    (copy / "metrics.jsonl").write_bytes(b'{"iteration": 0}\n\xff\xfe\n')
    (copy / "config.yaml").write_text("tasks: 7\nsample: [1]\niterations: 1.0e+18\n")
    page = report(copy, to=tmp_path / "r.html")
    for named in ("run.json: ", "metrics.jsonl: ", "config.yaml: tasks is no list", "config.yaml: sample is no mapping"):
        assert named in page.text


def test_the_monitors_alarms_are_drawn(copy, tmp_path):
    path = copy / "metrics.jsonl"
    lines = [{k: v for k, v in json.loads(line).items() if not k.startswith("monitor/")} for line in path.read_text().splitlines()]
    lines[2] |= {"monitor/gap": 4.25, "monitor/hard_share": -1.0, "monitor/alarms": 1}
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    (copy / "iter_2" / "monitor.json").write_text(
        json.dumps({"gap": {"was": 0.1, "now": 0.3, "alarm": True}, "hard_share": {"alarm": False}})
    )
    page = report(copy, to=tmp_path / "r.html")
    assert page.row_of("Tail monitor", "iteration 2") == {
        "": "iteration 2",
        "guided minus plain": 4.25,
        "hard share of rows": -1.0,
        "alarms": 1,
    }
    rows = {row["y"]: row for row in page.json("plots-r1")["monitor"]["data"]["values"]}
    assert (rows["guided minus plain"]["alarm"], rows["guided minus plain"]["was"], rows["guided minus plain"]["v"]) == ("yes", 0.1, 1.0)
    assert (rows["hard share of rows"]["alarm"], rows["hard share of rows"]["v"]) == ("no", 0.0)
    assert "Alarms: 1 in iteration 2" in page.text


def test_the_price_of_an_accepted_rollout_by_strategy(copy, runs, tmp_path):
    page = report(runs / "vanilla", copy, to=tmp_path / "a.html")
    for run in (runs / "vanilla", copy):
        with sqlite3.connect(run / "ledger.sqlite") as db:
            sql = "select level, 1.0 * sum(generated_tokens) / sum(correct) from rollouts group by level union select 'all', 1.0 * sum(generated_tokens) / sum(correct) from rollouts"
            expected = {(f"level {x}" if x != "all" else x): price for x, price in db.execute(sql) if price}
        row = page.row_of("Tokens per accepted rollout over the run, by level and strategy", "vanilla" if run.name == "vanilla" else "copy")
        assert {k: v for k, v in row.items() if k in expected} == pytest.approx(expected)
        assert row["strategy"] == ("vanilla" if run.name == "vanilla" else "state_reset")
    with sqlite3.connect(copy / "ledger.sqlite") as db:  # as a fork that took another strategy
        db.execute("update rollouts set strategy = 'brute_force' where iteration = 1 and guidance is null")
    head = next(rows[0] for c, rows in report(copy, to=tmp_path / "b.html").tables.items() if c.startswith("Tokens per accepted rollout"))
    assert {h.split(": ")[0] for h in head[1:]} == {"brute_force, plain", "state_reset, plain", "state_reset, state_reset"}


def test_what_cannot_be_reported_is_refused(runs, tmp_path):
    with pytest.raises(GsiError, match="at least one"):
        write_report([], tmp_path / "r.html")
    with pytest.raises(GsiError, match="no run folder"):
        write_report([tmp_path], tmp_path / "r.html")
    (tmp_path / "file").write_text("")
    with pytest.raises(GsiError, match="cannot be written"):
        write_report([runs / "vanilla"], tmp_path / "file" / "r.html")


def test_the_first_training_batch_is_shown_with_its_mask(copy, tmp_path):
    pieces = [{"trained": False, "tokens": 3, "text": "d 3 ? "}, {"trained": True, "tokens": 2, "text": "<script>alert(1)</script># 3"}]
    batch = {"step": 1, "of": 9, "rows": [{"row": f"q{i}, attempt 0", "weight": 0.5, "pieces": pieces} for i in range(12)]}
    (copy / "iter_2" / "first_batch.json").write_text(json.dumps(batch))
    (copy / "iter_1" / "first_batch.json").write_text("{}")
    page = report(copy, to=tmp_path / "r.html")
    assert "First training batch of iteration 2" in page.text
    assert "8 of its 12 rows" in page.text
    assert "q7, attempt 0, weight 0.5" in page.text
    assert "q8, attempt 0" not in page.text
    assert "<script>alert(1)</script># 3" in page.text  # as text, not as a script
    assert not any("alert(1)" in content for content in page.scripts.values())
    assert any(tag == "mark" and attrs.get("title") == "2 tokens, trained" for tag, attrs in page.tags)
    (copy / "iter_2" / "first_batch.json").write_text('{"rows": [{}]}')
    assert "first_batch.json cannot be read" in report(copy, to=tmp_path / "r.html").text
