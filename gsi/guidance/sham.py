"""The control of every guidance that shows something of the reference: the same hint, made from another query."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from gsi.seeds import seed_of
from gsi.types import Guidance, Hint, Query, Rollout


@dataclass(frozen=True)
class Sham:
    """`guidance` with the rationale and the answer of another query, of the same task and level where there is one.

    If hints help by what they say, acceptance under sham hints falls to the plain rate or below; what is left above it comes from the
    mere form of a hint, or from luck. The donor is fixed by the run's seed; its answer differs from the query's own. A query
    without a donor gets no hint.
    """

    guidance: Guidance
    donors: dict[str, Query]  # query id -> whose rationale and answer it is shown

    def hint(self, query: Query, history: Sequence[Rollout], index: int) -> Hint | None:
        donor = self.donors.get(query.id)
        if donor is None:
            return None
        hint = self.guidance.hint(replace(query, rationale=donor.rationale, answer=donor.answer), history, index)
        return hint and replace(hint, label=f"sham_{hint.label}")


def donors(queries: Sequence[Query], seed: int) -> dict[str, Query]:
    """For every query another one with another answer: the next of its level in an order drawn from the seed, else of its task."""
    order = sorted(queries, key=lambda q: seed_of(seed, "sham", q.id))
    found: dict[str, Query] = {}
    for group in (lambda q: (q.task,), lambda q: (q.task, q.level)):  # the closer match last, so that it wins
        members: dict[tuple[object, ...], list[Query]] = defaultdict(list)
        for q in order:
            members[group(q)].append(q)
        for rows in members.values():
            for i, q in enumerate(rows):
                others = (rows[(i + j) % len(rows)] for j in range(1, len(rows)))
                if other := next((o for o in others if o.answer != q.answer), None):
                    found[q.id] = other
    return found
