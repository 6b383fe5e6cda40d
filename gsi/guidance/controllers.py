"""How long an opening to give next, from what was tried before: two controllers, and what they read.

Sizes are shares of the whole solution that are given, ascending; the first is 0, the plain question.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from gsi.types import SHUFFLE, Past, Query, Rollout, Tried

PLAIN_EVERY = 4  # at least one in so many attempts at a guided query stays plain


@dataclass(frozen=True)
class Trial:
    """An attempt with a share of a solution given; 0 = the plain question."""

    size: float
    good: bool
    age: int = 0  # iterations ago; 0 = this one


class Controller(Protocol):
    """Which of `sizes` to give next. Reads nothing but its arguments."""

    def choose(self, sizes: Sequence[float], now: Sequence[Trial], before: Sequence[Trial]) -> int:
        """Index into `sizes`.

        Args:
            now: this iteration's graded attempts at the query, in attempt order.
            before: those of earlier iterations, in order.
        """


@dataclass(frozen=True)
class Moving:
    """One step shorter after a success, one longer after a failure: an up-and-down staircase, which settles where half the attempts succeed.

    A query that was not guided before starts in the middle, and the first moves are a quarter of the way, then half of that, and so on: bisection,
    as long as outcomes agree with one threshold. A query that was guided starts one step below the shortest opening that worked in the
    iteration before, so hints shrink as the model learns. One plain attempt that succeeds is taken for a near miss: the shortest opening.
    In the spirit of AdaBack (arXiv 2506.18110), whose revealed share follows the query's reward.

    Fails where outcomes are noisy and the budget small: one lucky success moves it as far as an earned one.
    """

    def choose(self, sizes: Sequence[float], now: Sequence[Trial], before: Sequence[Trial]) -> int:
        top = len(sizes) - 1
        plain = next((i for i, t in enumerate(now) if t.size), len(now))  # attempts before the first opening
        solved = sum(t.good for t in now[:plain])
        at, stride = self._start(sizes, before)
        if solved:
            at, stride = (0 if 2 * solved >= plain else 1), 1
        for trial in now[plain:]:
            if trial.size == 0:
                at = at if at or trial.good else 1  # a plain attempt between openings moves nothing
                continue
            at = _nearest(sizes, trial.size)
            at = max(0, at - stride) if trial.good else min(top, at + stride)
            stride = max(1, stride // 2)
        return at

    def _start(self, sizes: Sequence[float], before: Sequence[Trial]) -> tuple[int, int]:
        """Index and first stride."""
        top = len(sizes) - 1
        guided = [t for t in before if t.size]
        if not guided:
            return (top + 1) // 2, max(1, (top + 1) // 4)
        latest = [t for t in guided if t.age == guided[-1].age]
        worked = [t.size for t in latest if t.good]
        last = _nearest(sizes, min(worked)) - 1 if worked else _nearest(sizes, max(t.size for t in latest))
        return max(1, last), 1


@dataclass(frozen=True)
class Curve:
    """Success against size as a logistic curve, P = 1 / (1 + exp(-(a + slope x size))): the shortest opening that may well have P >= target.

    `slope` is shared by all queries and frozen for the iteration, fitted to the one before (`fit`); `a` is a query's own, with a normal prior, and has
    a posterior from all its attempts, plain ones included, those of earlier iterations discounted. P is taken at that posterior's upper quartile:
    at its mean a query would keep the first opening that works, since that success says nothing of shorter ones. No size is enough: the longest.
    After SEELE (arXiv 2509.06923), which fits a success-against-hint-length curve per item.

    Fails where the curve is no logistic one: a single hard step makes a jump, and openings beyond it look too costly or too weak.
    """

    target: float = 0.7
    slope: float = 6.0  # logits between nothing given and everything; with mean and sd a guess, until there is an iteration to fit
    mean: float = -4.0  # of the prior of `a`, in logits
    sd: float = 2.0
    discount: float = 0.5  # weight of an attempt one iteration old

    def choose(self, sizes: Sequence[float], now: Sequence[Trial], before: Sequence[Trial]) -> int:
        counts: Counter[tuple[float, bool]] = Counter()
        for t in (*before, *now):
            counts[t.size, t.good] += self.discount**t.age  # type: ignore[assignment]
        logs = [-0.5 * ((a - self.mean) / self.sd) ** 2 for a in _GRID]
        for (size, good), weight in counts.items():
            for i, a in enumerate(_GRID):
                logs[i] -= weight * _softplus(-(a + self.slope * size) if good else a + self.slope * size)
        best = max(logs)
        mass = list(itertools.accumulate(math.exp(x - best) for x in logs))
        a = _GRID[bisect.bisect_left(mass, QUANTILE * mass[-1])]
        enough = math.log(self.target / (1 - self.target))
        return next((i for i, size in enumerate(sizes) if a + self.slope * size >= enough), len(sizes) - 1)


QUANTILE = 0.75  # of the posterior of `a`
_GRID = [x / 4 for x in range(-120, 41)]  # of `a`, in logits


def _softplus(x: float) -> float:
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def fit(curve: Curve, past: Past, read: Callable[[str | None], float | None], enough: int = 50) -> Curve:
    """`curve` with slope, mean and sd that make the guided queries of the latest iteration likeliest, from a coarse grid; unchanged below `enough` openings.

    Args:
        read: from a ledger label to the size it gave; None = another kind of hint.
    """
    import numpy as np

    latest = max((t.iteration for tried in past.values() for t in tried), default=-1)
    rows = [[(x, t.accepted) for t in tried if t.iteration == latest and (x := read(t.guidance)) is not None] for tried in past.values()]
    rows = [row for row in rows if any(size for size, _ in row)]
    if sum(size > 0 for row in rows for size, _ in row) < enough:
        return curve
    bins = 21  # sizes in twentieths
    counts = np.zeros((2, len(rows), bins))
    for i, row in enumerate(rows):
        for size, good in row:
            counts[int(good), i, round(size * (bins - 1))] += 1
    grid, sizes = np.array(_GRID), np.linspace(0, 1, bins)
    best, found = -math.inf, curve
    for slope in (1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0):
        logits = grid[None, :] + slope * sizes[:, None]  # (size, a)
        likelihood = counts[0] @ -np.logaddexp(0, logits) + counts[1] @ -np.logaddexp(0, -logits)  # (query, a)
        peak = likelihood.max(1, keepdims=True)
        shape = np.exp(likelihood - peak)
        for mean in range(-20, 3):
            for sd in (1.0, 2.0, 4.0):
                prior = np.exp(-0.5 * ((grid - mean) / sd) ** 2)
                score = float((np.log(shape @ (prior / prior.sum()) + 1e-300) + peak[:, 0]).sum())
                if score > best + 1e-6:
                    best, found = score, Curve(curve.target, slope, float(mean), sd, curve.discount)
    return found


# --------------------------------------------------------------------------------------- reading what was tried


def sizes_of(*kinds: str) -> Callable[[str | None], float | None]:
    """Reads ledger labels: `kind:size` of these kinds gives the size, a plain attempt 0, anything else None."""

    def read(label: str | None) -> float | None:
        if label is None or label.startswith(SHUFFLE):
            return 0.0
        kind, _, size = label.partition(":")
        return float(size) if kind in kinds and size else None

    return read


def trials(
    query: Query, history: Sequence[Rollout], past: Past, accept: str, read: Callable[[str | None], float | None]
) -> tuple[list[Trial], list[Trial]]:
    """(now, before) of a query, for `Controller.choose`."""
    now = [Trial(size, r.accepted(accept)) for r in history if (size := read(r.guidance)) is not None]
    tried: Sequence[Tried] = past.get(query.id, ())
    this = tried[-1].iteration + 1 if tried else 0  # every query is attempted in every iteration
    before = [Trial(size, t.accepted, this - t.iteration) for t in tried if (size := read(t.guidance)) is not None]
    return now, before


def probe_due(history: Sequence[Rollout], index: int) -> bool:
    """Whether guided attempt `index` of a query has to stay plain, so that a quarter of all its attempts are.

    At most `index` attempts before it were guided, in flight or graded; those graded as plain are in the history.
    """
    return index + 1 > (PLAIN_EVERY - 1) * sum(not r.guided for r in history)


def _nearest(sizes: Sequence[float], size: float) -> int:
    return min(range(len(sizes)), key=lambda i: (abs(sizes[i] - size), i))
