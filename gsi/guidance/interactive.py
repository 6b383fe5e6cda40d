"""A stronger model explains what is wrong with one of the model's own attempts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gsi.guidance import wording
from gsi.types import Hint, Query, Rollout, Teacher

TEMPLATE = """{question}

An earlier attempt at this question was wrong:
{attempt}

A teacher says of it:
{feedback}

Now write a complete new solution. It must stand alone: do not mention the earlier attempt or the teacher."""

SYSTEM = "You are a patient teacher. You point out where a student's solution goes wrong, so that the student can solve the question alone."
ASK = """Question:
{question}

The student's solution, whose final answer is wrong:
{attempt}

The correct final answer, for your eyes only: {answer}

Explain in a few sentences where the student first goes wrong and how to think about that step. Do not solve the question, and do not \
reveal the correct final answer."""

ATTEMPT_CHARS = 4000  # of an attempt, so that a response that rambles to its limit fits into both contexts
_CUT = "\n[...]\n"


@dataclass(frozen=True)
class Interactive:
    """A teacher explains the mistake in one wrong attempt; the model reads both and solves the question again.

    Paper (arXiv 2411.00750): a stronger model sees the question, the model's wrong answer and the gold answer and
    explains the mistake; the released code passes the whole gold rationale as "the correct final answer" and may tell
    the teacher that a right response is wrong. Ours: the teacher gets the gold final answer only, and only attempts
    that the checker calls `wrong` (not those that failed, were cut off or gave no answer). Several guided attempts of
    one query go through its distinct wrong responses, the most recent first.

    Fails where the teacher is no better than the model or gives the answer away in spite of the request, and where
    the checker calls a right answer wrong. No wrong attempt, or a teacher that returns nothing: no hint. Raises
    what the teacher raises.

    Template fields: {question}, {attempt}, {feedback}; {answer} if wanted. Raises GsiError for a template without
    the first three.
    """

    teacher: Teacher
    template: str = TEMPLATE

    def __post_init__(self) -> None:
        wording.check(self.template, "interactive", ("question", "attempt", "feedback"), ("answer",))

    def hint(self, query: Query, history: Sequence[Rollout], index: int) -> Hint | None:
        wrong = list(dict.fromkeys(r.completion for r in reversed(history) if r.status == "wrong" and r.completion))
        if not wrong:
            return None
        attempt = shorten(wrong[index % len(wrong)])
        ask = wording.fill(ASK, question=query.question, attempt=attempt, answer=query.answer)
        reply = self.teacher.ask([{"role": "system", "content": SYSTEM}, {"role": "user", "content": ask}])
        feedback = reply.text.strip()
        if not feedback:
            return None
        filled = wording.fill(self.template, question=query.question, attempt=attempt, feedback=feedback, answer=query.answer)
        return Hint("interactive", filled)


def shorten(text: str, limit: int = ATTEMPT_CHARS) -> str:
    """At most `limit` characters: the middle is cut, since the approach stands at the start and the answer at the end."""
    if len(text) <= limit:
        return text
    kept = limit - len(_CUT)
    return text[: kept - kept // 2] + _CUT + text[len(text) - kept // 2 :]
