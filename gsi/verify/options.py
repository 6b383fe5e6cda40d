"""Multiple choice by value: the one option whose text or number a clause states."""

from __future__ import annotations

import re
from fractions import Fraction

from gsi.verify.doubt import doubtful
from gsi.verify.numbers import NUMBER, Number, plain, value_of
from gsi.verify.statements import read_number
from gsi.verify.words import PARTS, VALUES

_LONG = {
    "s": "sec",
    "m": "met",
    "l": "lit",
    "g": "gram",
    "h": "hour",
    "cm": "cent",
    "mm": "mill",
    "km": "kilom",
    "kg": "kilog",
    "ml": "millil",
}
_LONG |= {"hr": "hour", "hrs": "hour", "ft": "f", "in": "inch", "lb": "pound", "lbs": "pound", "mph": "mile", "kmph": "k", "yrs": "year"}


def by_value(text: str, options: tuple[str, ...], mark: str) -> str | None:
    if not options or not text:
        return None
    stated = {squeeze(text), squeeze(text.rpartition("=")[2])} - {""}
    if len(ratios := re.findall(r"\d+\s*:\s*\d+(?:\s*:\s*\d+)*", text)) == 1 and not doubtful(text):
        stated.add(squeeze(ratios[0]))
    if (over := re.fullmatch(r"\W*(\d+)\s*/\s*(\d+)\W*", plain(text))) and all(":" in o for o in options):
        stated.add(f"{over[1]}:{over[2]}")
    if pair := re.search(r"\(([^(),]*,[^(),]*)\)\W*$", text):
        stated.add(squeeze(pair[1]))
    exact = [i for i, o in enumerate(options) if squeeze(o) in stated]
    if not exact and not doubtful(text):  # by its own words at the end: `By the chain rule, J_g = 2 J_f`
        exact = [i for i, o in enumerate(options) if len(squeeze(o)) > 7 and re.search(rf"(?<![\w.,$]){re.escape(o.strip())}\W*$", text)]
        exact = exact or [
            i for i, o in enumerate(options) if re.fullmatch(r"[A-Za-z]{3,20}", o.strip()) and re.search(rf"\bis\s+{o.strip()}\W*$", text)
        ]
    if not exact:
        got = read_number(_join(text))
        if doubtful(text):
            return None
        numbers = [read_number(re.sub(r"(?<=\d)(\s*[a-z]{1,6})\s+[23]\W*$", r"\1", _join(o))) for o in options]  # 266 cm 2
        if got is None and (stated_values := _results(_join(text))):
            named = [number for number in numbers if number and number.value in stated_values]
            got = named[0] if len(named) == 1 else None
        if got is None:
            return None
        if got.percent and not any(number and (number.percent or number.value == got.value) for number in numbers):
            got = Number(got.value / 100)  # 40% for 2/5
        exact = [i for i, number in enumerate(numbers) if number and number.value == got.value]
        if len(exact) == 1 and not _fits(text, options[exact[0]], mark):
            return None
    return chr(65 + exact[0]) if len(exact) == 1 else None


def _results(text: str) -> set[Fraction | None]:
    """The values of a sentence that states several and nothing else: `the smaller is 3 * 11 = 33 and the larger is 55`."""
    found = list(NUMBER.finditer(text))
    results = [bool(re.search(r"(?:=|\b(?:is|are|equals))\s*$", text[: m.start()])) for m in found]
    inside = [
        bool(
            re.match(r"[\s)]*(?:[-+*/x]|\\times|\\cdot|=)", text[m.end() :])
            or re.search(r"(?:[-+*/x]|\\times|\\cdot)[\s(]*$", text[: m.start()])
        )
        for m in found
    ]
    if not all(r or i for r, i in zip(results, inside, strict=True)):
        return set()
    return {value_of(m) for m, r, i in zip(found, results, inside, strict=True) if r and not i}


_CONTRARY = ({"increase", "decrease"}, {"profit", "loss"}, {"gain", "loss"}, {"more", "less"}, {"rise", "fall"})


def _contrary(text: str, option: str) -> bool:
    """Whether one says a decrease and the other an increase: each has one word of a pair, and not the same."""
    said, offered = (set(re.findall(r"[a-z]+", t.lower())) for t in (text, option))
    return any(pair & said and pair & offered and not pair & said & offered for pair in _CONTRARY)


def _fits(text: str, option: str, mark: str) -> bool:
    """Whether a number that equals an option's can mean that option.

    A percentage is not an amount of money. Without a mark the last sentence has to be an equation or nothing but the
    number, or carry the option's own currency or unit: `A train travels 61 km` does not choose `$61`.
    """
    if _contrary(text, option):
        return False
    money, percent = (bool(re.search(pattern, option)) for pattern in (r"[$€£₹]|\brs\b|\brupees\b|\bdollars\b|\bcents\b", r"%|percent"))
    if not percent and not mark and re.search(r"\d\s*%\s+[a-z]", text):
        return False  # 25 % are girls
    if not percent and re.search(r"\d\s*\\?%", text) and re.search(r"[A-Za-z$€£₹]", option):
        return False
    if mark or "=" in text or not re.search(r"[A-Za-z]{2}", re.sub(r"\\[A-Za-z]+", "", text)):
        return True
    if money:
        return bool(re.search(r"[$€£₹]\s*\d|\b(?:dollars?|rs|rupees?|euros?|cents?)\b", text, re.IGNORECASE))
    unit = re.search(r"\d[\d.,]*\s*([A-Za-z%][A-Za-z%/]*)", option)
    if unit is None:
        return True
    if unit[1] in ("%", "percent"):
        return bool(re.search(r"%|\bper\s?cent", text, re.IGNORECASE))
    said = re.findall(r"(?:\d|\b(?:" + "|".join((*VALUES, *PARTS)) + r"))\s*([A-Za-z%][A-Za-z%/]*)", text, re.IGNORECASE)
    return any(word == unit[1] or word.lower().startswith(_LONG.get(unit[1], unit[1]).lower().rstrip("s")) for word in said)


def _join(text: str) -> str:
    """Options of MathQA are spelled in pieces: `1 / 6`, `- 2`, `. 2`, `rs . 76`, `65500 $`."""
    text = re.sub(r"\\frac\s*\{([^{}]+)\}\s*\{([^{}]+)\}", r" \1/\2", text)
    text = re.sub(r"\brs\s*\.\s*|(?<=\d)\s*\$\s*$|\\?\$", "", plain(text), flags=re.IGNORECASE)
    return re.sub(r"^\s*-\s+(?=[\d.])", "-", re.sub(r"(?<=\d)\s*/\s*(?=\d)", "/", re.sub(r"(?<![\dA-Za-z])\.\s+(?=\d)", ".", text)))


def squeeze(text: str) -> str:
    return re.sub(r"[\s$,\\{}]|\.(?!\d)", "", re.sub(r"(?<=\d)\s+(?=\d)", "_", _join(text).lower()))
