"""Where a rationale can be cut: its steps, and the place where it first states the final value.

Heuristics on text, made to err on the early side: a cut that is too early costs the model a step more, one that is
too late gives the answer away.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from gsi.types import Query

_LINE_END = re.compile(r"\S[^\S\n]*\n(?:[^\S\n]*\n)*")  # a non-empty line's end with the blank lines after it
_SENTENCE_END = re.compile(r"[.!?][$)\]\"'”’]*(?= )")
_ABBREVIATION = re.compile(r"\b(?:Mr|Mrs|Ms|Dr|St|No|Rs|Prof|Eq|Eqs|Fig|vs|cf|approx|resp|[ap]\.m|e\.g|i\.e)\.$", re.IGNORECASE)


def split_steps(rationale: str) -> list[str]:
    """Steps whose join is the rationale, character by character; a rationale without any border is one step.

    Borders: newlines if at least two lines are not empty; else ` ; ` (the space goes to the right step); else
    sentence ends (likewise). No border leaves a blank step or a space at a step's end.
    """
    for positions in (_lines, _semicolons, _sentences):
        steps = _cut(rationale, positions(rationale))
        if len(steps) > 1:
            return steps
    return [rationale]


def _lines(text: str) -> list[int]:
    return [m.end() for m in _LINE_END.finditer(text)]


def _semicolons(text: str) -> list[int]:
    return [m.end() for m in re.finditer(r" ;(?= )", text)]


def _sentences(text: str) -> list[int]:
    ends = _SENTENCE_END.finditer(text)
    return [m.end() for m in ends if not _ABBREVIATION.search(text[max(0, m.start() - 12) : m.start() + 1])]


def _cut(text: str, positions: list[int]) -> list[str]:
    """Pieces between the positions; a piece that would be blank stays with its neighbour."""
    steps, start = [], 0
    for end in positions:
        if text[start:end].strip() and text[end:].strip():
            steps.append(text[start:end])
            start = end
    return [*steps, text[start:]]


@dataclass(frozen=True)
class Statement:
    """Where a text states a value, as character offsets."""

    marker: int  # start of what announces it (`=`, `answer is`), or of the value itself
    value: int


# what announces a result, then what may stand between it and the value
_MARKER = (
    r"(?P<marker>=|#|≈|→|\\approx|\\Rightarrow|(?i:answer(?: is|:)|\\f?boxed\s*\{|\b(?:is|are|equals?)\b))"
    r"(?:[\s$£€&:*~({]|\\\$|\\(?:text|mathrm|textbf)\s*\{|Rs\.?)*"
)
_SEPARATOR = r"(?:,\\!|\{,\}|\\,|,)"
_NUMBER = (
    r"\\[dt]?frac\s*(?:\{\s*\d+\s*\}|\d)\s*(?:\{\s*\d+\s*\}|\d)"
    rf"|\d{{1,3}}(?:{_SEPARATOR}\d{{3}})+(?!\d)(?:\.\d+)?"
    r"|\d+/\d+|\d+(?:\.\d+)?|\.\d+"
)
# a number that goes on into a calculation (`= 5 + 3`, `= 2 - x`, `= 4\pi`) is an operand, not a result
_GOES_ON = (
    r"(?:[-+*/×÷−x]|\\times|\\cdot|\\div)\s*[$(]?(?:\d|\\|[A-Za-z]\b)"
    r"|\^\s*\{?[\dA-Za-z]|\\pi|\\sqrt"
)  # fmt: skip
_RESULT = re.compile(
    rf"{_MARKER}(?P<value>(?P<sign>[-−+]\s*)?(?:\\?[$£€]\s*)?(?P<number>{_NUMBER}))"
    rf"(?![\d.,]*\d)(?!\s*(?:{_GOES_ON}))"
)  # fmt: skip
_MENTION = re.compile(rf"(?<![\w.])(?P<value>(?P<number>{_NUMBER}))(?!\w)")
_HELD = re.compile(rf"(?<![\w.])(?P<value>(?P<number>{_NUMBER}))(?!\d|_|(?:st|nd|rd|th)\b)")  # `72km` too
_NEVER = r"(?P<value>(?!))"  # matches nothing
_FINAL = re.compile(r"\\f?boxed\s*\{|####|\banswer(?: is|:)", re.IGNORECASE)
_UNIT = re.compile(r"(?:\s|\\(?:text|mbox)\s*\{|\\[,!])+[A-Za-z]{2}[A-Za-z\s./}]*(?:\^\{?[23]\}?\$?)?$")  # `5 hours`, `3\text{ cm}^2`


def first_statement(steps: list[str], answer: str) -> int:
    """Index of the step that first states `answer` as a result; the last step if none is found to.

    A result stands after `=`, `#`, `answer is` or in a box; numbers compare by value (1,000 and 1000, 5.0 and 5, 1/2
    and 0.5). Where the value never stands as a result, its first standalone mention counts (not of a single letter), or
    the first box or `answer is`, whichever comes earlier.
    """
    found = locate("".join(steps), answer)
    if found is None:
        return len(steps) - 1
    end = 0
    for i, step in enumerate(steps):
        end += len(step)
        if found.value < end:
            return i
    return len(steps) - 1


def locate(text: str, answer: str) -> Statement | None:
    """Where `text` first states `answer`, by the rules of `first_statement`; None if it is found nowhere."""
    number = _parse(answer)
    result, mention = (_RESULT, _MENTION) if number is not None else _patterns(answer)
    for m in result.finditer(text):
        if number is None or _value(m) == number:
            return Statement(m.start("marker"), m.start("value"))
    # a mention has no sign: `7 - 5` mentions 5
    mentions = [m.start() for m in mention.finditer(text) if number is None or _value(m) == abs(number)]
    first = min([*mentions, *(m.start() for m in _FINAL.finditer(text))], default=None)
    return None if first is None else Statement(first, first)


def final_values(query: Query) -> list[str]:
    """What counts as stating the final value: the answer, and in multiple choice the text of that option too."""
    letter = query.answer.strip()
    if query.options and len(letter) == 1 and 0 <= (i := ord(letter.upper()) - ord("A")) < len(query.options):
        return [letter, query.options[i]]
    return [query.answer]


def reveals(text: str, query: Query) -> bool:
    """Whether `text` holds the final value anywhere, as a result or in passing, and the question does not; the options that it shows do not count."""
    values, stem = final_values(query), query.question
    for i, option in enumerate(query.options or ()):
        stem = re.sub(rf"\(?\b{chr(65 + i)}\s*[).:]\s*{re.escape(option.strip())}(?!\w)", " ", stem, flags=re.IGNORECASE)
    if len(values) > 1 and re.search(rf"\({values[0]}\)|\b(?i:options?|choices?|answers?)\s*[:(]?\s*{values[0]}\b", text):
        return True
    return any(_holds(text, value) and not _holds(stem, value) for value in values)


def _holds(text: str, answer: str) -> bool:
    if (number := _parse(answer)) is not None:
        return any(_value(m) in (number, abs(number)) for m in _HELD.finditer(text))
    return any(pattern.search(text) for pattern in _patterns(answer))


def _patterns(answer: str) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Patterns (as a result, mentioned) for an answer that is no number: its tokens, however they are spaced."""
    tokens = re.findall(r"\\?[A-Za-z]+|\d+|\S", re.sub(r"\\[!,]|\\left|\\right|\$", "", answer))
    gap = r"(?:\s|\\[!,]|\\left|\\right|\$)*"
    body = gap.join(r"\\[dt]?frac" if re.fullmatch(r"\\[dt]?frac", t) else re.escape(t) for t in tokens)
    if answer.isalpha() and len(answer) > 1:
        body = f"(?i:{body})"  # words (True, yes) in any case; letters of options and variables as they are
    value = rf"(?P<value>(?<![A-Za-z0-9]){body}(?![A-Za-z0-9]))" if tokens else _NEVER
    # an option or a variable counts only as a result: `A` is a word too, and `x` is everywhere
    return re.compile(_MARKER + value), re.compile(_NEVER if re.fullmatch(r"\W*[A-Za-z]\W*", answer) else value)


def _value(m: re.Match[str]) -> Fraction | None:
    value = _parse(m["number"])
    return -value if value is not None and (m.groupdict().get("sign") or "+")[0] in "-−" else value


def _parse(text: str) -> Fraction | None:
    """A number as it stands in text or LaTeX, a unit in words after it or not; None for anything else."""
    text = (
        re.sub(r"\\[!,$%]|\{,\}|Rs\.?|[\s$£€%]|(?<=\d),(?=(?:\\!)?(?:\d{3}(?!\d)|\d{2},))", "", _UNIT.sub("", text))
        .replace("−", "-")
        .rstrip(".")
    )
    text = re.sub(r"\\[dt]?frac(?:\{(\d+)\}|(\d))(?:\{(\d+)\}|(\d))", lambda m: f"{m[1] or m[2]}/{m[3] or m[4]}", text)
    if len(text) > 400 or not re.fullmatch(r"[-+]?(?:\d+/0*[1-9]\d*|\d+\.?\d*|\.\d+)", text, re.ASCII):
        return None
    return Fraction(text)
