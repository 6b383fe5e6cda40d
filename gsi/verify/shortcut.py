"""The short way for the commonest responses: a marked plain number is the last thing said."""

from __future__ import annotations

import re
from fractions import Fraction

from gsi.verify.numbers import Number

_END = re.compile(
    r"(?:####\s?|\b(?:the|final)\s+answer\s+is:?\s|\banswer:(?:\*\*)?\s?)\$?(?P<plain>-?\d{1,3}(?:,\d{3})+|-?\d{1,18}(?:\.\d{1,12})?)\.?\s*\Z"
    r"|\\boxed\{\$?(?P<box>-?\d{1,18}(?:\.\d{1,12})?)\}[$.\s]*\Z",
    re.IGNORECASE,
)
# whatever could make another place of the response count; with one of these it is read the long way
_ELSEWHERE = (
    *[
        "reference",
        "gold",
        "expected",
        "official",
        "truth",
        "textbook",
        "key",
        "question",
        "problem",
        "exercise",
        "example",
        "user",
        "human",
        "instruction",
        "<",
        "not",
        "n't",
        "maybe",
        "perhaps",
        "possibly",
    ],
    *[
        "probably",
        "people",
        "students",
        "thought",
        "guess",
        "inst]",
        "express",
        "round",
        "wrong",
        "incorrect",
        "false",
        "untrue",
        "unlikely",
        "impossible",
        "suppos",
        "assum",
        "whether",
        "unless",
        "tempting",
        "naive",
    ],
    "\nq",
    "if the",
)


def ends_with_number(response: str, question: str | None) -> str | None:
    """The digits of a plain number with a usual mark before it at the very end of a response; None = read it the long way."""
    m = _END.search(response, max(0, len(response) - 80))
    if m is None:
        return None
    text = response.lower()
    if any(word in text for word in _ELSEWHERE) or max(text.count("boxed") - 1, text.count("####") - 3, text.count("answer") - 3) > 0:
        return None
    if question and response.strip() in question:
        return None
    return (m["plain"] or m["box"]).replace(",", "")


def stated_at_the_end(response: str, question: str) -> Number | None:
    """The short way for the commonest responses: a marked plain number is the last thing said. Says the same as the long way."""
    digits = ends_with_number(response, question)
    return None if digits is None else Number(Fraction(digits))
