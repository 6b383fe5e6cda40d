"""Large things: responses of 10 MB, rationales of 1 MB, files larger than what is used of them. Memory of long runs: tests/long_run.py."""

import json
import os
import resource
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import scripted
import yaml

from gsi.cli import main
from gsi.types import Query
from gsi.verify import make_grader

HERE = Path(__file__).parent
ENV = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
LARGE = 10_000_000  # characters


def responds(request, model):
    """One response of 10 MB in the whole run; the others are the reference."""
    if request.query.id == "q1" and request.attempt == 0 and request.iteration == 0 and request.sampling.temperature:
        return "Let me think about apples. " * (LARGE // 27) + "\nThe answer is 4"
    return request.query.rationale[len(request.given.text) :]


@pytest.mark.torture
@pytest.mark.timeout(1800)
def test_a_response_of_10_mb_and_a_rationale_of_1_mb_are_data_like_any_other(tmp_path):
    """In a process whose memory is bounded, so that something that grows with the square of a text would end it."""
    long = "One more apple: 1 + 1 = 2.\n" * 37_000  # 1 MB
    rows = [
        {"id": f"q{i}", "question": f"{i} plus 3?", "answer": str(i + 3), "rationale": f"{long if i == 2 else ''}The answer is {i + 3}"}
        for i in range(8)
    ]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    config = scripted.config(
        tmp_path / "run", iterations=1, strategy="state_reset", tasks=[{"name": "gsm8k", "path": str(tmp_path / "data.jsonl")}], sample={"k": 1, "wanted": 1},
        engine={"kind": "scripted", "function": f"{HERE / 'test_large.py'}:responds"}, train={"kind": "scripted", "function": f"{HERE / 'scripted.py'}:make_folder"}, evaluate={"validation": 0},
    )  # fmt: skip
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "gsi", "run", str(tmp_path / "config.yaml"), "--log", "quiet"]
    done = subprocess.run(
        command,
        env=ENV,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (4 << 30,) * 2),
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = dict(
        sqlite3.connect(tmp_path / "run" / "ledger.sqlite")
        .execute("select query_id, max(length(response)) from rollouts group by 1")
        .fetchall()
    )
    assert found["q1"] > LARGE - 100
    assert found["q2"] > 999_000
    assert (tmp_path / "run" / "report.html").stat().st_size < 20_000_000
    assert main(["doctor", str(tmp_path / "run")]) == 0


def test_what_is_too_long_for_the_pipe_to_a_worker_comes_through_whole(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    grader = make_grader({"mine": f"{HERE / 'own_check.py'}:reads_it_all"}, workers=1, timeout=60)
    try:
        query = Query("q", "mine", "?", "a", rationale="ü" * 1_000_000, options=("ä", "b"))
        verdicts = [grader.submit(query, "x" * n) for n in (15_000, 14_999)]
        assert [v.result().status for v in verdicts] == ["correct", "wrong"]
    finally:
        grader.close()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("sizes", [(20, 120)])
def test_memory_does_not_grow_with_a_file_but_with_what_is_used_of_it(sizes):
    """2,000 rows with a column that nobody asks for, of 10 and of 60 kB."""

    def peak(megabytes: int) -> int:
        command = [sys.executable, str(HERE / "long_run.py"), "--file", str(megabytes)]
        return json.loads(subprocess.run(command, env=ENV, capture_output=True, text=True, check=True).stdout)["peak_mib"]

    small, large = map(peak, sizes)
    assert large < small + 20, f"{small} MiB for {sizes[0]} MB, {large} MiB for {sizes[1]} MB"
