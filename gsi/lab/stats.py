"""Statistics of paired seeds: t-interval, exact sign-flip test, and what "solved, then lost" is expected to be by chance alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from statistics import fmean, stdev


def t_cdf(t: float, df: int) -> float:
    """Student's t distribution function, by the regularised incomplete beta function."""
    import mpmath

    tail = float(mpmath.betainc(df / 2, 0.5, 0, df / (df + t * t), regularized=True)) / 2
    return 1 - tail if t > 0 else tail


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


def sign_flip(differences: Sequence[float]) -> float:
    """Exact two-sided p of the mean being this far from 0 if every difference could as well have the other sign.

    2 ** n sums are counted, so n is at most 20. With 5 seeds the smallest p is 2/32 = 0.06, with 10 it is 0.002.
    Raises ValueError for more.
    """
    n = len(differences)
    if n > 20:
        raise ValueError(f"{n} differences are too many for the exact test; use at most 20")
    seen = abs(sum(differences)) - 1e-12
    return sum(abs(sum(s * d for s, d in zip(signs, differences, strict=True))) >= seen for signs in product((1, -1), repeat=n)) / 2**n


def lost_by_chance(solved: Sequence[int], draws: int, k: int) -> float:
    """Expected share of queries solved in one set of k draws and in no draw of another such set, if nothing changed.

    Args:
        solved: right draws of each query among `draws` draws of the same model, used for nothing else.

    Each query's rate has a Beta(1/2, 1/2) prior (Jeffreys), so its number right among k new draws is beta-binomial.
    """
    total = 0.0
    for right in solved:
        a, b = right + 0.5, draws - right + 0.5
        never = math.exp(_beta(a, b + k) - _beta(a, b))  # E (1-p)^k
        never_twice = math.exp(_beta(a, b + 2 * k) - _beta(a, b))  # E (1-p)^2k
        total += never - never_twice  # E (1 - (1-p)^k) (1-p)^k
    return total / len(solved) if solved else 0.0


def _beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
