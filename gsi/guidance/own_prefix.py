"""Openings of the model's own solutions: guidance for data that has answers and no rationales."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from gsi.guidance.controllers import Controller, probe_due, sizes_of, trials
from gsi.guidance.state_reset import StateReset
from gsi.guidance.steps import split_steps
from gsi.types import Hint, Past, Query, Rollout, Text

SOLVED, BEGUN = "own_prefix", "own_steps"
MOST_WARMER = 3
READ = sizes_of(SOLVED)
_FIRST_WRONG = re.compile(r"step (\d+):")  # how a checker of steps begins its verdict's detail


@dataclass(frozen=True)
class Before:
    """What earlier iterations left of a query: its solutions, and where there are none the longest right beginning with the response it is of."""

    solutions: list[str]
    begun: tuple[str, str] | None


@dataclass(frozen=True)
class OwnPrefix:
    """An opening of what the model itself wrote for this query; nothing of a reference is read.

    A query with an accepted attempt, in this iteration or an earlier one (plain ones first, none whose steps are known to be wrong): an
    opening of that solution, as short as `controller` finds enough, never past the step that first states the final value (label
    `own_prefix:SIZE`). It makes more and other solutions of a query that is solved now and then, and brings back one that was lost.

    A query without one: a new draw from the model's own failed attempts is no better than a plain one, unless something is known of
    where they fail. So the opening is the longest beginning of any attempt, now or earlier, in which every step is right, where
    the task's checker names the first wrong step (`step N:` in its detail; `first_wrong` for tasks whose equations are checked), and the
    next attempt goes on from there: a search that keeps what it has got (label `own_steps:SIZE`). Each attempt of this iteration that went on from
    the same point and failed makes the next one `warmer` by so much, up to MOST_WARMER times: a trained model is sure of its mistake,
    and would repeat it. Without such a checker, or where the very first step is always wrong, there is nothing to give and the
    attempt is plain.

    SIZE is the share of that attempt's tokens. Compare verified-prefix search and process-supervised rejection sampling (Math-Shepherd,
    arXiv 2312.08935), where a learned judge stands in for the checker. Fails where equations hold and the reasoning does not.
    """

    cutter: StateReset
    controller: Controller
    past: Past = field(default_factory=dict)
    accept: str = "answer"
    earlier: Callable[[str], Sequence[Rollout]] = lambda query_id: ()  # attempts of earlier iterations, in order
    first_wrong: Callable[[Query, str], int | None] = lambda query, text: None  # index of the first step of split_steps(text) that is wrong
    warmer: float = 0.0  # temperature
    beginnings: bool = True  # False: openings of solutions alone, for which no first wrong step has to be known
    _known: dict[str, Before] = field(default_factory=dict, init=False, repr=False, compare=False)  # by query

    def hint(self, query: Query, history: Sequence[Rollout], index: int) -> Hint | None:
        if probe_due(history, index):
            return None
        if solutions := self._solutions(history):
            return self._opening(query, history, solutions[index % len(solutions)])
        before = self._before(query)
        if before.solutions:
            return self._opening(query, history, before.solutions[index % len(before.solutions)])
        return self._begun(query, before.begun, history)

    def _before(self, query: Query) -> Before:
        """Worked out once: while an iteration samples, nothing changes there."""
        if query.id not in self._known:
            attempts = self.earlier(query.id)
            solutions = self._solutions(attempts[::-1])
            self._known[query.id] = Before(solutions, None if solutions else self._longest(query, attempts))
        return self._known[query.id]

    def _solutions(self, attempts: Sequence[Rollout]) -> list[str]:
        """Accepted and different, those drawn without help first."""
        good = [r for r in attempts if r.accepted(self.accept) and r.steps_ok is not False and r.completion == r.response]
        return list(dict.fromkeys(r.completion for r in sorted(good, key=lambda r: r.guided)))

    def _opening(self, query: Query, history: Sequence[Rollout], solution: str) -> Hint | None:
        openings = self.cutter.openings(replace(query, rationale=solution))
        if not openings:
            return None
        sizes = (0.0, *(size for _, size in openings))
        chosen = self.controller.choose(sizes, *trials(query, history, self.past, self.accept, READ))
        return Hint(f"{SOLVED}:{sizes[chosen]:g}", given=openings[chosen - 1][0]) if chosen else None

    def _begun(self, query: Query, before: tuple[str, str] | None, history: Sequence[Rollout]) -> Hint | None:
        begun = [b for b in (before, self._longest(query, history)) if b]
        if not begun:
            return None
        text, response = max(begun, key=lambda b: len(b[0]))  # the earlier of equals
        stuck = sum(r.given == text for r in history)
        label = f"{BEGUN}:{self.cutter.size(Text(text), response):g}"
        return Hint(label, given=Text(text), warmer=self.warmer * min(stuck, MOST_WARMER))

    def _longest(self, query: Query, attempts: Sequence[Rollout]) -> tuple[str, str] | None:
        """The longest right beginning, the first of equals, and the response it is of; None without `beginnings`."""
        if not self.beginnings:
            return None
        begun = [(text, r.response) for r in attempts if (text := self._right_part(query, r))]
        return max(begun, key=lambda b: len(b[0]), default=None)

    def _right_part(self, query: Query, r: Rollout) -> str:
        """The steps before the first wrong one; '' where none is known to be wrong."""
        if r.finish_reason != "stop" or r.completion != r.response or r.steps_ok is not False:
            return ""
        steps, named = split_steps(r.response), _FIRST_WRONG.match(r.detail)
        wrong = int(named[1]) - 1 if named else self.first_wrong(query, r.response)
        return "".join(steps[:wrong]) if wrong and wrong < len(steps) else ""
