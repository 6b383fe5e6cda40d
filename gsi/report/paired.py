"""Paired statistics for comparing runs: pure functions."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

# 97.5 % quantiles of Student's t for 1, 2, ... degrees of freedom
_T = (
    12.706,
    4.303,
    3.182,
    2.776,
    2.571,
    2.447,
    2.365,
    2.306,
    2.262,
    2.228,
    2.201,
    2.179,
    2.160,
    2.145,
    2.131,
    2.120,
    2.110,
    2.101,
    2.093,
    2.086,
)


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
    """Differences of runs paired by seed: t interval and exact sign-flip p (2 ** n assignments; at most 20 pairs)."""
    n = len(differences)
    if n == 0:
        return None
    value = mean(differences)
    if n == 1:
        return Difference(1, value, None, None)
    half = (_T[n - 2] if n - 2 < len(_T) else 1.96 + 2.4 / (n - 1)) * stdev(differences) / math.sqrt(n)
    p = None
    if n <= 20:
        # |mean| of every assignment of signs; one sign is fixed, for the test is symmetric
        sizes = [
            abs(differences[0] + sum(s * d for s, d in zip(signs, differences[1:], strict=True)))
            for signs in itertools.product((1, -1), repeat=n - 1)
        ]
        p = sum(size >= abs(value * n) * (1 - 1e-12) for size in sizes) / len(sizes)
    return Difference(n, value, value - half, value + half, p=p)
