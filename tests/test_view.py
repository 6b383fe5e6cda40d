"""`gsi view`, `gsi compare` and `gsi status` as a user meets them: a real server process, real HTTP, real run folders."""

import hashlib
import http.client
import io
import itertools
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import scripted
from rich.console import Console

import gsi
from gsi.cli import main
from gsi.ledger import Ledger
from gsi.progress import Reporter
from gsi.report.comparison import at_equal_tokens, side
from gsi.report.paired import by_questions, by_seeds
from gsi.report.read import read_run
from gsi.report.tally import Tally
from gsi.report.words import accuracy

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two arms with two seeds each."""
    root = tmp_path_factory.mktemp("runs")
    evaluate = {"validation": 0.2, "tasks": [{"name": "chain", "args": {"seed": 77, "per_level": 3}}]}
    for strategy in ("vanilla", "state_reset"):
        for seed in (1, 2):
            gsi.run(
                scripted.config(root / f"{strategy}-{seed}", strategy=strategy, seed=seed, evaluate=evaluate), reporter=Reporter("quiet")
            )
    return root


@contextmanager
def viewing(folder: Path):
    """`gsi view` in a process of its own; gives its port."""
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-m", "gsi", "view", str(folder), "--port", "0"], stderr=subprocess.PIPE, text=True, env=env
    ) as child:
        try:
            line = child.stderr.readline()
            yield int(re.search(r"http://127\.0\.0\.1:(\d+)/", line)[1])
        finally:
            child.send_signal(signal.SIGINT)
            child.wait(20)


@pytest.fixture(scope="module")
def port(runs):
    with viewing(runs) as port:
        yield port


def ask(port: int, path: str, method: str = "GET", **headers: str) -> tuple[int, str, http.client.HTTPMessage]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    found = answer.status, answer.read().decode(), answer.headers
    connection.close()
    return found


def test_runs_are_listed_and_shown(port):
    status, page, headers = ask(port, "/")
    assert status == 200
    assert sorted(re.findall(r'href="/run/([^"]+)"', page)) == ["state_reset-1", "state_reset-2", "vanilla-1", "vanilla-2"]
    assert "script-src 'self'" in headers["Content-Security-Policy"]
    status, page, _ = ask(port, "/run/state_reset-1")
    assert status == 200
    assert 'data-source="/samples/state_reset-1"' in page
    assert 'data-live="/live/state_reset-1"' in page
    for script in re.findall(r'<script src="([^"]+)"', page):
        assert ask(port, script)[0] == 200
    assert "runs side by side" in ask(port, "/compare?run=vanilla-1&run=state_reset-1")[1]


def test_all_rollouts_can_be_paged_and_filtered(runs, port):
    with sqlite3.connect(runs / "state_reset-1" / "ledger.sqlite") as db:
        (total,) = db.execute("select count(*) from rollouts").fetchone()
        (hard,) = db.execute("select count(*) from rollouts where level = 9 and correct and guidance like 'state_reset%'").fetchone()
    seen, page = set(), 0
    while True:
        got = json.loads(ask(port, f"/samples/state_reset-1?sort=question&page={page}")[1])
        assert got["count"] == total
        assert (got["page"], len(got["rows"])) == (page, min(25, total - 25 * page))
        seen |= {(r["query"], r["iteration"], r["attempt"]) for r in got["rows"]}
        page += 1
        if 25 * page >= total:
            break
    assert len(seen) == total
    got = json.loads(ask(port, "/samples/state_reset-1?level=9&verdict=accepted&guidance=state_reset")[1])
    assert got["count"] == hard > 0
    assert all(r["accepted"] and r["given"] and r["gold"] == r["extracted"] for r in got["rows"])
    name = got["rows"][0]["query"]
    assert json.loads(ask(port, f"/samples/state_reset-1?text={name.upper()}")[1])["count"] > 0
    assert json.loads(ask(port, "/samples/state_reset-1?text=nowhere%20at%20all")[1]) == {"count": 0, "page": 0, "size": 25, "rows": []}
    choices = json.loads(ask(port, "/samples/state_reset-1?choices=1")[1])
    assert choices["guidance"] == ["plain", "state_reset"]
    assert json.loads(ask(port, "/samples/state_reset-1?page=100000")[1])["rows"], "the last page"


@pytest.mark.parametrize(
    ("path", "method", "headers", "status"),
    [
        ("/", "GET", {"Host": "evil.test"}, 400),
        ("/run/vanilla-1", "GET", {"Host": "127.0.0.1.evil.test"}, 400),
        ("/samples/vanilla-1", "GET", {"Host": "evil.test:8765"}, 400),
        ("/", "GET", {"Host": "localhost"}, 200),
        ("/run/../../../../etc/passwd", "GET", {}, 404),
        ("/run/%2e%2e/%2e%2e/etc/passwd", "GET", {}, 404),
        ("/static/../view.py", "GET", {}, 404),
        ("/static/%2e%2e%2fview.py", "GET", {}, 404),
        ("/samples//etc/passwd", "GET", {}, 404),
        ("/live/vanilla-1/../vanilla-2", "GET", {}, 404),
        ("/run/none", "GET", {}, 404),
        ("/compare?run=vanilla-1", "GET", {}, 400),
        ("/compare?run=vanilla-1&run=none", "GET", {}, 404),
        ("/samples/vanilla-1?level=x", "GET", {}, 400),
        ("/samples/vanilla-1?level=99999999999999999999", "GET", {}, 400),
        ("/samples/vanilla-1?sort=id;drop%20table%20rollouts", "GET", {}, 200),
        ("/run/vanilla-1", "POST", {}, 405),
        ("/run/vanilla-1", "DELETE", {}, 405),
    ],
)
def test_what_is_refused(port, path, method, headers, status):
    assert ask(port, path, method, **headers)[0] == status


def test_looking_changes_nothing(runs, tmp_path):
    shutil.copytree(runs / "vanilla-1", tmp_path / "runs" / "one")

    def state():
        files = sorted(
            p
            for p in (tmp_path / "runs").rglob("*")
            if p.is_file() and p.suffix not in (".sqlite-wal", ".sqlite-shm") and not p.name.endswith(("-wal", "-shm"))
        )
        return {p: hashlib.sha256(p.read_bytes()).hexdigest() for p in files}

    before = state()
    with viewing(tmp_path / "runs") as port:
        for path in ("/", "/run/one", "/live/one", "/samples/one?text=a"):
            assert ask(port, path)[0] == 200
    assert state() == before


def test_a_run_at_work_is_followed(runs, tmp_path):
    shutil.copytree(runs / "vanilla-1", tmp_path / "run")
    state = json.loads((tmp_path / "run" / "run.json").read_text())
    state["stages"] = {k: v for k, v in state["stages"].items() if not k.startswith("iter_2") and k != "test"}
    (tmp_path / "run" / "run.json").write_text(json.dumps(state))
    ledger = Ledger(tmp_path / "run" / "ledger.sqlite")
    row = next(ledger.rows())
    with viewing(tmp_path / "run") as port:
        first = json.loads(ask(port, "/live/run")[1])
        assert (first["state"], first["stage"], first["iteration"]) == ("stopped", "iter_2/sample", 2)
        ledger.add(
            [
                replace(row, query_id="new", iteration=1, attempt=i, correct=i == 0, status="correct" if i == 0 else "wrong")
                for i in range(7)
            ]
        )
        second = json.loads(ask(port, "/live/run")[1])
        assert second["rollouts"] - first["rollouts"] == 7
        assert second["covered"] - first["covered"] == 1
        assert second["latest"][0]["query"] == "new"
        ledger.archive(1, None, "2026-01-01")  # the stage is redone: rows go away, others take their numbers
        ledger.add([replace(row, query_id=f"again-{i}", iteration=1, attempt=0, correct=True, status="correct") for i in range(3)])
        third = json.loads(ask(port, "/live/run")[1])
        assert (third["rollouts"], third["covered"]) == (3, 3)
    ledger.close()


def test_what_cannot_be_viewed_is_refused(runs, port, tmp_path, capsys):
    assert main(["view", str(tmp_path / "none")]) == 2
    assert main(["view", str(tmp_path)]) == 2
    assert main(["view", str(runs), "--port", str(port)]) == 2
    said = capsys.readouterr().err
    for words in ("no such folder", "holds no run", "choose another --port"):
        assert words in said


def test_a_refreshed_tally_equals_a_new_one(runs, tmp_path):
    shutil.copytree(runs / "state_reset-1", tmp_path / "run")
    ledger = Ledger(tmp_path / "run" / "ledger.sqlite")
    row = next(ledger.rows())
    with Tally(tmp_path / "run", "answer") as old:
        for i in range(3):
            ledger.add([replace(row, query_id=f"new-{i}", attempt=a) for a in range(5)])
            old.refresh()
            with Tally(tmp_path / "run", "answer") as new:
                everything = "SELECT * FROM slim ORDER BY id"
                assert old(everything) == new(everything)
    ledger.close()


# --------------------------------------------------------------------------------------- comparing


def test_compare_prints_paired_differences_and_equal_tokens(runs, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "240")
    assert main(["compare", *(str(runs / name) for name in ("vanilla-1", "vanilla-2", "state_reset-1", "state_reset-2"))]) == 0
    out = capsys.readouterr().out
    answers = {}
    for name in ("vanilla-1", "state_reset-1"):
        with sqlite3.connect(runs / name / "ledger.sqlite") as db:
            answers[name] = dict(
                db.execute("select query_id, correct from evaluations where split = 'test' and iteration = 2 and attempt = 0")
            )
    a, b = answers["vanilla-1"], answers["state_reset-1"]
    row = next(line for line in out.split("same questions")[1].splitlines() if "state_reset-1" in line and " all " in line)
    assert f"{sum(b.values()) / len(b) - sum(a.values()) / len(a):+.1%}" in row
    assert str(sum(b[q] and not a[q] for q in a)) in row
    assert "At equal tokens" in out
    assert "Test accuracy on the same" in out
    assert "Paired by seed" in out
    assert "state_reset-1 - vanilla-1" in out


def test_the_model_trained_by_then_is_named_where_only_the_last_one_was_tested(runs):
    """Test sets are read at the end; in between there is the validation split, and not the untrained base."""
    split = set()
    for names in itertools.combinations(("vanilla-1", "vanilla-2", "state_reset-1", "state_reset-2"), 2):
        views = [read_run(runs / name) for name in names]
        tallies = [Tally(runs / name, "answer") for name in names]
        found = at_equal_tokens([side(name, view, tally) for name, view, tally in zip(names, views, tallies, strict=True)])
        spent = [list(itertools.accumulate(line.get("sample/tokens", 0) for line in view.metrics)) for view in views]
        assert found.tokens == min(tokens[-1] for tokens in spent)
        trained = [max(n for n, end in enumerate(tokens) if end <= found.tokens) for tokens in spent]
        assert [n for _, _, n, _ in found.runs] == trained
        tested = all(accuracy(view, n, "test") for view, n in zip(views, trained, strict=True))
        assert found.split == ("test" if tested else "validation")
        split.add(found.split)
        rates = [accuracy(view, n, found.split)[0] for view, n in zip(views, trained, strict=True)]
        assert [rate for *_, rate in found.runs] == rates
    assert "validation" in split


def test_paired_by_question():
    a = dict.fromkeys(range(100), False) | dict.fromkeys(range(40), True)
    b = dict.fromkeys(range(100), False) | dict.fromkeys(range(10, 60), True)
    d = by_questions(a, b)
    assert (d.n, d.only_a, d.only_b) == (100, 10, 20)
    assert d.value == pytest.approx(0.1)
    # p = 21/102 and 11/102: their difference .09804, its variance (.31373 - .00961) / 102
    assert (d.low, d.high) == (pytest.approx(-0.00898, abs=1e-4), pytest.approx(0.20506, abs=1e-4))
    assert by_questions(a, {}) is None
    assert by_questions({1: True, 2: False, 3: True}, {1: True, 3: False}).n == 2, "only what both have"


def first_right(request, model):
    """Of a trained model's samples the first is right; of the base's all."""
    return f"The answer is {777 if request.iteration and request.attempt else request.query.answer}"


def first_wrong(request, model):
    return f"The answer is {777 if request.iteration and not request.attempt else request.query.answer}"


@pytest.fixture(scope="module")
def sampled(tmp_path_factory):
    """Runs on two tasks whose accuracy is the mean over samples: 3 of 4 are right, 1 of 4, 3 of 4 of most; and one that is greedy."""
    root = tmp_path_factory.mktemp("sampled")
    for task, n in (("gsm8k", 80), ("svamp", 60)):
        rows = [{"question": f"What is {i} + 1, {task}?", "answer": str(i + 1)} for i in range(n)]
        (root / f"{task}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, function, k in (("a", f"{__file__}:first_wrong", 4), ("b", f"{__file__}:first_right", 4), ("mixed", f"{scripted.HERE}:tell", 4), ("greedy", f"{scripted.HERE}:tell", 0)):  # fmt: skip
        config = scripted.config(
            root / name, iterations=1, tasks=[{"name": t, "path": str(root / f"{t}.jsonl")} for t in ("gsm8k", "svamp")], engine={"kind": "scripted", "function": function},
            evaluate={"validation": 60, "avg_at_k": k}, sample={"k": 1, "wanted": 1}, train={"kind": "scripted", "function": f"{scripted.HERE}:make_folder"},
        )  # fmt: skip
        gsi.run(config, reporter=Reporter("quiet"))
    return root


def shares(run: Path) -> dict[tuple[str, str], float]:
    with sqlite3.connect(run / "ledger.sqlite") as db:
        found = db.execute(
            "select task, query_id, avg(correct) from evaluations where split = 'validation' and iteration = 1 group by 1, 2"
        )
        return {(task, q): share for task, q, share in found}


def test_runs_that_are_evaluated_by_samples_are_compared_by_their_means(sampled, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "240")
    assert main(["compare", *(str(sampled / name) for name in ("a", "b", "mixed"))]) == 0
    said = capsys.readouterr().out
    found = {name: shares(sampled / name) for name in ("a", "b", "mixed")}
    n = len(found["a"])
    d = by_questions(found["a"], found["mixed"])
    assert d.value == pytest.approx((sum(found["mixed"].values()) - sum(found["a"].values())) / n)
    assert d.low < d.value < d.high
    assert f"on the same {n} questions, against a: b -50.0 points (95 %: " in said
    assert f"; mixed {100 * d.value:+.1f} points (95 %: {100 * d.low:+.1f} to {100 * d.high:+.1f})." in said
    assert "-50.0 points (95 %: -50.0 to -50.0)" not in said, "the interval has a width where all differences are equal"
    row = next(line for line in said.split("same questions")[1].splitlines() if "mixed" in line)
    assert [int(cell) for cell in re.findall(r"│ +(\d+) +(?=│)", row)] == [n, d.only_b, d.only_a]
    assert "it solves more often" in said
    assert "Accuracy is the mean over samples per question (evaluate.avg_at_k)." in said
    assert "two kinds of accuracy" not in said
    assert main(["compare", str(sampled / "a"), str(sampled / "greedy")]) == 0
    assert "(evaluate.avg_at_k) of a, and greedy of the others: two kinds of accuracy." in capsys.readouterr().out


def test_means_over_samples_are_shown_with_their_own_interval(sampled, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "240")
    for name in ("a", "mixed"):
        run = sampled / name
        results = json.loads((run / "iter_1" / "eval.json").read_text())["validation"]
        assert main(["report", str(run), "--output", str(tmp_path / f"{name}.html")]) == 0
        page = (tmp_path / f"{name}.html").read_text()
        assert "Greedy decoding" not in page
        assert "Mean over 4 samples per question" in page
        assert main(["push", str(run), "--to", str(tmp_path / f"{name}-out")]) == 0
        card = (tmp_path / f"{name}-out" / "model" / "README.md").read_text()
        assert "the mean over 4 samples per question" in card
        for task, r in results.items():
            low, high = r["interval"]
            assert low < r["pass@1"] < high, "also where all questions have the same mean"
            assert f"{low:.1%} to {high:.1%}" in page
            assert f"| {task} | validation | iteration 1 | {r['pass@1']:.1%} | {low:.1%} to {high:.1%} | {r['n']} |" in card
        measured = accuracy(read_run(run), 1)
        assert measured.low < measured.rate < measured.high
        if name == "a":  # both tasks have the same mean
            assert max(r["interval"][0] for r in results.values()) < measured.low, "two tasks say more than one"
        capsys.readouterr()
        assert main(["compare", str(run), str(sampled / "b")]) == 0
        assert f"{measured.rate:.1%} ({measured.low:.1%} to {measured.high:.1%})" in capsys.readouterr().out
    assert main(["report", str(sampled / "greedy"), "--output", str(tmp_path / "greedy.html")]) == 0
    assert "Greedy decoding." in (tmp_path / "greedy.html").read_text()


def test_a_mean_over_samples_that_was_written_without_a_width_gets_one(sampled, tmp_path):
    shutil.copytree(sampled / "a", tmp_path / "old")
    path = tmp_path / "old" / "iter_1" / "eval.json"
    found = json.loads(path.read_text())
    for r in found["validation"].values():
        r["interval"] = [r["pass@1"], r["pass@1"]]
    path.write_text(json.dumps(found))
    measured = accuracy(read_run(tmp_path / "old"), 1)
    assert measured.low < measured.rate == 0.75 < measured.high


def test_paired_by_seed():
    d = by_seeds([0.02, 0.04, 0.03, 0.05, 0.01])
    assert d.value == pytest.approx(0.03)
    assert (d.low, d.high) == (pytest.approx(0.01037, abs=1e-4), pytest.approx(0.04963, abs=1e-4))
    assert d.p == 2 / 32, "the smallest that five seeds can give"
    assert by_seeds([0.02, -0.02]).p == 1
    assert by_seeds([0.3]).low is None
    assert by_seeds([]) is None


def test_status_says_where_a_run_is(runs, capsys):
    assert main(["status", str(runs / "state_reset-1")]) == 0
    out = capsys.readouterr().out
    assert "stages done: 11 of 11; finished" in out
    assert "hard share" in out


def test_progress_events_are_json_with_figures(tmp_path, capsys):
    gsi.run(scripted.config(tmp_path / "run", iterations=1), reporter=Reporter("json"))
    events = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    sampled = [e for e in events if e["event"] == "progress" and e["stage"] == "sample"]
    last = sampled[-1]
    line = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert (last["iteration"], last["done"], last["total"]) == (1, 32, 32)
    assert (last["accepted"], last["tokens"], last["coverage"]) == (line["sample/accepted"], line["sample/tokens"], line["tail/coverage"])
    assert {"tokens_per_s", "seconds", "seconds_left", "time"} <= set(last)
    stages = [(e["iteration"], e["stage"], e["state"]) for e in events if e["event"] == "stage"]
    assert [s for s in stages if s[0] == 1] == [
        (1, name, state) for name in ("sample", "train", "evaluate") for state in ("started", "done")
    ]


def test_progress_lines_say_what_is_left(capsys):
    reporter = Reporter("lines", every=0.0)
    with reporter.stage("iteration 1: sample (vanilla)", 4) as update:
        for done in range(5):
            update(done, {"accepted": 2 * done, "coverage": 0.5, "tokens": 1000 * done, "tokens_per_s": 10.0})
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1] == "iteration 1: sample (vanilla): 4/4 8 accepted, 50% covered, 4,000 tokens, 10/s"
    assert re.search(r"2/4 .* left$", lines[2])


def test_bars_show_stage_iteration_figures_and_time_left(tmp_path):
    reporter = Reporter("bars")
    reporter.console = Console(file=io.StringIO(), force_terminal=True, width=170)  # a terminal, whose text we keep
    gsi.run(scripted.config(tmp_path / "run", strategy="state_reset", iterations=1), reporter=reporter)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", reporter.console.file.getvalue())
    line = next(x for x in reversed(re.split(r"[\r\n]+", text)) if x.startswith("iteration 1: sample (state_reset)"))
    assert re.search(r" (\d+)/\1 0:00:\d\d (0:00:\d\d|-:--:--) [\d,]+ accepted, \d+% covered, [\d,]+ tokens.*/s", line), line
    assert re.search(r"iteration 1: train", text)
