"""Attempts where they pay: easy queries stop early, doubtful ones get plain attempts, hopeless ones help, saturated ones rest."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gsi.allocation.belief import Beta
from gsi.seeds import seed_of
from gsi.types import Plan, Query, Rollout


@dataclass(frozen=True)
class Bayes:
    """A Beta belief per query decides its next attempt (after Reinforce-Ada, arXiv 2510.04996, and MoPPS, arXiv 2507.04632).

    The belief an iteration begins with rests on earlier iterations (`beliefs`, frozen); within the iteration a query
    adds its own graded plain attempts and nothing else. One by one:

    - `wanted` accepted: stop.
    - Mean at least `hopeless`: a plain attempt, k + max_extra attempts at most.
    - Below, once `explore` plain attempts were made: guided from now on (up to max_extra of them), or stop where no guidance helps.
    - Mean at least `saturated` at the iteration's start: skipped with probability `skip`, drawn from the query's identity. The
      rest is sampled, so what the model has forgotten is found again within about 1 / (1 - skip) iterations.

    Launches exactly what drawing one by one would, side by side: with the mean above `hopeless` the next attempts are
    plain until either all missing ones are accepted or failures alone bring the mean below, whichever needs fewer.

    Fails where pass rates move faster than the discount forgets, where a level says little about its queries, and in the
    first iteration, which knows nothing. Skipped queries bring no row: see `Bayes.record` and docs/curation.md.
    """

    k: int
    wanted: int
    max_extra: int
    helped: bool  # whether there is a guidance
    beliefs: Callable[[], Mapping[str, Beta]]  # asked for at every plan
    iteration: int
    seed: int
    hopeless: float = 0.03
    saturated: float = 0.95
    skip: float = 0.0
    explore: int = 1
    accept: str = "answer"

    def plan(self, query: Query, history: Sequence[Rollout]) -> Plan:
        belief, n = self.beliefs()[query.id], len(history)
        if n == 0 and self.skips(query.id, belief):
            return Plan(0)
        cap = self.k + self.max_extra
        left = max(0, min(self.wanted - sum(r.accepted(self.accept) for r in history), cap - n))
        gives_up = self._gives_up(belief, history)
        if gives_up is None:
            return Plan(n + min(left, self._failures_left(belief, history)))
        left = max(0, min(left, self.max_extra - (n - gives_up))) if self.helped else 0
        return Plan(n + left, guided=True)

    def skips(self, query_id: str, belief: Beta) -> bool:
        if belief.mean < self.saturated:
            return False
        return random.Random(seed_of(self.seed, "skip", self.iteration, query_id)).random() < self.skip

    def record(self, queries: Sequence[Query]) -> dict[str, Any]:
        """Who is skipped and why, and how the others are seen at the iteration's start; plain values for iter_N/allocation.json."""
        beliefs = self.beliefs()
        skipped = [q for q in queries if self.skips(q.id, beliefs[q.id])]
        rest = [beliefs[q.id].mean for q in queries if not self.skips(q.id, beliefs[q.id])]
        return {
            "skipped": [
                {"query_id": q.id, "level": q.level, "why": f"saturated: believed rate {beliefs[q.id].mean:.3f}", "worth": round(beliefs[q.id].a + beliefs[q.id].b, 2)}
                for q in skipped
            ],
            "hopeless": sum(m < self.hopeless for m in rest),
            "saturated_but_sampled": sum(m >= self.saturated for m in rest),
            "between": sum(self.hopeless <= m < self.saturated for m in rest),
        }  # fmt: skip

    def _gives_up(self, belief: Beta, history: Sequence[Rollout]) -> int | None:
        """Number of attempts after which this query got help, None = it is still tried plainly. Once helped, always helped."""
        right = 0
        for i in range(len(history) + 1):
            if i >= self.explore and _mean(belief, right, i) < self.hopeless:
                return i
            right += i < len(history) and history[i].accepted(self.accept)
        return None

    def _failures_left(self, belief: Beta, history: Sequence[Rollout]) -> int:
        """Failures in a row after which the query would be given up, at least 1; no more than the cap matter."""
        n, right = len(history), sum(r.accepted(self.accept) for r in history)
        most = self.k + self.max_extra - n
        return next((i for i in range(1, most) if n + i >= self.explore and _mean(belief, right, n + i) < self.hopeless), max(most, 1))


def _mean(belief: Beta, right: int, attempts: int) -> float:
    return (belief.a + right) / (belief.a + belief.b + attempts)
