"""What "solved, then lost" is expected to be by chance alone."""

from __future__ import annotations

import math
from collections.abc import Sequence


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


def never_again(right: int, draws: int, k: int, a: float = 0.5, b: float = 0.5) -> float:
    """Probability that a query with `right` of `draws` draws right has none right among k new ones, its rate having a Beta(a, b) prior."""
    a, b = a + right, b + draws - right
    return math.exp(_beta(a, b + k) - _beta(a, b))


def _beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
