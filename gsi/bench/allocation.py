"""`gsi bench allocation`: what each allocation policy spends for the coverage it reaches, where the pass rates are known.

    gsi bench allocation                    10 seeds, about a minute
    python -m gsi.bench.allocation SEED...  other seeds (the settings of `ARMS` were chosen on 101 to 103)

1,000 made-up queries of levels 1 to 10, four iterations. A query's log odds of a right attempt are its level's (a lab base's: 1 1 1 1
.82 .33 .05 .02 .02 .02, clipped at .99), plus its own deviation (normal, 1), plus 0.3 per iteration, as a model learns. No guidance; the policies
are the ones a run uses and see only graded attempts. Every arm of a seed has the same queries and the same luck.
"""

from __future__ import annotations

import json
import math
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from gsi.allocation import build
from gsi.config import load_config
from gsi.stats import t_interval
from gsi.types import Allocation, Query, Rollout, Tried

LEVEL_RATES = (0.99, 0.99, 0.99, 0.99, 0.82, 0.33, 0.05, 0.02, 0.02, 0.02)
PER_LEVEL, ITERATIONS, SPREAD, LEARNING = 100, 4, 1.0, 0.3
HARD = 7  # from this level on

BUDGET = {"k": 8, "max_extra": 4, "wanted": 1}
ARMS: dict[str, dict[str, Any]] = {
    "uniform k=8": {"allocation": {"kind": "fixed"}, "sample": {"k": 8}},
    "stop at 1, cap 8": {"allocation": {"kind": "dart_uniform"}, "sample": {"k": 8, "max_extra": 0, "wanted": 1}},
    "bayes for coverage": {"allocation": {"kind": "bayes"}, "sample": BUDGET},
    "bayes for coverage, skipping": {"allocation": {"kind": "bayes", "skip": 0.75}, "sample": BUDGET},
    "stop at 4, cap 8": {"allocation": {"kind": "dart_uniform"}, "sample": {"k": 8, "max_extra": 0, "wanted": 4}},
    "bayes for 4 rows": {"allocation": {"kind": "bayes"}, "sample": BUDGET | {"wanted": 4}},
    "dart_prop2diff, cap 32": {"allocation": {"kind": "dart_prop2diff"}, "sample": {"k": 8, "max_extra": 24, "wanted": 4}},
}
_ROW = Rollout("", "t", None, 0, 0, "", None, "", "", "", "", None, None, 0, 0, 0, "stop", 0, "", "wrong", False, None, None, "", "")
_RIGHT = replace(_ROW, correct=True, status="correct")


@dataclass(frozen=True)
class Spent:
    """What one arm did in one seed, summed or averaged over its iterations."""

    attempts: int
    tokens: int  # an attempt at level n has 7 n + 2, as in the chain task
    coverage: float  # share of queries with a right attempt; who was skipped is not covered
    hard_coverage: float
    asked: float  # share of queries that were not skipped
    rows: float  # right attempts per query and iteration, counted up to 4


def allocation(seeds: Sequence[int] = tuple(range(1, 11))) -> dict[str, Any]:
    """The line that the command prints: per arm its means, and with 95 % t-intervals over seeds, against uniform k=8, the saving in
    attempts and tokens and the difference in coverage; `same_coverage`: the saving against uniform sampling with as many attempts as it
    takes for the arm's own coverage, from the known rates."""
    worlds = [_world(seed) for seed in seeds]
    spent = {name: [_run(arm, *world, seed) for world, seed in zip(worlds, seeds, strict=True)] for name, arm in ARMS.items()}
    line: dict[str, Any] = {"seeds": list(seeds)}
    for name, own in spent.items():
        pairs = list(zip(own, spent["uniform k=8"], strict=True))
        equal = [1 - s.attempts / (ITERATIONS * _uniform_cost(rates, s.coverage)) for s, (_, rates) in zip(own, worlds, strict=True)]
        line[name] = {
            "attempts_per_query": round(sum(s.attempts for s in own) / len(own) / ITERATIONS / (10 * PER_LEVEL), 2),
            "coverage": round(sum(s.coverage for s in own) / len(own), 4),
            "asked": round(sum(s.asked for s in own) / len(own), 3),
            "rows": round(sum(s.rows for s in own) / len(own), 3),
            "saved_attempts": _interval([1 - a.attempts / b.attempts for a, b in pairs]),
            "saved_tokens": _interval([1 - a.tokens / b.tokens for a, b in pairs]),
            "coverage_gain": _interval([a.coverage - b.coverage for a, b in pairs]),
            "hard_coverage_gain": _interval([a.hard_coverage - b.hard_coverage for a, b in pairs]),
            "same_coverage": _interval(equal),
        }
    return line


def _interval(values: Sequence[float]) -> list[float]:
    return [round(v, 4) for v in t_interval(values)]


def _world(seed: int) -> tuple[list[Query], list[list[float]]]:
    """(queries, pass rates by iteration)"""
    rng = random.Random(f"allocation/{seed}")
    queries = [Query(f"L{level}-{i}", "t", "", "", level=level) for level in range(1, 11) for i in range(PER_LEVEL)]
    odds = [math.log(LEVEL_RATES[q.level - 1] / (1 - LEVEL_RATES[q.level - 1])) + rng.gauss(0, SPREAD) for q in queries if q.level]
    return queries, [[1 / (1 + math.exp(-x - LEARNING * n)) for x in odds] for n in range(ITERATIONS)]


def _run(arm: dict[str, Any], queries: Sequence[Query], rates: Sequence[Sequence[float]], seed: int) -> Spent:
    c = load_config({"model": "", "output_dir": "", "tasks": [{"name": "t"}], "seed": seed, **arm})
    past: dict[str, list[Tried]] = {q.id: [] for q in queries}
    attempts = tokens = covered = hard = asked = rows = 0
    for n in range(ITERATIONS):
        frozen = {q: list(tried) for q, tried in past.items()}
        policy = build(c, lambda frozen=frozen: frozen, queries, n)  # type: ignore[misc]
        for q, rate in zip(queries, rates[n], strict=True):
            assert q.level is not None
            history = _draw(policy, q, rate, random.Random(f"{seed}/{n}/{q.id}"))
            past[q.id] += [Tried(n, i, None, r.correct) for i, r in enumerate(history)]
            right = sum(r.correct for r in history)
            attempts, tokens, asked = attempts + len(history), tokens + len(history) * (7 * q.level + 2), asked + bool(history)
            covered, hard, rows = covered + (right > 0), hard + (right > 0 and q.level >= HARD), rows + min(right, 4)
    size = ITERATIONS * len(queries)
    return Spent(
        attempts, tokens, covered / size, hard / (ITERATIONS * sum((q.level or 0) >= HARD for q in queries)), asked / size, rows / size
    )


def _draw(policy: Allocation, query: Query, rate: float, luck: random.Random) -> list[Rollout]:
    history: list[Rollout] = []
    while len(history) < policy.plan(query, history).total:
        history.append(_RIGHT if luck.random() < rate else _ROW)
    return history


def _uniform_cost(rates: Sequence[Sequence[float]], coverage: float) -> float:
    """Attempts per iteration, over all queries, with which uniform sampling is expected to reach this mean coverage; k need not be whole."""

    def expected(k: float) -> float:
        return sum(1 - (1 - p) ** k for of in rates for p in of) / sum(map(len, rates))

    low, high = 0.0, 1000.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if expected(middle) < coverage else (low, middle)
    return low * len(rates[0])


if __name__ == "__main__":
    print(json.dumps(allocation(tuple(map(int, sys.argv[1:])) or tuple(range(1, 11))), indent=1))
