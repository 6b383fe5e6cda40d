"""The report of run folders: true to their files, whole when they are not, and unmoved by hostile text."""

import json
import shutil
import sqlite3
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
import scripted

import gsi
from gsi.ledger import Ledger
from gsi.metrics import wilson
from gsi.progress import Reporter
from gsi.report.html import LONGEST, SAMPLES, write_report
from gsi.types import STATUSES, GsiError

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
        if "style" in self.open:
            return
        self.text += data
        if "caption" in self.open:
            self.caption += data
        elif "td" in self.open or "th" in self.open:
            self.row[-1] += data.strip()
        if "pre" in self.open:
            self.pre[-1] += data

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
        coverage, share = page.row_of("Coverage", name), page.row_of("Share of the training set", name)
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
    queries = page.row_of("Share of the training set", "the queries")
    assert [queries[f"level {x}"] for x in range(1, 11)] == [lines[-1][f"tail/query_share/level_{x}"] for x in range(1, 11)]
    for kind in ("plain", "state_reset"):
        row = page.row_of("Tokens per accepted rollout", kind)
        assert row["tokens"] == sum(line.get(f"sample/{kind}/tokens", 0) for line in lines)
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
    assert write_report([runs / "vanilla"], tmp_path / "one.html").stat().st_size < 1_000_000


def test_the_page_is_whole_alone_and_in_order(runs, tmp_path):
    page = report(runs / "vanilla", runs / "state_reset", to=tmp_path / "r.html")
    names = {tag for tag, _ in page.tags}
    assert not names & {"script", "link", "img", "iframe", "object", "embed", "base", "form", "svg"}
    for tag, attrs in page.tags:
        assert not [a for a in attrs if a.startswith("on")]
        assert all(v and v.startswith("#") for a, v in attrs.items() if a in ("src", "srcset", "href", "action", "data")), (tag, attrs)
    assert "url(" not in page.source
    assert "@import" not in page.source
    assert dict(page.tags)["html"]["lang"] == "en"
    assert page.headings[0] == 1
    assert all(b - a <= 1 for a, b in zip(page.headings, page.headings[1:], strict=False)), "no level of heading is skipped"
    assert [tag for tag, _ in page.tags].count("table") == [tag for tag, _ in page.tags].count("caption")
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert {attrs["href"][1:] for tag, attrs in page.tags if tag == "a"} == set(ids)


def test_samples_are_spread_and_the_same_every_time(runs, tmp_path):
    page = report(runs / "state_reset", to=tmp_path / "a.html")
    assert page.source.count("<summary>") == SAMPLES + 1  # and the configuration
    marks = [tag for tag, _ in page.tags].count("mark")
    assert 5 < marks < SAMPLES, "guided and plain ones"
    assert page.text.count("accepted chain, ") > 5
    assert page.text.count("rejected chain, ") > 5
    assert {f"level {x}" for x in (1, 2, 3)} & {w.strip() for w in page.text.split(",")}
    assert {f"level {x}" for x in (8, 9, 10)} & {w.strip() for w in page.text.split(",")}
    again = report(runs / "state_reset", to=tmp_path / "b.html")
    assert again.source.split("<h3>Samples")[1] == page.source.split("<h3>Samples")[1]
    with sqlite3.connect(runs / "state_reset" / "ledger.sqlite") as db:
        given = {g for (g,) in db.execute("select given from rollouts where given != ''")}
        written = dict(db.execute("select response, prompt from rollouts"))
    marked = [page.source.split("<mark>")[i].split("</mark>")[0] for i in range(2, marks + 1)]
    assert set(marked) <= given, "exactly what was given is set apart"
    shown = [pre.removeprefix("\n") for pre in page.pre[: 2 * SAMPLES]]
    assert all(written[response] == prompt for prompt, response in zip(shown[::2], shown[1::2], strict=True)), "given and generated add up"


def test_hostile_text_is_shown_and_does_nothing(copy, tmp_path):
    ledger = Ledger(copy / "ledger.sqlite")
    row = next(ledger.rows())
    response = HOSTILE + "\x1b[31m\x00\u202ered\x9b " + "x" * 1_000_000 + "END"
    bad = dict.fromkeys(
        ("extracted", "detail", "model", "guidance", "query_id", "finish_reason", "task", "status", "prompt", "given"), HOSTILE
    )
    ledger.add([replace(row, **bad, response=response, attempt=i, level=99) for i in range(9)])
    ledger.close()
    path = copy / "config.yaml"
    path.write_text(path.read_text().replace("model: scripted-base", "model: " + json.dumps(HOSTILE)))
    page = report(copy, to=tmp_path / "r.html")
    assert "script" not in {tag for tag, _ in page.tags}
    assert "img" not in {tag for tag, _ in page.tags}
    assert "<script" not in page.source
    assert HOSTILE in page.text, "as text, every character of it"
    assert "characters left out" in page.text
    assert "END" in page.text
    assert max(map(len, page.pre)) < 2 * LONGEST + 100
    assert not {"\x1b", "\x00", "\u202e", "\x9b"} & set(page.source)
    assert "\\x1b[31m\\x00\\x202ered" in page.text
    assert len(page.source) < 1_000_000


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
    assert "nan" not in page.source.split("</style>")[1]
    assert "inf%" not in page.source


def test_what_cannot_be_reported_is_refused(runs, tmp_path):
    with pytest.raises(GsiError, match="at least one"):
        write_report([], tmp_path / "r.html")
    with pytest.raises(GsiError, match="no run folder"):
        write_report([tmp_path], tmp_path / "r.html")
    (tmp_path / "file").write_text("")
    with pytest.raises(GsiError, match="cannot be written"):
        write_report([runs / "vanilla"], tmp_path / "file" / "r.html")
