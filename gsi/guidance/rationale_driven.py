"""The reference rationale is shown with the question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gsi import wording
from gsi.types import Hint, Query, Rollout

TEMPLATE = """{question}

Here is a reference solution:
{rationale}

Now write your own solution in your own words, complete from start to finish, and do not mention the reference."""


@dataclass(frozen=True)
class RationaleDriven:
    """The question together with its reference rationale; the model writes its own solution.

    Paper (arXiv 2411.00750): the rationale is shown in up to 8 extra attempts, with the request to write one's own.
    Ours: our own wording, which asks for a solution that stands alone, since it is trained after the plain question.
    Fails where the model copies the reference (near-copies are reference training at the price of sampling) or
    refers to it. A query without a rationale gets no hint.

    Template fields: {question}, {rationale}; {answer} if wanted. Raises GsiError for a template without the first two.
    """

    template: str = TEMPLATE

    def __post_init__(self) -> None:
        wording.check(self.template, "rationale_driven")

    def hint(self, query: Query, history: Sequence[Rollout], index: int) -> Hint | None:
        if not query.rationale or query.rationale.isspace():
            return None
        filled = wording.fill(self.template, question=query.question, rationale=query.rationale, answer=query.answer)
        return Hint("rationale_driven", filled)
