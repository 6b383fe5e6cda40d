"""DART-Math's Prop2Diff: the harder a query, the more accepted responses it gets."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from gsi.types import Plan, Query, Rollout


@dataclass(frozen=True)
class Prop2Diff:
    """Draws plain attempts until a query's accepted ones are proportional to its failure rate (DART-Math, arXiv 2407.13690).

    The target is ceil(wanted x failure rate), at least 1, so a query that always fails is sought `wanted` times and one
    that never does once; at most k + max_extra attempts. The failure rate is that of the plain attempts of earlier
    iterations (`failed`, frozen); a query without any draws k plain attempts first and is judged by those.

    Fails where a query is out of reach: it has the highest target and burns the whole cap. A rate from few draws is
    rough, and a rate of 0 from luck asks for a single response. `accept`: see `Rollout.accepted`.
    """

    k: int
    wanted: int
    max_extra: int
    failed: Callable[[], Mapping[str, float]]  # query id -> failure rate, asked for at every plan
    accept: str = "answer"

    def plan(self, query: Query, history: Sequence[Rollout]) -> Plan:
        n, cap = len(history), self.k + self.max_extra
        rate = self.failed().get(query.id)
        if rate is None:
            if n < self.k:
                return Plan(self.k)
            rate = sum(not r.accepted(self.accept) for r in history[: self.k]) / self.k
        missing = max(0, self.target(rate) - sum(r.accepted(self.accept) for r in history))
        return Plan(max(n, min(n + missing, cap)))

    def target(self, rate: float) -> int:
        """Accepted responses wanted of a query with this failure rate."""
        return max(1, math.ceil(self.wanted * rate - 1e-9)) if self.wanted else 0
