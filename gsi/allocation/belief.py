"""What earlier iterations say of every query: discounted counts, and Beta beliefs shrunk to the query's level."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import lgamma
from typing import Any

from gsi.types import SHUFFLE, Past, Query

MEANS = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98, 0.99)  # of a level's prior
STRENGTHS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)  # of a level's prior, in attempts


@dataclass(frozen=True)
class Beta:
    """A belief about the rate at which plain attempts at a query are accepted."""

    a: float
    b: float

    @property
    def mean(self) -> float:
        return self.a / (self.a + self.b)


def plain_counts(past: Past, iteration: int, discount: float = 1.0) -> dict[str, tuple[float, float]]:
    """Query id -> (accepted, not accepted) plain attempts of earlier iterations, each iteration worth `discount` times the next.

    Args:
        iteration: the ledger's iteration that is sampled now.
    """
    found: dict[str, tuple[float, float]] = {}
    for query_id, tried in past.items():
        right = wrong = 0.0
        for t in tried:
            if t.guidance is None or t.guidance.startswith(SHUFFLE):
                weight = discount ** (iteration - 1 - t.iteration)
                right, wrong = (right + weight, wrong) if t.accepted else (right, wrong + weight)
        if right or wrong:
            found[query_id] = right, wrong
    return found


def beliefs(queries: Iterable[Query], counts: Mapping[str, tuple[float, float]]) -> dict[str, Beta]:
    """A belief per query: Beta(m s + accepted, (1 - m) s + not accepted), m and s of its task and level.

    They are the ones of `MEANS` and `STRENGTHS` under which the counts of the level's queries are likeliest (beta-binomial,
    with one attempt in doubt added), so queries of a level that are alike shrink more. Attempts that were drawn until
    enough were accepted do not bias this. A level without any attempt: Beta(1/2, 1/2).
    """
    groups: dict[tuple[Any, ...], list[Query]] = defaultdict(list)
    for q in queries:
        groups[q.task, q.level].append(q)
    found: dict[str, Beta] = {}
    for members in groups.values():
        a, b = prior([counts[q.id] for q in members if q.id in counts])
        for q in members:
            right, wrong = counts.get(q.id, (0.0, 0.0))
            found[q.id] = Beta(a + right, b + wrong)
    return found


def prior(known: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """The likeliest Beta prior (a, b) of queries with these (accepted, not accepted) counts, of a coarse grid."""
    if not known:
        return 0.5, 0.5
    outcomes = Counter([*known, (0.5, 0.5)])
    choices = [(m * s, (1 - m) * s) for m in MEANS for s in STRENGTHS]
    return max(choices, key=lambda ab: sum(times * _log_likelihood(r, w, *ab) for (r, w), times in outcomes.items()))


def _log_likelihood(right: float, wrong: float, a: float, b: float) -> float:
    """Of one order of these outcomes under Beta(a, b); discounted counts need not be whole."""
    return _log_beta(a + right, b + wrong) - _log_beta(a, b)


def _log_beta(a: float, b: float) -> float:
    return lgamma(a) + lgamma(b) - lgamma(a + b)
