"""Paired statistics for comparing runs: pure functions."""

from __future__ import annotations

import math
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
    only_a: int = 0  # questions that only a solves
    only_b: int = 0
    p: float | None = None  # exact sign-flip p, two-sided


def by_questions(a: Mapping[Any, bool], b: Mapping[Any, bool]) -> Difference | None:
    """Two models on the same questions; None where they share none.

    Interval of the difference of paired proportions: Wald with one added to each kind of disagreement (Bonett and Price 2012,
    "Adjusted Wald confidence interval for a difference of binomial proportions based on paired data"). It counts questions
    only and knows nothing of how another seed would train.
    """
    shared = a.keys() & b.keys()
    n = len(shared)
    if not n:
        return None
    only_a = sum(a[q] and not b[q] for q in shared)
    only_b = sum(b[q] and not a[q] for q in shared)
    pa, pb = (only_a + 1) / (n + 2), (only_b + 1) / (n + 2)
    half = 1.96 * math.sqrt((pa + pb - (pb - pa) ** 2) / (n + 2))
    return Difference(n, (only_b - only_a) / n, max(-1.0, pb - pa - half), min(1.0, pb - pa + half), only_a, only_b)


def by_seeds(differences: Sequence[float]) -> Difference | None:
    """Differences of runs paired by seed: t interval and exact sign-flip p (at most 20 pairs)."""
    n = len(differences)
    if n == 0:
        return None
    value, low, high = stats.t_interval(differences)
    if n == 1:
        return Difference(1, value, None, None)
    return Difference(n, value, low, high, p=stats.sign_flip(differences) if n <= 20 else None)
