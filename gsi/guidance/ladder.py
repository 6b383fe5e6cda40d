"""Escalation: more and more help, as much as a query needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from gsi.guidance.controllers import probe_due
from gsi.guidance.state_reset import StateReset
from gsi.types import Guidance, Hint, Past, Query, Rollout, Tried

RUNGS = ("cue", "short", "long", "answer", "rationale")  # of what there is, from little help to all of it


@dataclass(frozen=True)
class Opening:
    """The opening of the reference that takes `part` of the steps before the final value."""

    cutter: StateReset
    part: float

    def hint(self, query: Query, history: Sequence[Rollout], index: int) -> Hint | None:
        openings = self.cutter.openings(query)
        if not openings:
            return None
        given, size = openings[max(0, round(self.part * len(openings)) - 1)]
        return Hint(f"opening:{size:g}", given=given)


@dataclass(frozen=True)
class Ladder:
    """A query climbs one rung after every failed guided attempt and stays where it succeeds.

     `rungs` are guidances by name, from little help to much; a rung that has nothing to give (no rationale, a cue that gives the answer away)
     is passed over. In the next iteration a query starts one rung below the lowest that worked, or below where its climb ended, so help
     is withdrawn as the model learns; with a plain success it starts at the bottom. The budget is the allocation's (`max_extra`), and a
     quarter of the attempts stay plain. Labels are `ladder_RUNG`, with the size behind it where something is given. Compare
    Scaf-GRPO, which escalates hints for queries that plain sampling never solves.

     Fails where rungs are not in the order of their help, and where one failure is bad luck: it climbs all the same.
    """

    rungs: Mapping[str, Guidance]
    past: Past = field(default_factory=dict)
    accept: str = "answer"

    def hint(self, query: Query, history: Sequence[Rollout], index: int) -> Hint | None:
        if probe_due(history, index):
            return None
        names = list(self.rungs)
        for name in names[self._rung(names, query, history) :]:
            hint = self.rungs[name].hint(query, history, index)
            if hint is not None:
                _, colon, size = hint.label.partition(":")
                return replace(hint, label=f"ladder_{name}{colon}{size}")
        return None

    def _rung(self, names: Sequence[str], query: Query, history: Sequence[Rollout]) -> int:
        climbed = [(rung, r.accepted(self.accept)) for r in history if (rung := _rung_of(r.guidance, names)) is not None]
        if climbed:
            rung, good = climbed[-1]
            return rung if good else min(rung + 1, len(names) - 1)
        if any(r.accepted(self.accept) for r in history):
            return 0
        tried: Sequence[Tried] = self.past.get(query.id, ())
        known = [(t.iteration, rung, t.accepted) for t in tried if (rung := _rung_of(t.guidance, names)) is not None]
        latest = [(rung, good) for iteration, rung, good in known if iteration == known[-1][0]]
        worked = [rung for rung, good in latest if good]
        return max(0, (min(worked) if worked else max((rung for rung, _ in latest), default=0)) - 1)


def _rung_of(label: str | None, names: Sequence[str]) -> int | None:
    name = (label or "").partition(":")[0].removeprefix("ladder_")
    return names.index(name) if label and label.startswith("ladder_") and name in names else None
