"""Whether a number is the one that was asked for: `36 cakes` where eggs are counted, `7 weeks` for days, `Amy is 18` where Tom's age is asked."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from gsi.verify.asked import COMPARES, asking, stem, wanted
from gsi.verify.numbers import NUMBER, Number, plain, value_of
from gsi.verify.words import digits, in_words

_UNITS = {
    "time": "second sec|minute min|hour hr|day|week|month|year yr|decade",
    "mass": "milligram mg|gram g|kilogram kg kilo|pound lb|ounce oz|ton tonne",
    "length": "millimeter mm millimetre|centimeter cm centimetre|meter m metre|kilometer km kilometre|inche inch|foot feet ft|yard|mile mi",
    "volume": "milliliter ml millilitre|liter l litre|gallon|quart|pint",
}
# word -> (what it measures, the unit)
_UNIT = {stem(word): (kind, unit.split()[0]) for kind, units in _UNITS.items() for unit in units.split("|") for word in unit.split()}
# asked for -> what is its contrary: `the buyer pays $60` does not say what she saves
_CONTRARY = [
    (re.compile(rf"\b(?:{asked})\b", re.IGNORECASE), re.compile(rf"\b(?:{contrary})\s+(?:\w+\s+)?[$]?\d", re.IGNORECASE))
    for asked, contrary in (
        ("save|saves|saved|savings?|discounts?|off", "pays?|paid|costs?"),
        ("pays?|paid|costs?|spends?|spent", "saves?|saved|earns?|earned"),
        ("earn(?:s|ed|ings)?|makes?|made|profits?", "spends?|spent|pays?|paid|costs?"),
        (
            "left|remain(?:s|ed|ing)?|still|has|have|had|is|are|keeps?|kept|leaving|leaves?",
            "ate|eats?|gave|gives?|sold|sells?|used|uses|lost|loses?|spent|spends?",
        ),
    )
]
_NAME = re.compile(r"\b[A-Z][a-z]+\b")
_NO_NAMES = frozenset(
    [
        "A",
        "An",
        "After",
        "All",
        "And",
        "As",
        "At",
        "Before",
        "But",
        "By",
        "Each",
        "Every",
        "Find",
        "For",
        "From",
        "He",
        "Her",
        "His",
        "How",
        "If",
        "In",
        "It",
        "Its",
        "On",
        "One",
        "She",
        "Since",
        "Some",
        "The",
        "Their",
        "Then",
        "There",
        "They",
        "This",
        "To",
        "Two",
        "Three",
        "What",
        "When",
        "Where",
        "Which",
        "Who",
        "With",
        "Question",
        "Answer",
        "Choices",
        "Total",
        "Let",
        "We",
        "So",
        "Thus",
        "Therefore",
        "Hence",
        "Finally",
    ]
)
_SUBJECT = re.compile(r"\b(?:is|was|does|did|do|will|has|had|can|must|should|would)\s+([A-Z][a-z]+)\b(?!'|\s+(?:and|or|&)\b)")
_POINTS = re.compile(r"(?<![A-Za-z\\])[A-Z]{2,3}(?![A-Za-z])")
_UNKNOWN = re.compile(r"\b(?:value\s+of|what\s+is|find|compute|solve\s+for|determine)\s+\$?([a-z])\$?(?=\s*[?.,]|\s*$)", re.IGNORECASE)
_SOLVED = re.compile(r"^\W*([a-zA-Z])\s*=\s*[^=,;]*$")
_PARTS = re.compile(r"[,;]\s+(?:and\s+|while\s+|but\s+)?(?!\d)|\s+(?:and|while|whereas)\s+(?=[A-Z])")
_OPENING = re.compile(r"^\W*(?:(?:so|thus|therefore|hence|then|finally)\b\W*)?")
_ASKED_THAN = re.compile(r"\bhow\s+(?:much|many)\s+(?P<how>[a-z]+)\b(?P<one>[^.?!]*?)\bthan\b(?P<other>[^.?!]*)", re.IGNORECASE)
_SAID_THAN = re.compile(r"(?P<one>.*?)\b(?P<how>more|fewer|less|[a-z]{2,}er)\b(?:\s+[a-z]+){0,4}?\s+than\b(?P<other>.*)", re.IGNORECASE)


class Asked(NamedTuple):
    """What a question asks for, as far as it can be told; empty where it cannot."""

    noun: frozenset[str]  # stems of the counted phrase
    unit: tuple[str, str] | None
    counted: frozenset[str]  # stems of what the question's numbers count
    subject: frozenset[str]  # the one whose number it is
    named: frozenset[str]  # everybody in the question
    sentence: str


@lru_cache(maxsize=512)
def _asked(question: str) -> Asked:
    sentence = asking(question)
    noun = wanted(question)
    unit = _UNIT.get(noun[0]) if noun else None
    if unit is None and (m := re.search(r"\bin\s+([a-z]+)\b(?=\s*[?,.)]|\s+(?:did|do|does|is|are|was|will)\b)", sentence, re.IGNORECASE)):
        unit = _UNIT.get(stem(m[1]))
    if unit is None and re.search(r"\bhow\s+old\b", sentence, re.IGNORECASE) and not re.search(r"\b(?:month|week|day)s?\b", question):
        unit = _UNIT["year"]
    text = digits(re.split(r"answer choices", question, flags=re.IGNORECASE)[0])
    counted = {stem(word) for word in re.findall(r"\d[\d.,]*\s+(?:[a-z]+ly\s+)?([a-z]{3,}s)\b", text)}
    subject = {m[1] for m in _SUBJECT.finditer(sentence)} - _NO_NAMES
    named = set(_NAME.findall(text)) - _NO_NAMES
    return Asked(noun[1] if noun else frozenset(), unit, frozenset(counted), frozenset(subject), frozenset(named), sentence)


def beside(clause: str, question: str, number: Number, mark: str) -> str | None:
    """Why the number of a clause is not what the question asks for; None where nothing speaks against it."""
    asked = _asked(question)
    if "=" in clause:
        return "of something else" if not mark and _other_name(clause, asked.sentence) else None
    text = digits(plain(clause))
    after = next((text[m.end() :] for m in reversed(list(NUMBER.finditer(text))) if value_of(m) == number.value), None)
    if after is not None and (m := re.match(r"\s*-?\s*([A-Za-z]+)((?:\s+[a-z]+){0,4})", after)):
        word, rest = stem(m[1]), [stem(w) for w in m[2].split()]
        unit = _UNIT.get(word)
        if asked.unit and unit and unit[0] == asked.unit[0] and unit != asked.unit and not _mentions(text, asked.unit):
            return "another unit"
        if asked.noun and word in asked.counted and word not in asked.noun and not asked.noun & set(rest) and "and" not in rest[:2]:
            return "another thing is counted"
    if mark:
        return None
    if asked.subject and not any(re.search(rf"\b{name}\b", clause) for name in asked.subject):
        first = _NAME.match(clause, _OPENING.match(clause).end())  # type: ignore[union-attr]
        if first and first[0] in asked.named and first[0] not in asked.sentence and not re.match(r"'|\s+and\b", clause[first.end() :]):
            return "of somebody else"
    for wish, contrary in _CONTRARY:
        if wish.search(asked.sentence) and not contrary.search(asked.sentence) and contrary.search(text) and not wish.search(text):
            return "of something else"
    if _turned(clause, asked.sentence):
        return "the comparison is turned round"
    return None


def _mentions(text: str, unit: tuple[str, str]) -> bool:
    return any(_UNIT.get(stem(word)) == unit for word in re.findall(r"[A-Za-z]+", text))


def _other_name(clause: str, sentence: str) -> bool:
    """Whether a clause gives the value of another line, angle or unknown than the one that is asked for: `x = 5` for y, `CBD = 72` for `ABC`."""
    points = {"".join(sorted((p[0], p[-1]))) + p[1:-1] for p in _POINTS.findall(sentence)}
    if points and (given := _POINTS.findall(clause.rpartition("=")[0])):
        p = given[-1]
        return "".join(sorted((p[0], p[-1]))) + p[1:-1] not in points
    unknown, solved = _UNKNOWN.search(sentence), _SOLVED.match(clause.replace("$", ""))
    return bool(unknown and solved and unknown[1] != solved[1])


def own_part(clause: str, question: str) -> str:
    """Of `Tom is eighteen, and Amy is six` the part on the one that is asked for, where every part with a number is on somebody."""
    asked = _asked(question)
    if len(asked.subject) != 1 or len(asked.named) < 2 or COMPARES.search(asked.sentence):
        return clause
    parts = [p for p in _PARTS.split(clause) if p]
    if not all(re.search(r"\d", p) or in_words(p) is not None for p in parts):
        return clause
    names = [m[0] if (m := _NAME.match(p, _OPENING.match(p).end())) and m[0] in asked.named else None for p in parts]  # type: ignore[union-attr]
    (subject,) = asked.subject
    return parts[names.index(subject)] if len(parts) > 1 and None not in names and names.count(subject) == 1 else clause


def _turned(clause: str, sentence: str) -> bool:
    """Whether `A jumped 5 inches farther than B` answers how much farther B jumped than A."""
    asked, said = _ASKED_THAN.search(sentence), _SAID_THAN.match(clause)
    if asked is None or said is None or asked["how"].lower() != said["how"].lower():
        return False
    one = set(re.findall(r"[a-z]{3,}", asked["one"].lower()))
    other = set(re.findall(r"[a-z]{3,}", asked["other"].lower()))
    both = one & other
    first, second = (set(re.findall(r"[a-z]{3,}", part.lower())) - both for part in (said["one"], said["other"]))
    return bool(first & other and second & one and not first & one - other - both and not second & other)
