"""An abstract cue, made by a teacher or by the model itself, that names the idea and not the answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gsi import wording
from gsi.guidance.steps import reveals
from gsi.types import Hint, Query, Rollout, Teacher

TEMPLATE = """{question}

A hint: {cue}

Write a complete solution, step by step. Do not mention the hint."""

ASK = """Question:
{question}

For your eyes only, {known}

In one or two sentences, say which idea or method leads to the solution and what to do first. Name no numbers that are not in the question, \
no intermediate results and not the answer."""


@dataclass(frozen=True)
class Cue:
    """A sentence or two about the method, from someone who knows the reference (or, without one, the final answer).

    NuRL (arXiv 2509.25666) finds abstract cues the most useful hints and answers the least, and the model good enough to make
    its own. A cue that holds the final value is not used. Fails where the model cannot write one, or cannot follow it.

    Template fields: {question}, {cue}. Raises GsiError for a template without them, and what the teacher raises.
    """

    teacher: Teacher
    template: str = TEMPLATE

    def __post_init__(self) -> None:
        wording.check(self.template, "cue")

    def hint(self, query: Query, history: Sequence[Rollout], index: int) -> Hint | None:
        known = f"a reference solution:\n{query.rationale}" if query.rationale else f"the final answer: {query.answer}"
        cue = self.teacher.ask(
            [{"role": "user", "content": ASK.replace("{question}", query.question).replace("{known}", known)}]
        ).text.strip()
        if not cue or reveals(cue, query):
            return None
        return Hint("cue", wording.fill(self.template, question=query.question, cue=cue))
