"""The answer stated before it is derived: patterns of claims and of calculations."""

from __future__ import annotations

import re
from collections.abc import Sequence

from gsi.verify.words import digits

_NUMBER = re.compile(r"-?\$?\d{1,3}(?:,\d{3})+(?:\.\d+)?|-?\$?\d+(?:\.\d+)?(?:/\d+)?|\d{1,2}:\d\d")
_DRESSED = re.compile(rf"({_NUMBER.pattern})\s*(?:°|%|\\?[a-zA-Z²³][a-zA-Z²³ ./]*)?")  # with a unit
_OPTION = re.compile(r"\(?\b([A-J])[).:]\s+(.+?)(?=[,;]?\s*\(?\b[A-J][).:]\s|\s*$)", re.DOTALL)
_SAYS = (
    r"(?:\b(?:answer|result|solution|total|outcome|final value|correct (?:option|choice|letter))\b(?: to this| here| of this| we (?:want|need|seek))?\s*(?:will be|must be|should be|has to be|turns out to be|comes out (?:as|to)|is|equals|=|:)"
    r"|\\f?boxed\s*\{|####?|\b(?:it|this|that) (?:must|should|will|has to) (?:be|equal|come to|come out (?:as|to))"
    r"|\b(?:need|want|have|going|aim) to (?:show|get|reach|arrive at|obtain|end up with|derive|prove)(?: that)?(?: \w+){0,6}?)"
    r"(?:\s|[:$*(~]|\\[(\[]|exactly|option|choice|indeed|simply|equal to|the|number|value)*"
)
_DERIVES = re.compile(r"\d[^=\n]{0,80}[-+*/×÷x^][^=\n]{0,80}=|\\frac|\\times|=\s*\$?[-\d(]")


# an operation between numbers, in signs or in words
_CALCULATES = re.compile(
    r"\d[\d.,/%]*\)?\s*(?:[a-zA-Z]+\s+){0,3}[-+*/×÷x^]\s*(?:[a-zA-Z]+\s+){0,2}[$(]*\d|\d\s*=|=\s*[$(]*\d[\d.,]*|\d%\s+of\s+\$?\d|\\(?:frac|times|cdot|sqrt|equiv|binom|[lg]eq?)\b"
    r"|\b(?:plus|minus|times|divided by|multiplied by|subtract(?:ing)?|adding|dividing|multiplying|half of|twice|percent of)\b"
)

_SENTENCE_END = re.compile(r"(?<!\b[MDS][rst])(?<!\bMrs)[.!?]\s+(?=[^a-z])|\n")
_REST_OF_CLAIM = re.compile(r"[^.!?\n,]{0,25}[.!?\n,]+")
_JUSTIFIES = re.compile(r"\W*(?:this is |that is )?(?:because|since|indeed|why|explanation|reason|(?:we|i) can (?:check|verify|justify|see|confirm)|let(?:'s| us| me) (?:check|verify|justify|confirm|see why|prove))\b", re.IGNORECASE)  # fmt: skip


def early_answer(text: str, answer: str, options: Sequence[str] | None = None, question: str = "") -> str | None:
    """The words that announce the final value before anything is calculated, where calculations follow; else None.

    Announced is what a mark or a claim says (`The answer is 72`). With the question, also a number that it does not give, stands before all
    operations and is found once more behind them (`She has 72 left. ...`), and an answer of any form whose reason follows at once (`..., since ...`).
    """
    text, question, answer = (t.replace("−", "-") for t in (text, question, answer.strip()))
    if not options and re.fullmatch("[A-J]", answer) and (shown := dict(_OPTION.findall(question))).get(answer):
        options = [shown.get(letter, "") for letter in "ABCDEFGHIJ"]
    if (work := _DERIVES.search(text)) is not None:
        for value in _values(answer, options):
            m = re.search(_SAYS + value, text, re.IGNORECASE)
            if m and m.start() < work.start() and _DERIVES.search(text, m.end()):
                return m.group()
    if re.match(rf"\W*{re.escape(answer)}(?:\W*\n\s*\S|[).:*]+\s+[A-Z])", text):  # a first line or sentence with nothing else
        return answer
    if options and re.fullmatch("[A-J]", answer):
        question, answer = re.split(r"\(?\bA[).:]", question)[0], options[ord(answer) - ord("A")].strip()
    if not question or not answer:
        return None
    number = _DRESSED.fullmatch(answer)
    return _before_work(digits(text), number[1] if number else answer, digits(question))


def _before_work(text: str, answer: str, question: str) -> str | None:
    """The beginning of the first sentence up to the answer, no calculation but the question's own before it, a number once more or a reason behind it."""
    value = rf"(?<![\d.,/:_^{{])(?<!\d, )\$?{_values(answer, None)[0]}"
    m = re.search(value, text)
    if not m or _SENTENCE_END.search(text[: m.start()].lstrip()):
        return None
    if any(work.group() not in question for work in _CALCULATES.finditer(text, 0, m.start())):
        return None
    rest = _REST_OF_CLAIM.match(text, m.end())
    if rest and _JUSTIFIES.match(text, rest.end()):
        return text[: m.end()]
    again = _NUMBER.fullmatch(answer) and not re.search(value, question) and re.search(value, text[m.end() :])
    return text[: m.end()] if again else None


def _values(answer: str, options: Sequence[str] | None) -> list[str]:
    """Patterns of the answer as it may be written: a number with or without thousands commas, a letter of an option, text as it is."""
    found = [answer.strip()]
    letter = found[0].upper()
    if options and len(letter) == 1 and 0 <= (i := ord(letter) - ord("A")) < len(options):
        found.append(options[i].strip())
    patterns = []
    for value in found:
        if _NUMBER.fullmatch(value):
            digits, dot, rest = value.lstrip("$").replace(",", "").partition(".")
            body = ",?".join(re.findall(r"\d{1,3}(?=(?:\d{3})*$)", digits)) if digits.isdigit() else re.escape(digits)
            patterns.append(rf"\$?{body}{re.escape(dot + rest)}{'0*' if dot else ''}(?!\d|[.,]\d|\s*[-+*/×÷^=]\s*\d)")
        elif value:
            patterns.append(re.escape(value) + r"(?![A-Za-z0-9])")
    return patterns
