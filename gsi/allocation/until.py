"""Attempts until a query has enough accepted ones: DART-Math's uniform sampling, and the same with help for those that lag."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gsi.types import Plan, Query, Rollout


@dataclass(frozen=True)
class Until:
    """Draws until `wanted` are accepted, at most k + max_extra attempts. An easy query stops early: no fixed k.

    `dart_uniform` (DART-Math's Uniform, arXiv 2407.13690): plain attempts only (`helped` false).
    `floor`: attempts after the k-th are guided, so every query gets to its floor of `wanted` as cheaply as the guidance allows.

    The same attempts as drawing one by one, as many side by side as that allows: with a of n accepted, at least
    wanted - a more are drawn anyway (see `Quota`).

    Fails where plain sampling cannot succeed (dart_uniform then burns the whole cap), and it narrows less than a fixed
    number of attempts only as far as the cap reaches. `accept`: answer or steps (see `Rollout.accepted`).
    """

    k: int
    wanted: int
    max_extra: int
    helped: bool
    accept: str = "answer"

    def plan(self, query: Query, history: Sequence[Rollout]) -> Plan:
        n = len(history)
        missing = max(0, self.wanted - sum(r.accepted(self.accept) for r in history))
        if self.helped and n < self.k:  # plain and guided attempts are not launched side by side
            return Plan(min(n + missing, self.k))
        return Plan(max(n, min(n + missing, self.k + self.max_extra)), guided=self.helped)
