"""The gold final answer is shown with the question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gsi import wording
from gsi.types import Hint, Query, Rollout

TEMPLATE = """{question}

The final answer is {answer}. Derive it step by step from what the question says, as if you did not know it yet: state it only once your \
steps have reached it, at the end, and do not mention that you were told."""


@dataclass(frozen=True)
class AnswerDriven:
    """The question together with its gold final answer; the model supplies the derivation.

    Paper (arXiv 2411.00750): the answer is shown in up to 8 extra attempts. Ours: our own wording, which asks for a
    derivation that does not mention having been told, since the response is trained after the plain question.
    Fails where the model writes down the answer without deriving it: the answer alone then accepts a wrong
    rationale (check the steps where the task can), and a weak model argues backwards from what it was told.

    Template fields: {question}, {answer}. Raises GsiError for a template without them.
    """

    template: str = TEMPLATE

    def __post_init__(self) -> None:
        wording.check(self.template, "answer_driven")

    def hint(self, query: Query, history: Sequence[Rollout], index: int) -> Hint | None:
        return Hint("answer_driven", wording.fill(self.template, question=query.question, answer=query.answer))
