"""`gsi bench report`: seconds, peak memory and size of a report over a made-up run of many rollouts.

    gsi bench report                 100,000 rollouts
    python -m gsi.bench.report N     N of them

Building the run folder is not counted. The report is made in a process of its own, so that its peak memory is its own.
"""

from __future__ import annotations

import json
import random
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gsi.ledger import COLUMNS, Ledger

ITERATIONS, LEVELS, PER_QUERY = 4, 10, 10
_TIMED = """
import json, resource, sys, time
from pathlib import Path
started = time.perf_counter()
from gsi.report.html import write_report
path = write_report([Path(sys.argv[1])], Path(sys.argv[2]))
used = resource.getrusage(resource.RUSAGE_SELF)  # ru_maxrss in kB
print(json.dumps({"seconds": round(time.perf_counter() - started, 2), "cpu_seconds": round(used.ru_utime + used.ru_stime, 2), "peak_mb": round(used.ru_maxrss / 1024, 1), "bytes": path.stat().st_size}))
"""


def report(rollouts: int = 100_000) -> dict[str, Any]:
    """The line that the command prints: `seconds`, `peak_mb`, `bytes` of the report; beside them what a busy machine blurs less, `cpu_seconds`, and `rollouts`."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        build_run(run, rollouts)
        out = subprocess.run(
            [sys.executable, "-c", _TIMED, str(run), str(Path(folder) / "report.html")],
            capture_output=True,
            text=True,
            encoding="utf-8",
            check=True,
        )
    return json.loads(out.stdout) | {"rollouts": rollouts}


def build_run(run: Path, rollouts: int, words: tuple[int, int] = (40, 110)) -> None:
    """A finished run as files: word problems with responses of so many words (least, most), easy levels solved, hard ones guided."""
    run.mkdir(parents=True)
    ledger = Ledger(run / "ledger.sqlite")
    ledger.close()
    per_iteration = rollouts // ITERATIONS
    queries = max(1, per_iteration // PER_QUERY)
    with sqlite3.connect(run / "ledger.sqlite", isolation_level=None) as db:
        db.execute("PRAGMA synchronous=OFF")
        db.execute("BEGIN")
        marks = ", ".join("?" * len(COLUMNS))
        db.executemany(f"INSERT INTO rollouts ({', '.join(COLUMNS)}) VALUES ({marks})", _rows(rollouts, queries, words))
        db.executemany(
            "INSERT INTO queries VALUES ('train', ?, 'made', ?, ?, ?, ?, NULL)",
            (
                (f"q{q}", 1 + q % LEVELS, f"Question {q}?", str(q % 97), f"First we add. Then we multiply. The answer is {q % 97}.")
                for q in range(queries)
            ),
        )
        db.execute("COMMIT")
        good = dict(db.execute("SELECT iteration, sum(correct) FROM rollouts GROUP BY iteration"))
        tokens = dict(db.execute("SELECT iteration, sum(generated_tokens) FROM rollouts GROUP BY iteration"))
    db.close()
    lines = [
        {"iteration": n, "sample/rollouts": per_iteration, "sample/accepted": good[n - 1], "sample/tokens": tokens[n - 1], "sample/queries": queries, "train/rows": good[n - 1]}
        | {f"tail/coverage/level_{x}": max(0.1, 1 - x / 12) for x in range(1, LEVELS + 1)} | {f"tail/share/level_{x}": (11 - x) / 55 for x in range(1, LEVELS + 1)}
        | {f"tail/query_share/level_{x}": 1 / LEVELS for x in range(1, LEVELS + 1)} | {"tail/coverage": 0.6, "tail/hard_share": 0.2, "tail/query_hard_share": 0.4}
        for n in range(1, ITERATIONS + 1)
    ]  # fmt: skip
    stages = {f"iter_{n}/{s}": {"state": "done"} for n in range(ITERATIONS + 1) for s in ("sample", "curate", "train")}
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    (run / "run.json").write_text(
        json.dumps({"stages": stages, "seed": 0, "parameters": 1_000_000, "clock": {"wall": 1000.0}}), encoding="utf-8"
    )
    (run / "config.yaml").write_text(
        f"model: made\nstrategy: state_reset\niterations: {ITERATIONS}\nsample: {{k: {PER_QUERY - 2}}}\ntasks: [{{name: made}}]\n",
        encoding="utf-8",
    )


def _rows(rollouts: int, queries: int, length: tuple[int, int]) -> Iterator[tuple[Any, ...]]:
    rng = random.Random(0)
    words = [
        "apples",
        "bread",
        "cars",
        "days",
        "each",
        "first",
        "gives",
        "hours",
        "into",
        "jars",
        "kilos",
        "left",
        "makes",
        "needs",
        "over",
        "pays",
        "queue",
        "rows",
        "sells",
        "then",
        "until",
        "values",
        "weeks",
        "years",
    ]
    made = 0
    for iteration in range(ITERATIONS):
        for attempt in range(PER_QUERY + 1):
            for q in range(queries):
                if made >= (iteration + 1) * rollouts // ITERATIONS:
                    break
                made += 1
                level = 1 + q % LEVELS
                guided = attempt >= PER_QUERY - 2
                right = rng.random() < max(0.02, 1 - level / 9 + 0.4 * guided)
                given = "First we add. " if guided else ""
                text = " ".join(rng.choices(words, k=rng.randint(*length)))
                response = f"{given}{text} $\\frac{{{q}}}{{{level}}}$ so the answer is {q % 97 if right else rng.randrange(97)}"
                row = {
                    "query_id": f"q{q}", "task": "made", "level": level, "iteration": iteration, "attempt": attempt, "strategy": "state_reset",
                    "guidance": f"state_reset:{rng.choice((2, 4, 6, 8)) / 10}" if guided else None, "prompt": f"Question {q}: {text[:150]}?", "given": given, "response": response,
                    "completion": response, "prompt_ids": None, "response_ids": json.dumps(list(range(len(text) // 4)), separators=(",", ":")), "prompt_tokens": 40, "given_tokens": 4 * guided,
                    "generated_tokens": len(text) // 4, "finish_reason": "stop", "seed": made, "model": f"iter_{iteration}/model", "status": "correct" if right else "wrong", "correct": int(right),
                    "steps_ok": None, "extracted": str(q % 97), "detail": "", "created_at": "2026-01-01T00:00:00.000+00:00",
                }  # fmt: skip
                yield tuple(row[c] for c in COLUMNS)


if __name__ == "__main__":
    print(json.dumps(report(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)))
