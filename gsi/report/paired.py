"""Paired statistics for comparing runs: pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gsi import stats


@dataclass(frozen=True)
class Difference:
    """b minus a over what both have, with a 95 % interval; None where two values are too few for one."""

    n: int
    value: float
    low: float | None
    high: float | None
    only_a: int = 0  # questions that only a solves; of sampled accuracies: that a solves more often
    only_b: int = 0
    p: float | None = None  # exact sign-flip p, two-sided


def by_questions(a: Mapping[Any, float], b: Mapping[Any, float]) -> Difference | None:
    """Two models on the same questions, each solved (1) or not (0), or in a share of its samples; None where they share none.

    Interval of the mean difference: Wald with one question added that only a solves, and one that only b does. Where questions are
    solved or not, that is Bonett and Price 2012, "Adjusted Wald confidence interval for a difference of binomial proportions based
    on paired data". It counts questions only and knows nothing of how another seed would train.
    """
    each = [b[q] - a[q] for q in a if q in b]
    if not each:
        return None
    low, high = stats.padded_interval(each, (-1.0, 1.0), 1)
    return Difference(len(each), sum(each) / len(each), low, high, sum(d < 0 for d in each), sum(d > 0 for d in each))


def by_seeds(differences: Sequence[float]) -> Difference | None:
    """Differences of runs paired by seed: t interval and exact sign-flip p (at most 20 pairs)."""
    n = len(differences)
    if n == 0:
        return None
    value, low, high = stats.t_interval(differences)
    if n == 1:
        return Difference(1, value, None, None)
    return Difference(n, value, low, high, p=stats.sign_flip(differences) if n <= 20 else None)
