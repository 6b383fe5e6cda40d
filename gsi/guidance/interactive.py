"""A stronger model explains what is wrong with one of the model's own attempts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gsi import wording
from gsi.guidance.steps import reveals
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

SOCRATIC = """Question:
{question}

A student's solution, whose final answer is wrong:
{attempt}

The correct final answer, for your eyes only: {answer}

Find the first step that is wrong. Ask the student one or two short questions that make them look at that step again. Do not solve the \
question, and do not reveal the correct final answer or any corrected value."""

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
    ask: str = ASK  # of the teacher; {question}, {attempt}, {answer}
    label: str = "interactive"
    silent: bool = False  # drop feedback that holds the final value

    def __post_init__(self) -> None:
        wording.check(self.template, self.label)

    def hint(self, query: Query, history: Sequence[Rollout], index: int) -> Hint | None:
        wrong = list(dict.fromkeys(r.completion for r in reversed(history) if r.status == "wrong" and r.completion))
        if not wrong:
            return None
        attempt = shorten(wrong[index % len(wrong)])
        ask = wording.fill(self.ask, question=query.question, attempt=attempt, answer=query.answer)
        reply = self.teacher.ask([{"role": "system", "content": SYSTEM}, {"role": "user", "content": ask}])
        feedback = reply.text.strip()
        if not feedback or (self.silent and reveals(feedback, query)):
            return None
        filled = wording.fill(self.template, question=query.question, attempt=attempt, feedback=feedback, answer=query.answer)
        return Hint(self.label, filled)


def own_correction(teacher: Teacher, template: str = TEMPLATE) -> Interactive:
    """The same for data with answers only: a Socratic question about the mistake, from the model itself (`teacher: {kind: self}`) or a teacher.

    Whoever asks knows the model's wrong attempt and the gold final answer; a question that gives the answer away is not used. It brings in
    what the model cannot draw by itself, the answer, without showing it. Fails where the model cannot find its own mistake even so (small
    ones mostly cannot), and where all attempts are cut off or commit to nothing: only `wrong` ones are corrected.
    """
    return Interactive(teacher, template, SOCRATIC, "own_correction", silent=True)


def shorten(text: str, limit: int = ATTEMPT_CHARS) -> str:
    """At most `limit` characters: the middle is cut, since the approach stands at the start and the answer at the end."""
    if len(text) <= limit:
        return text
    kept = limit - len(_CUT)
    return text[: kept - kept // 2] + _CUT + text[len(text) - kept // 2 :]
