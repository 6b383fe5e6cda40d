"""How often the tail monitor is wrong, and what it sees: false alarms over simulated null runs, power on lab ledgers with rows removed.

    python -m gsi.lab.monitor_check tests/lab_ledgers.json            the figures of docs/curation.md
    python -m gsi.lab.monitor_check tests/lab_ledgers.json --tune     the threshold, on the tuning ledger and seeds
    python -m gsi.lab.monitor_check FILE --pack NAME=RUN ...          adds run folders of lab tasks to such a file

Null runs: nothing changes from iteration to iteration but luck. Each draws queries, their rates (from a lab ledger's counts by level), a
policy, a number of iterations (3 to 6), numbers of paths and row lengths. Power: in a real ledger, accepted attempts at hard queries are
removed at a stated rate from one iteration on, as if they had not been solved, and the run's monitor is asked.
"""

from __future__ import annotations

import argparse
import base64
import json
import random
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from gsi import monitor
from gsi.allocation.belief import prior
from gsi.lab.chain import HARD_LEVELS
from gsi.ledger import connect
from gsi.metrics import PLAIN, accepted_sql, wilson
from gsi.monitor import THRESHOLD, Change, Seen, changes, worst
from gsi.tasks import TASKS

LEAST = 0.05  # monitor.least
TUNING = ("null1", range(10_000, 10_500))  # ledger and seeds that the threshold was tuned on
REPORTED = ("null3", range(1000, 1500))  # others than before 3.2 became 3.0
RATES = (0.1, 0.2, 0.3, 0.5, 0.8)  # of hard rows removed
Run = list[dict[str, Seen]]


def run_changes(run: Run, hard: set[str], nll: Sequence[tuple[float, float, int]] | None = None) -> list[dict[str, Change]]:
    """What the monitor measures in a run: the worst comparison by figure, for iterations 2, 3, ..."""
    found = []
    for n in range(1, len(run)):
        history = [changes(run[m], run[n], hard, (nll[m], nll[n]) if nll else None) for m in sorted({0, n - 1})]
        found.append(worst(history))
    return found


def alarms(run: Run, hard: set[str], threshold: float, nll: Sequence[tuple[float, float, int]] | None = None) -> set[str]:
    return {c.figure for of in run_changes(run, hard, nll) for c in of.values() if c.alarm(threshold, LEAST)}


# --------------------------------------------------------------------------------------- null runs


def null_run(ledger: Run, seed: int) -> tuple[Run, set[str], list[tuple[float, float, int]]]:
    """(iterations, hard queries, perplexity figures) of a run in which every rate stays as it is."""
    rng = random.Random(f"null/{seed}")
    counts: dict[str, list[tuple[int, int]]] = {}
    for s in ledger[0].values():
        counts.setdefault(s.level, []).append((s.plain_right, s.plain - s.plain_right))
    shapes = {level: prior(of) for level, of in counts.items()}
    per_level, iterations = rng.choice((10, 20, 40, 80)), rng.randint(3, 6)
    policy, help_ = rng.choice(("fixed", "quota", "until")), rng.uniform(0, 0.6)
    k, wanted, cap = rng.choice((4, 8, 16)), rng.choice((2, 4)), rng.choice((0, 0, 4))
    worlds = []
    for level, shape in shapes.items():
        for i in range(per_level):
            p = rng.betavariate(*shape)
            worlds.append((f"{level} {i}", level, p, p + (1 - p) * help_ * rng.random(), rng.randint(1, 6)))
    run = [{q: _drawn(rng, level, p, g, paths, policy, k, wanted, cap) for q, level, p, g, paths in worlds} for _ in range(iterations)]
    mean, sd = rng.uniform(0.5, 2), rng.uniform(0.2, 0.8)
    nll = []
    for _ in range(iterations):
        draws = [rng.gauss(mean, sd) for _ in range(128)]
        m = sum(draws) / 128
        nll.append((m, (sum((d - m) ** 2 for d in draws) / 128) ** 0.5, 128))
    return run, {q for q, level, *_ in worlds if _level(level) in HARD_LEVELS}, nll


def _drawn(rng: random.Random, level: str, p: float, g: float, paths: int, policy: str, k: int, wanted: int, cap: int) -> Seen:
    plain = right = guided = guided_right = 0
    while plain < k and not (policy == "until" and right >= wanted):
        plain, right = plain + 1, right + (rng.random() < p)
    while policy == "quota" and guided < 8 and right + guided_right < wanted:
        guided, guided_right = guided + 1, guided_right + (rng.random() < g)
    accepted = right + guided_right
    rows = min(accepted, cap) if cap else accepted
    differ = monitor.differ(Counter(min(rng.randrange(paths), rng.randrange(paths)) for _ in range(accepted)).values())
    tokens = sum(7 * _level(level) + 2 + rng.randint(-2, 2) for _ in range(rows))
    return Seen(level, plain, right, guided, guided_right, differ, rows, tokens)


def _level(level: str) -> int:
    return int(level.split()[-1])


# --------------------------------------------------------------------------------------- lab ledgers


