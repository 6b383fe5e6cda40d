"""Guided attempts one after the other, so that each can learn from the last."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from gsi.types import SHUFFLE, Past, Plan, Query, Rollout


@dataclass(frozen=True)
class Stepwise:
    """`k` plain attempts, then guided ones in groups of `group` until `wanted` are accepted or `max_extra` are spent.

    The quota's end (see `quota.py`), but a group is launched only when the one before is graded: a guidance that chooses its hint by
    what happened last needs that. It costs no attempt, and time only where there are too few queries to keep the engine busy: the
    attempts of one query wait for one another, those of different queries do not.

    A query of which no plain attempt succeeded in the iteration before gets `probes` plain attempts first, and the rest of the `k` only if one of
    them succeeds: eight more failures teach nothing and are most of what a hard query costs.
    """

    k: int
    wanted: int
    max_extra: int
    accept: str = "answer"
    group: int = 1
    probes: int = 2
    past: Past = field(default_factory=dict)

    def plan(self, query: Query, history: Sequence[Rollout]) -> Plan:
        n, good = len(history), [r.accepted(self.accept) for r in history]
        plain = min(self.probes, self.k) if self._hopeless(query) else self.k
        if any(good[:plain]):
            plain = self.k
        if n < plain:
            return Plan(plain)
        at = plain  # where the group begins that attempt n belongs to
        while (size := min(self.group, self.wanted - sum(good[:at]), plain + self.max_extra - at)) > 0 and at + size <= n:
            at += size
        return Plan(max(n, at + max(0, size)), guided=True)

    def _hopeless(self, query: Query) -> bool:
        tried = self.past.get(query.id, ())
        last = [t for t in tried if t.iteration == tried[-1].iteration and (t.guidance is None or t.guidance.startswith(SHUFFLE))]
        return bool(last) and not any(t.accepted for t in last)
