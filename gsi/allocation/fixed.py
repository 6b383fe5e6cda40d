"""The same number of attempts for every query."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gsi.types import Plan, Query, Rollout


@dataclass(frozen=True)
class Fixed:
    """`k` plain attempts and no more: vanilla self-improvement (arXiv 2411.00750).

    Spends as much on a query that is always solved as on one that never is, so the training rows drift to the easy
    end: the failure that the other policies are measured against.
    """

    k: int

    def plan(self, query: Query, history: Sequence[Rollout]) -> Plan:
        return Plan(self.k)
