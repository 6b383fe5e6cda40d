"""Intervals of means over questions, and of paired seeds: t-interval and exact sign-flip test."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import product
from statistics import fmean, stdev


def t_cdf(t: float, df: int) -> float:
    """Student's t distribution function, by the regularised incomplete beta function."""
    import mpmath

    tail = float(mpmath.betainc(df / 2, 0.5, 0, df / (df + t * t), regularized=True)) / 2
    return 1 - tail if t > 0 else tail


@lru_cache
def t_quantile(p: float, df: int) -> float:
    """Inverse of `t_cdf` for p above 0.5, by bisection."""
    low, high = 0.0, 1e6
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if t_cdf(middle, df) < p else (low, middle)
    return (low + high) / 2


def t_interval(differences: Sequence[float], level: float = 0.95) -> tuple[float, float, float]:
    """(mean, low, high) of paired differences; the interval is infinite for a single one."""
    n, mean = len(differences), fmean(differences)
    if n < 2:
        return mean, -math.inf, math.inf
    half = t_quantile(0.5 + level / 2, n - 1) * stdev(differences) / math.sqrt(n)
    return mean, mean - half, mean + half


def padded_interval(values: Sequence[float], ends: tuple[float, float], each: int) -> tuple[float, float]:
    """95 % interval of the mean of values between two ends: Wald with so many values more at each of the ends.

    It keeps a width where all values are equal. Where all values are ends, it is Agresti and Coull's "plus four" (ends 0 and 1, two each).
    """
    if not values:
        return ends
    low, high = ends
    n = len(values) + 2 * each
    mean = (sum(values) + each * (low + high)) / n
    variance = (sum(v * v for v in values) + each * (low * low + high * high)) / n - mean * mean
    half = 1.96 * math.sqrt(max(0.0, variance) / n)
    return max(low, mean - half), min(high, mean + half)


def sign_flip(differences: Sequence[float]) -> float:
    """Exact two-sided p of the mean being this far from 0 if every difference could as well have the other sign.

    2 ** n sums are counted, so n is at most 20. With 5 seeds the smallest p is 2/32 = 0.06, with 10 it is 0.002.
    Raises ValueError for more.
    """
    n = len(differences)
    if n > 20:
        raise ValueError(f"{n} differences are too many for the exact test; use at most 20")
    seen = abs(sum(differences)) * (1 - 1e-12)
    first, *others = differences  # its sign is fixed, for the test is symmetric
    return fmean(abs(first + sum(s * d for s, d in zip(signs, others, strict=True))) >= seen for signs in product((1, -1), repeat=n - 1))
