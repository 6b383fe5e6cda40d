"""The shortest opening of the reference that still succeeds often enough, per query."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from gsi.guidance.controllers import Controller, probe_due, sizes_of, trials
from gsi.guidance.state_reset import StateReset
from gsi.types import Hint, Past, Query, Rollout

KIND = "adaptive"
READ = sizes_of(KIND)


@dataclass(frozen=True)
class Adaptive:
    """An opening of the reference that ends between steps, as long as `controller` finds it necessary for this query, and no longer.

    The borders are state reset's (mode `steps`): never past the step that first states the final value. What a controller knows of a query are
    its graded attempts of this iteration and, frozen, those of earlier ones (`past`); where it finds that nothing need be given, the attempt
    is plain. At least a quarter of the attempts stay plain in any case. Leads: AdaBack, BREAD, SEELE (see `controllers.py`).

    Fails where a query gets few guided attempts side by side: those launched together get the same opening, so use it with allocation
    `stepwise`. And where state reset fails. A query without a rationale gets no hint.
    """

    cutter: StateReset
    controller: Controller
    past: Past = field(default_factory=dict)
    accept: str = "answer"

    def hint(self, query: Query, history: Sequence[Rollout], index: int) -> Hint | None:
        openings = self.cutter.openings(query)
        if not openings or probe_due(history, index):
            return None
        sizes = (0.0, *(size for _, size in openings))
        chosen = self.controller.choose(sizes, *trials(query, history, self.past, self.accept, READ))
        return Hint(f"{KIND}:{sizes[chosen]:g}", given=openings[chosen - 1][0]) if chosen else None
