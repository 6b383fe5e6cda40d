"""What surrounds a run: a clock that jumps, locales and terminals that are not UTF-8, long and odd paths. Real processes, a real clock."""

import ast
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import scripted
import yaml
from test_loop import QUIET, dump, train_rows

import gsi
from gsi.cli import main

HERE = Path(__file__).parent
ENV = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
ODD = "Läufe von Zoë/数 #1 100%?x=y&z 'a' \"b\""  # spaces, non-ASCII, and what a URI or a shell would read as something else


def small(output: Path, **changes):
    return scripted.config(
        output, **{"tasks": [{"name": "chain", "args": {"seed": 1, "per_level": 2}}], "sample": {"k": 2, "wanted": 1}} | changes
    )


@pytest.fixture(scope="module")
def calm(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("calm") / "run"
    gsi.run(small(path), reporter=QUIET)
    return path


def equal(a: Path, b: Path) -> bool:
    return all(dump(a, t) == dump(b, t) for t in ("rollouts", "evaluations")) and all(train_rows(a, n) == train_rows(b, n) for n in (1, 2))


def command(config: Path, *more: str, **env: str) -> subprocess.CompletedProcess:
    arguments = [sys.executable, "-m", "gsi", "run", str(config), *more]
    return subprocess.run(arguments, env=ENV | env, capture_output=True, check=False)


def test_a_clock_that_jumps_changes_neither_seeds_nor_order_nor_resume(tmp_path, calm):
    if not shutil.which("cc"):
        pytest.skip("no C compiler here to build a clock that jumps")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(tmp_path / "clock.so"), str(HERE / "clock.c")], check=True)
    run = tmp_path / "run"
    gsi.run(small(run, iterations=1), reporter=QUIET)  # today; then years earlier, to and fro
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(small(run)))
    done = command(tmp_path / "config.yaml", "--log", "lines", LD_PRELOAD=str(tmp_path / "clock.so"), TZ="Europe/Berlin")
    assert done.returncode == 0, done.stderr
    assert equal(run, calm)
    times = [
        t for (t,) in sqlite3.connect(run / "ledger.sqlite").execute("select created_at from rollouts where iteration = 1 order by rowid")
    ]
    assert times != sorted(times), "the clock did jump"
    assert all(t.endswith("+00:00") for t in times)
    assert main(["doctor", str(run)]) == 0


# --------------------------------------------------------------------------------------- locales and terminals

# Python's own rescue of the C locale is off: as on a machine whose locale is neither UTF-8 nor C
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def test_any_locale_and_terminal_reads_and_writes_the_same_files(tmp_path):
    words = "Zoë kauft für 3 € „数“ – wie viele?"
    rows = [{"id": f"ä-{i}", "question": f"{words} {i} plus 1", "answer": str(i + 1)} for i in range(6)]
    (tmp_path / "Daten ä.jsonl").write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), encoding="utf-8")
    own = HERE / "own_check.py"
    config = small(
        tmp_path / "Läufe" / "数",
        iterations=1,
        tasks=[{"name": "größe", "path": str(tmp_path / "Daten ä.jsonl"), "check": f"{own}:check"}],
        engine={"kind": "scripted", "function": f"{own}:respond"},
        prompt={"template": "Frage: {question} → "},
        evaluate={"validation": 2},
    )
    (tmp_path / "config ä.yaml").write_text(yaml.safe_dump(config, allow_unicode=True), encoding="utf-8")
    done = command(tmp_path / "config ä.yaml", "--log", "lines", **ASCII)
    assert done.returncode == 0, done.stderr
    assert b"Traceback" not in done.stderr
    run = tmp_path / "Läufe" / "数"
    assert (run / "report.html").exists()
    drawn = sqlite3.connect(run / "ledger.sqlite").execute("select distinct query_id, prompt from rollouts").fetchall()
    assert drawn
    assert all(prompt == f"Frage: {words} {query_id[2:]} plus 1 → " for query_id, prompt in drawn)
    arguments = [sys.executable, "-m", "gsi", "status", str(run)]
    shown = subprocess.run(arguments, env=ENV | {"PYTHONIOENCODING": "latin-1"}, capture_output=True, check=True)
    assert "Läufe/\\u6570".encode("latin-1") in shown.stdout, "what the terminal lacks is an escape"
    line = json.dumps({"response": "Antwort für Zoë: The answer is 4", "answer": "4"}, ensure_ascii=False)
    arguments = [sys.executable, "-m", "gsi", "grade", "--task", "gsm8k"]
    graded = subprocess.run(arguments, input=line.encode(), env=ENV | ASCII, capture_output=True, check=True)
    assert json.loads(graded.stdout.decode("utf-8"))["response"] == "Antwort für Zoë: The answer is 4"


def test_standard_input_that_is_not_utf8_is_named():
    arguments = [sys.executable, "-m", "gsi", "grade", "--task", "gsm8k"]
    done = subprocess.run(arguments, input=b'{"response": "\xff", "answer": "4"}\n', env=ENV, capture_output=True, check=False)
    assert done.returncode == 2
    assert b"not valid UTF-8" in done.stderr


def test_no_text_is_read_or_written_in_the_locales_encoding():
    """Every text file and pipe of the package names its encoding."""
    found = []
    for path in sorted((HERE.parent / "gsi").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            given = {k.arg for k in node.keywords}
            values = [a.value for a in [*node.args, *(k.value for k in node.keywords)] if isinstance(a, ast.Constant)]
            binary = any(isinstance(v, str) and "b" in v and set(v) <= set("rwab+x") for v in values)
            method = isinstance(node.func, ast.Attribute)
            reads = (name == "read_text" and method) or (name == "open" and not binary and path.name != "program_worker.py")
            writes = name == "write_text" and method
            pipe = name in ("Popen", "run") and any(k.arg == "text" for k in node.keywords)
            elsewhere = method and ast.unparse(node.func) in ("os.open", "gzip.open", "webbrowser.open")
            if (reads or writes or pipe) and not elsewhere and "encoding" not in given:
                found.append(f"{path.relative_to(HERE.parent)}:{node.lineno} {ast.unparse(node)[:80]}")
    assert not found, "\n".join(found)


# --------------------------------------------------------------------------------------- paths


@pytest.mark.parametrize("kind", ["odd", "long"])
def test_odd_and_long_paths_work(tmp_path, calm, kind, capsys):
    folder = tmp_path / ODD
    if kind == "long":
        while len(os.fsencode(folder)) < 330:
            folder = folder / ("ü" * 60)
    run = folder / "run"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(small(run), allow_unicode=True), encoding="utf-8")
    assert main(["run", str(folder / "config.yaml"), "--log", "quiet"]) == 0, capsys.readouterr().err
    assert equal(run, calm)
    assert main(["doctor", str(run)]) == 0
    assert main(["status", str(run)]) == 0
    with (run / "ledger.sqlite").open("r+b") as f:
        f.write(b"no ledger at all")
    assert main(["doctor", str(run)]) == 0
    assert equal(run, calm)


def test_a_path_that_is_too_long_for_sqlite_is_refused_by_name(tmp_path, capsys):
    folder = tmp_path
    while len(os.fsencode(folder)) < 520:
        folder = folder / ("x" * 100)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(small(folder)))
    assert main(["run", str(tmp_path / "config.yaml"), "--log", "quiet"]) == 2
    err = capsys.readouterr().err
    assert "output_dir" in err
    assert "at most 504" in err
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(small(tmp_path / ("y" * 300))))
    assert main(["run", str(tmp_path / "config.yaml"), "--log", "quiet"]) == 2
    assert "output_dir" in capsys.readouterr().err
