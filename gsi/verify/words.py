"""Numbers in words: `one hundred and five`, `half a million`, `three fourths`, `twelve and a half`, `two dozen`."""

from __future__ import annotations

import re
from fractions import Fraction

SCALES = {"hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12, "quadrillion": 10**15, "dozen": 12}
_ONES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
_ONES += ["thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"]
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
VALUES = {w: i for i, w in enumerate(_ONES)} | {w: 10 * i for i, w in enumerate(_TENS, 2)} | SCALES
PARTS = {
    "half": 2,
    "third": 3,
    "fourth": 4,
    "quarter": 4,
    "fifth": 5,
    "sixth": 6,
    "seventh": 7,
    "eighth": 8,
    "ninth": 9,
    "tenth": 10,
    "eleventh": 11,
}
PARTS |= {"twelfth": 12, "fifteenth": 15, "sixteenth": 16, "twentieth": 20, "hundredth": 100}
_WORD = rf"(?:{'|'.join(VALUES)})s?"
_RUN = re.compile(rf"\b{_WORD}(?:(?:[\s-]+|\s+and\s+|(?:(?<=thousand)|(?<=illion)),\s+){_WORD})*\b", re.IGNORECASE)
_PART = rf"(?:{'|'.join(PARTS)}|halve)s?"
_FRACTION = re.compile(
    rf"\b(?:(?P<whole>{_WORD}(?:[\s-]+{_WORD})*)\s+and\s+)?(?P<over>an?|one|{_WORD})[\s-]+(?P<part>{_PART})\b|\b(?P<half>half)\b",
    re.IGNORECASE,
)
_SOME = r"((?:[a-z]+[\s-]+){0,7}?[a-z]+)"  # bounded, else its time grows with the cube of a long text
_CENTS = re.compile(rf"\b{_SOME}\s+dollars?\s+and\s+{_SOME}\s+cents?\b", re.IGNORECASE)
# `one` as a number, not as a pronoun
_ONE = re.compile(
    r"\W*(?:just\s+|only\s+)?one(?:\s+more)?(?:\s+[a-z]+)?\W*|[^:]*:\s*one\s+[a-z]+\W*|.*\b(?:kept|keeps|ate|eats|got|gets|has|have|had|left|needs|bought|gave|received)\s+(?:just\s+|only\s+)?one\s+(?!of\b|more\b|less\b)[a-z]+\W*",
    re.IGNORECASE,
)
_ORDINAL = re.compile(rf"\b(?:first|second|{_PART}|\w+(?:teen|tie)th)\b", re.IGNORECASE)


def in_words(text: str) -> Fraction | None:
    """The one number in words that the text holds; None for none, several, or an ordinal."""
    if "cent" in text and (m := _CENTS.search(text)):
        dollars, cents = in_words(m[1]), in_words(m[2])
        return None if dollars is None or cents is None else dollars + cents / Fraction(100)
    negative = -1 if re.search(r"\b(?:negative|minus)\s", text, re.IGNORECASE) else 1
    if "half" in text.lower() or re.search(rf"\b{_PART}\b", text, re.IGNORECASE):
        value = _with_fraction(text)
        return None if value is None else negative * value
    runs = _RUN.findall(text)
    if len(runs) != 1 or _ORDINAL.search(text) or (runs[0].lower() == "one" and not _ONE.fullmatch(text)):
        return None
    return negative * Fraction(_whole(runs[0]))


def digits(text: str) -> str:
    """Number words as digits; not `one`, fractions, ordinals, nor the scale of a number in digits (`2.5 million`)."""
    if re.search(rf"\b{_PART}\b", text, re.IGNORECASE):
        return text
    return _RUN.sub(
        lambda m: (
            m[0] if m[0].lower() in ("one", "ones") or re.split(r"[\s-]", m[0].lower())[0].rstrip("s") in SCALES else str(_whole(m[0]))
        ),
        text,
    )


def _with_fraction(text: str) -> Fraction | None:
    found = list(_FRACTION.finditer(text))
    if len(found) != 1:
        return None
    m = found[0]
    rest = text[: m.start()] + " " + text[m.end() :]
    scale = re.match(rf"\s*(?:of\s+)?(?:an?\s+)?({'|'.join(SCALES)})\b", text[m.end() :], re.IGNORECASE)
    if scale:
        rest = text[: m.start()] + " " + text[m.end() + scale.end() :]
    if _RUN.search(rest) or _ORDINAL.search(rest) or re.search(r"\d", rest):
        return None
    if m["half"]:
        value = Fraction(1, 2)
    else:
        over = 1 if m["over"].lower() in ("a", "an") else _whole(m["over"])
        part = m["part"].lower()
        value = Fraction(over, 2 if part.startswith("hal") else PARTS[part.rstrip("s")])
        value += _whole(m["whole"]) if m["whole"] else 0
    return value * SCALES[scale[1].lower()] if scale else value


def _whole(words: str) -> int:
    total = part = 0
    for word in re.split(r"[\s,-]+(?:and\s+)?", words.lower()):
        n = VALUES.get(word, VALUES.get(word.rstrip("s"), 0))
        if n == 100 or (n == 12 and word.startswith("dozen")):
            part = max(part, 1) * n
        elif n >= 1000:
            total, part = total + max(part, 1) * n, 0
        else:
            part += n
    return total + part
