"""What helps a query that plain sampling does not solve: one small file per guidance, joined by name here."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gsi.config import Config
from gsi.guidance import answer_driven, interactive, rationale_driven, sham
from gsi.guidance.answer_driven import AnswerDriven
from gsi.guidance.interactive import Interactive
from gsi.guidance.rationale_driven import RationaleDriven
from gsi.guidance.state_reset import StateReset
from gsi.prompts import Renderer
from gsi.types import GsiError, Guidance, Query, Teacher


def _interactive(config: Config, renderer: Renderer, teacher: Teacher | None) -> Guidance:
    if teacher is None:
        raise GsiError("guidance.kind: `interactive` needs a teacher; add `teacher: {url: http://.../v1, model: NAME}`")
    return Interactive(teacher, config.guidance.template or interactive.TEMPLATE)


GUIDANCES: dict[str, Callable[[Config, Renderer, Teacher | None], Guidance | None]] = {
    "none": lambda c, r, t: None,
    "answer_driven": lambda c, r, t: AnswerDriven(c.guidance.template or answer_driven.TEMPLATE),
    "rationale_driven": lambda c, r, t: RationaleDriven(c.guidance.template or rationale_driven.TEMPLATE),
    "interactive": _interactive,
    "state_reset": lambda c, r, t: StateReset(r, c.guidance.mode),
}


def build(config: Config, renderer: Renderer, teacher: Teacher | None = None, queries: Sequence[Query] = ()) -> Guidance | None:
    """The guidance of a run, None for kind `none`. `queries` are the training queries, from which sham hints take their donors.

    Raises GsiError for a kind that is not in `GUIDANCES`, a template that lacks a field, `interactive` without a teacher.
    """
    kind = config.guidance.kind
    if kind not in GUIDANCES:
        raise GsiError(f"guidance.kind: unknown {kind!r}; there are {', '.join(GUIDANCES)}")
    chosen = GUIDANCES[kind](config, renderer, teacher)
    return sham.Sham(chosen, sham.donors(queries, config.seed)) if chosen and config.guidance.sham else chosen
