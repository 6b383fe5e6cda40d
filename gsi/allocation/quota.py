"""Extra attempts for the queries that have too few accepted ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gsi.types import Plan, Query, Rollout


@dataclass(frozen=True)
class Quota:
    """`k` plain attempts, then extra ones until `wanted` are accepted or `max_extra` extras are spent.

    The paper (arXiv 2411.00750) draws the extras one by one, each waiting for the last; this draws exactly the same
    attempts, as many side by side as that allows. With a of n graded attempts accepted, one-by-one drawing needs at
    least wanted - a more (each adds at most one accepted) unless the extras run out first, so all of
    n .. min(n + wanted - a, k + max_extra) - 1 are attempts that it draws too. And the bound equals n only if
    a >= wanted or n = k + max_extra, which is where one-by-one drawing stops, so none that it draws is left out.

    Fails where extra plain attempts cannot succeed (a query out of reach burns all of `max_extra` every iteration)
    and where they succeed by luck: a guesser gets there too. `accept`: answer or steps (see `Rollout.accepted`).
    """

    k: int
    wanted: int
    max_extra: int
    accept: str = "answer"

    def plan(self, query: Query, history: Sequence[Rollout]) -> Plan:
        n = len(history)
        if n < self.k:
            return Plan(self.k)
        missing = max(0, self.wanted - sum(r.accepted(self.accept) for r in history))
        return Plan(max(n, min(n + missing, self.k + self.max_extra)), guided=True)