def removed(run: Run, hard: set[str], rate: float, since: int, seed: int) -> Run:
    """The run with accepted attempts at hard queries, and their rows, removed at `rate` from iteration `since` (from 0) on."""
    rng = random.Random(f"removed/{seed}")
    found = []
    for n, iteration in enumerate(run):
        kept = dict(iteration)
        for q in sorted(hard) if n >= since else ():
            s = kept[q]
            right, guided_right = (sum(rng.random() >= rate for _ in range(x)) for x in (s.plain_right, s.guided_right))
            rows = right + guided_right
            kept[q] = replace(
                s,
                plain_right=right,
                guided_right=guided_right,
                rows=rows,
                tokens=rows * (s.tokens // max(s.rows, 1)),
            )
        found.append(kept)
    return found


def pack(runs: dict[str, Path]) -> dict[str, Any]:
    """Counts of runs with k plain attempts per query and iteration: per query and iteration accepted plain, guided, accepted guided attempts; a few kB each."""
    found = {}
    for name, path in runs.items():
        with connect(path / "ledger.sqlite", read_only=True) as db:
            good = accepted_sql("steps")
            (task,) = db.execute("SELECT DISTINCT task FROM rollouts").fetchone()
            rows = db.execute(
                f"SELECT iteration, query_id, level, sum({PLAIN}), sum({PLAIN} AND {good}), sum(NOT {PLAIN}), sum(NOT {PLAIN} AND {good}) "
                "FROM rollouts GROUP BY iteration, query_id ORDER BY iteration, level, query_id"
            ).fetchall()
        levels = [r[2] for r in rows if r[0] == 0]
        data = bytes(x for r in rows for x in r[4:])
        found[name] = {
            "task": task,
            "k": rows[0][3],
            "levels": {str(x): levels.count(x) for x in sorted(set(levels))},
            "counts": base64.b85encode(zlib.compress(data, 9)).decode(),
        }
    return found


def unpack(packed: dict[str, Any]) -> tuple[Run, set[str]]:
    """(iterations, hard queries) of one run; rows are the accepted attempts, one path each and as long as those of chain."""
    task = packed.get("task", "chain")
    levels = [int(level) for level, count in packed["levels"].items() for _ in range(count)]
    data = zlib.decompress(base64.b85decode(packed["counts"]))
    run: Run = []
    for at in range(0, len(data), 3 * len(levels)):
        iteration = {}
        for i, level in enumerate(levels):
            right, guided, guided_right = data[at + 3 * i : at + 3 * i + 3]
            rows = right + guided_right
            iteration[f"q{i}"] = Seen(
                f"{task} {level}", packed["k"], right, guided, guided_right, 0.0 if rows > 1 else None, rows, rows * (7 * level + 2)
            )
        run.append(iteration)
    return run, {f"q{i}" for i, level in enumerate(levels) if level in TASKS[task].hard_levels}


# --------------------------------------------------------------------------------------- figures


def false_alarms(ledger: Run, seeds: Sequence[int], threshold: float) -> dict[str, Any]:
    """Null runs with an alarm, by figure and in all, with a 95 % interval."""
    found = [alarms(run, hard, threshold, nll) for run, hard, nll in (null_run(ledger, seed) for seed in seeds)]
    wrong = sum(map(bool, found))
    return {"runs": len(found), "with_alarm": wrong, "share": wrong / len(found), "interval": wilson(wrong, len(found)),
            "by_figure": {f: n for f in sorted(set().union(*found)) if (n := sum(f in a for a in found))}}  # fmt: skip


def power(run: Run, hard: set[str], threshold: float, times: int = 100) -> dict[str, float]:
    """Share of `times` random removals with an alarm for a figure that raises none in the untouched run, by rate of removal.

    Removal begins in the second, third or last iteration.
    """
    anyway = alarms(run, hard, threshold)
    return {
        str(rate): sum(bool(alarms(removed(run, hard, rate, 1 + i % (len(run) - 1), i), hard, threshold) - anyway) for i in range(times))
        / times
        for rate in (0.0, *RATES)
    }


def tune(ledger: Run, seeds: Sequence[int], wanted: float = 0.04) -> float:
    """The threshold, to one decimal, with which at most this share of null runs has an alarm."""
    highest = []
    for run, hard, nll in (null_run(ledger, seed) for seed in seeds):
        highest.append(max((c.z for of in run_changes(run, hard, nll) for c in of.values() if c.size > LEAST), default=0.0))
    return next(t / 10 for t in range(10, 100) if sum(z > t / 10 for z in highest) <= wanted * len(highest))


def main() -> None:
    parser = argparse.ArgumentParser(description="False alarms and power of the tail monitor.")
    parser.add_argument("ledgers", type=Path)
    parser.add_argument("--tune", action="store_true")
    parser.add_argument("--pack", nargs="+", metavar="NAME=RUN")
    args = parser.parse_args()
    if args.pack:
        packed = json.loads(args.ledgers.read_text(encoding="utf-8")) if args.ledgers.exists() else {}
        packed |= pack({name: Path(path) for name, _, path in (x.partition("=") for x in args.pack)})
        args.ledgers.write_text(json.dumps(packed, indent=1) + "\n", encoding="utf-8")
        return
    ledgers = {name: unpack(packed) for name, packed in json.loads(args.ledgers.read_text(encoding="utf-8")).items()}
    if args.tune:
        print(json.dumps({"threshold": tune(ledgers[TUNING[0]][0], TUNING[1]), "power": power(*ledgers[TUNING[0]], THRESHOLD)}))
        return
    print(json.dumps({"threshold": THRESHOLD, "null": false_alarms(ledgers[REPORTED[0]][0], REPORTED[1], THRESHOLD)}))
    for name, (run, hard) in ledgers.items():
        print(json.dumps({"ledger": name, "alarms_as_it_is": sorted(alarms(run, hard, THRESHOLD)), "power": power(run, hard, THRESHOLD)}))


if __name__ == "__main__":
    main()
