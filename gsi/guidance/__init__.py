"""What helps a query that plain sampling does not solve: one small file per guidance, joined by name here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gsi.config import Config
from gsi.guidance import adaptive, answer_driven, cue, interactive, own_prefix, rationale_driven, sham
from gsi.guidance.adaptive import Adaptive
from gsi.guidance.answer_driven import AnswerDriven
from gsi.guidance.controllers import Controller, Curve, Moving, fit
from gsi.guidance.cue import Cue
from gsi.guidance.interactive import Interactive, own_correction
from gsi.guidance.ladder import Ladder, Opening
from gsi.guidance.own_prefix import OwnPrefix
from gsi.guidance.rationale_driven import RationaleDriven
from gsi.guidance.state_reset import StateReset
from gsi.prompts import Renderer
from gsi.types import GsiError, Guidance, Past, Query, Rollout, Teacher


@dataclass(frozen=True)
class Parts:
    """What a guidance is made from."""

    config: Config
    renderer: Renderer
    teacher: Teacher | None
    past: Callable[[], Past]  # what earlier iterations tried
    earlier: Callable[[str], Sequence[Rollout]]  # a query's attempts of earlier iterations
    first_wrong: Callable[[Query, str], int | None]  # index of the first step of a solution that does not hold

    def wording(self, default: str) -> str:
        return self.config.guidance.template or default

    def asked(self) -> Teacher:
        if self.teacher is None:
            raise GsiError(
                f"guidance.kind: `{self.config.guidance.kind}` needs a teacher; add `teacher: {{url: http://.../v1, model: NAME}}`, or `teacher: {{kind: self}}`"
            )
        return self.teacher

    def controller(self, kind: str) -> Controller:
        g = self.config.guidance
        reads = {"adaptive": adaptive.READ, "own_prefix": own_prefix.READ}
        return Moving() if g.controller == "moving" else fit(Curve(g.target), self.past(), reads[kind])


def _ladder(p: Parts) -> Guidance:
    texts, cutter = p.config.guidance.templates, StateReset(p.renderer)
    rungs: dict[str, Callable[[], Guidance]] = {
        "cue": lambda: Cue(p.asked(), texts.get("cue", cue.TEMPLATE)),
        "short": lambda: Opening(cutter, 1 / 3),
        "long": lambda: Opening(cutter, 1),
        "answer": lambda: AnswerDriven(texts.get("answer", answer_driven.TEMPLATE)),
        "rationale": lambda: RationaleDriven(texts.get("rationale", rationale_driven.TEMPLATE)),
    }
    return Ladder({name: rungs[name]() for name in p.config.guidance.rungs}, p.past(), p.config.accept)


GUIDANCES: dict[str, Callable[[Parts], Guidance | None]] = {
    "none": lambda p: None,
    "answer_driven": lambda p: AnswerDriven(p.wording(answer_driven.TEMPLATE)),
    "rationale_driven": lambda p: RationaleDriven(p.wording(rationale_driven.TEMPLATE)),
    "interactive": lambda p: Interactive(p.asked(), p.wording(interactive.TEMPLATE)),
    "state_reset": lambda p: StateReset(p.renderer, p.config.guidance.mode),
    "adaptive": lambda p: Adaptive(StateReset(p.renderer), p.controller("adaptive"), p.past(), p.config.accept),
    "ladder": _ladder,
    "own_prefix": lambda p: OwnPrefix(
        StateReset(p.renderer),
        p.controller("own_prefix"),
        p.past(),
        p.config.accept,
        p.earlier,
        p.first_wrong,
        p.config.guidance.warmer,
        p.config.guidance.beginnings,
    ),
    "own_correction": lambda p: own_correction(p.asked(), p.wording(interactive.TEMPLATE)),
    "cue": lambda p: Cue(p.asked(), p.wording(cue.TEMPLATE)),
}


def build(
    config: Config,
    renderer: Renderer,
    teacher: Teacher | None = None,
    queries: Sequence[Query] = (),
    past: Callable[[], Past] = dict,
    earlier: Callable[[str], Sequence[Rollout]] = lambda query_id: (),
    first_wrong: Callable[[Query, str], int | None] = lambda query, text: None,
) -> Guidance | None:
    """The guidance of a run, None for kind `none`. `queries` are the training queries, from which sham hints take their donors.

    Raises GsiError for a kind that is not in `GUIDANCES`, a template that lacks a field, a kind that asks a teacher without one.
    """
    kind = config.guidance.kind
    if kind not in GUIDANCES:
        raise GsiError(f"guidance.kind: unknown {kind!r}; there are {', '.join(GUIDANCES)}")
    chosen = GUIDANCES[kind](Parts(config, renderer, teacher, past, earlier, first_wrong))
    return sham.Sham(chosen, sham.donors(queries, config.seed)) if chosen and config.guidance.sham else chosen
