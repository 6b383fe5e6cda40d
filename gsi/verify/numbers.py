"""Plain numbers as exact fractions: separators, currency, units, percent, scales, mixed numbers, LaTeX fractions, words.

Nothing is ever compared as a float, save the relative tolerance of TheoremQA, which is a fraction too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

TOLERANCE = Fraction(1, 100)  # TheoremQA: within 0.6 % is right, 4 % is wrong; the border lies between


@dataclass(frozen=True)
class Number:
    value: Fraction
    percent: bool = False
    scale: str = ""  # million, dozen, ...: already in the value


_DIGITS = r"(?:\d{1,3}(?:,\d{2,3})*,\d{3}(?!\d)|\d+)(?:\.\d+)?|\.\d+"
_SCALES = {"hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12}
_NUMBER = re.compile(
    rf"(?<![\w.^\\])(?P<sign>[+-]\s*)?(?P<cur>[$€£¥₹]|US\$|Rs\.?|rs\s?\.?|USD|EUR)?\s*(?P<sign2>-\s*)?(?<![\d.])"
    rf"(?:(?P<whole>\d+)(?:\s+|\s*-\s*(?=\d+/\d))(?=\d+\s*/\s*\d))?"
    rf"(?P<num>{_DIGITS})(?P<exp>[eE][+-]?\d{{1,3}}(?!\w)|\s*(?:\\times|\\cdot|[x*])\s*10\s*\^\s*\{{?\s*(?P<pow>-?\s*\d{{1,3}})\s*\}}?)?"
    rf"(?:\s*/\s*(?P<den>{_DIGITS}))?"
    rf"(?P<scale>\s*(?:{'|'.join(_SCALES)})s?\b)?(?P<pct>\s*(?:\\?%|percent\b|per\s+cent\b|pct\b))?"
)
_ONES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
_ONES += ["thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"]
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_WORDS = {w: i for i, w in enumerate(_ONES)} | {w: 10 * i for i, w in enumerate(_TENS, 2)} | _SCALES
_RUN = re.compile(rf"\b(?:{'|'.join(_WORDS)})s?(?:(?:[\s-]+|\s+and\s+)(?:{'|'.join(_WORDS)})s?)*\b", re.IGNORECASE)
_UNIT = re.compile(
    r"(?:kg|mg|g|km|cm|mm|m|ft|in|mi|lbs?|oz|ml|l|L|s|h|hrs?|am|pm|mph|th|st|nd|rd|J|N|W|V|K|C|F|A|T|Hz|kJ|kW|Pa|eV|[A-Za-z]{3,})\d?(?:\^\{?\d\}?)?\b"
)
HEDGE = re.compile(
    r"\b(?:either|neither|maybe|perhaps|possibly|probably|might|could\s+be|may\s+be|not|cannot|never|otherwise|unsure|"
    r"or\s+(?:more|less|fewer|so)|at\s+(?:least|most))\b|n't\b|[<>]|\\(?:leq?|geq?|lt|gt|neq?)(?![a-z])|\\pm"
    r"|\b(?:over|under|above|below|nearly|almost|up\s+to|between|(?:more|less|fewer|greater|smaller|larger|higher|lower)\s+than)\s+"
    rf"(?:about\s+)?(?:[$\\(]*\d|(?:a\s+)?(?:{'|'.join(_WORDS)})\b)"
    r"|\d\s*(?:\bto\b|\.\.+|\\sim|\\ldots)\s*\$?\d|\bor\b",
    re.IGNORECASE,
)
_UNSURE = re.compile(r"\b(?:not\s+(?:entirely\s+|quite\s+)?(?:sure|certain)|unsure|guess(?:ing)?)\b", re.IGNORECASE)
_REASON = re.compile(
    r"[,;(]*\s*\b(?:because|since|which|where|rather than|instead of|and not|not|given)\b[^=]*$", re.DOTALL | re.IGNORECASE
)
_ADJUNCT = re.compile(
    r"\s*(?:[A-Za-z]+\s+){0,3}?(?:in|for|after|per|on|by|with|during|each|every|when|at|if|from|before|to\s+[a-z]+)\b", re.IGNORECASE
)


def plain(text: str) -> str:
    """LaTeX and markdown dress off, numeric fractions as a/b."""
    text = re.sub(r"([$€£]\s?\d{1,3})((?: \d{3})+)(?!\d)", lambda m: m[1] + m[2].replace(" ", ""), text)
    text = re.sub(
        r"\\frac\s*(?:\{\s*(-?[\d.,]+)\s*\}|(\d))\s*(?:\{\s*(-?[\d.,]+)\s*\}|(\d))", lambda m: f" {m[1] or m[2]}/{m[3] or m[4]}", text
    )
    text = re.sub(r"(?<=[\d+\-=(])\s*- (?=\d+/)", "-", text)
    text = re.sub(r"\\(?:text|mbox|textnormal|mathrm|textbf|mathbf|textit|operatorname)\s*\{([^{}]*)\}", r" \1", text)
    text = re.sub(r"\{,\}|,\\?!|,\s*\\!", ",", text)
    text = re.sub(r"(?<=\d),\s(?=\d{3}\b)(?!\d{3}\s*,)", ",", text) if "\\!" in text else text
    text = re.sub(r"\^\s*\{?\s*\\circ\s*\}?", " degrees", text)
    text = re.sub(r"\\\(|\\\)|\\\[|\\\]|(?<!\\)\$\$?(?!\d)|(?<!\w)\$(?=\d+[^$]*\$)|\*\*(?!\d)|\\!", " ", text)
    text = re.sub(r"^-\s+(?=\d)", "-", text.replace("\\$", "$").replace("\\%", "%").strip())
    return re.sub(r"^\(\s*(-?[\d.,]+)\s*\)$", r"\1", text)


def _value(m: re.Match[str]) -> Fraction | None:
    digits = m["num"].replace(",", "")
    if len(digits) > 200 or len(m["den"] or "") > 200 or len(m["whole"] or "") > 200:
        return None
    value = Fraction(digits)
    if m["den"]:
        den = Fraction(m["den"].replace(",", ""))
        if not den:
            return None
        value /= den
    if m["exp"]:
        value *= Fraction(10) ** int((m["pow"] or m["exp"].strip()[1:]).replace(" ", ""))
    value += int(m["whole"] or 0)
    if m["scale"]:
        value *= _SCALES[m["scale"].strip().rstrip("s")]
    return -value if "-" in (m["sign"] or "") + (m["sign2"] or "") else value


def _words(text: str) -> Fraction | None:
    """The one number in words that the text holds."""
    runs = _RUN.findall(text)
    if (
        len(runs) != 1
        or re.search(r"\b(?:half|halves|thirds?|fourths?|quarters?|fifths?|\w+ths?)\b", text)
        or (runs[0].lower() == "one" and not re.fullmatch(r"\W*one(?:\s+[a-z]+)?\W*", text, re.IGNORECASE))
    ):
        return None
    total = part = 0
    for word in re.split(r"[\s-]+(?:and\s+)?", runs[0].lower()):
        n = _WORDS.get(word, _WORDS.get(word.rstrip("s"), 0))
        if n == 100 or (n == 12 and word.startswith("dozen")):
            part = max(part, 1) * n
        elif n >= 1000:
            total, part = total + max(part, 1) * n, 0
        else:
            part += n
    return Fraction(-(total + part) if re.search(r"\b(?:negative|minus)\s", text, re.IGNORECASE) else total + part)


def read_number(clause: str) -> Number | None:
    """The single number that a clause states; None where it states none, several, a range, a bound or an expression."""
    text = re.sub(r"^\s*\\approx", "", plain(clause))
    if _UNSURE.search(text):
        return None
    head = _REASON.sub("", text, count=1)
    text = head if re.search(r"\d", head) and not re.match(r"\W*(?:not|as)\b", text) else text
    if "=" in text:
        sides = re.split(r"=|\\approx", text)
        if re.search(r"^\W*(?:not\b|either\b)|\b(?:maybe|perhaps|possibly|probably|might be)\b|[<>]|\\[lg]eq?\b", sides[0]):
            return None
        if any(re.search(r",|;|\b(?:and|or)\b", re.sub(r"(?<=\d),(?=\d{3})", "", side)) for side in sides[1:-1]):
            return None  # x = 2, y = 3
        if re.fullmatch(r"[\s$(]*-?\d+\s*[a-z][\s)]*", sides[-2]):
            return None  # 2x = 10 says nothing of x yet
        text = sides[-1]
    elif "\\approx" in text:
        text = text.split("\\approx")[0]
    text = text.strip()
    if HEDGE.search(text):
        return None
    found = list(_NUMBER.finditer(text))
    if not found:
        number = _words(text) if not re.search(r"\d|\\", text) else None
        return None if number is None else Number(number, bool(re.search(r"\bper\s?cent", text)))
    first = found[0]
    values = [_value(m) for m in found]
    if values[0] is None:
        return None
    if any(m["sign"] and re.search(r"[\w)}%]\s*$", text[: m.start()]) for m in found[1:]):
        return None  # an operator, not a sign
    spaced = re.fullmatch(r"\d{1,3}(?: \d{3})+", text)
    if spaced:
        return Number(Fraction(text.replace(" ", "")))
    if len(set(values)) > 1:
        gap = text[first.end() : found[1].start()]
        if re.search(r"[A-Za-z]{2}", text[: first.start()]) or not _ADJUNCT.match(gap) or not _clean_after(gap):
            return None
    elif not all(_clean_after(text[a.end() : b.start() if b else len(text)]) for a, b in zip(found, [*found[1:], None], strict=True)):
        return None
    if re.search(r"[+*/^_!\\{}|]|\b[a-zB-HJ-Z]\s*$|[\w)]\s*-\s*$|\([^)]*$|\[[^\]]*$", re.sub(r"\ba\b", "", text[: first.start()])):
        return None
    if (
        not first["cur"]
        and re.match(r"[-+]", first.group())
        and re.search(r"[\w)]\s*$", text[: first.start()])
        and not re.search(r"[a-z]{2}\s+$", text[: first.start()])
    ):
        return None
    return Number(values[0], bool(first["pct"]), (first["scale"] or "").strip().rstrip("s"))


def _clean_after(rest: str) -> bool:
    """Whether what follows a number is a unit or prose, not more of an expression."""
    if rest[:1].isalpha():
        unit = _UNIT.match(rest)
        if not unit:
            return False
        rest = rest[unit.end() :]
    elif (word := re.match(r"\s+([A-Za-z])\b(?!\.)", rest)) and not (_UNIT.match(word[1]) or word[1] in "aI"):
        return False
    rest = re.sub(r"\b[A-Za-z]+\^\{?\d\}?|/\s*(?=[A-Za-z])|\([^()\d]*\)|\b\d?[A-Za-z]+\d\b", "", rest)
    return (
        rest.strip() not in (",", ";")
        and not re.match(r"\s*and\b", rest)
        and not re.search(r"[+*/^_!\\{}|:<>=]|(?<![a-z])-\s*[\d(a-z]|^\s*[(\[]", rest)
    )


def parse_gold(text: str) -> Number | None:
    """A reference answer that is one plain number, else None."""
    number = read_number(text)
    return number if number and not re.search(r"=|^\s*[\[({]|\d\s*,\s+\d|\d:\d|\d,\d{1,2}(?!\d)", text) else None


def same(gold: Number, got: Number, question: str | None, relative: bool = False) -> bool:
    """Whether two numbers are the same; `20%` is 20 only where a percentage is asked for, and always 0.2."""
    values = [got.value]
    if got.percent and not gold.percent:
        asks = bool(re.search(r"percent|per cent|%", question or "", re.IGNORECASE))
        values = [got.value, got.value / 100] if asks else [got.value / 100]
    if got.scale and re.search(rf"\b(?:how many|in)\s+(?:\w+\s+)?{got.scale}", question or "", re.IGNORECASE):
        values.append(got.value / _SCALES[got.scale])  # `26 billion miles` where billions of miles are asked for
    if relative:
        return any(v == gold.value or (v * gold.value > 0 and abs(v - gold.value) <= TOLERANCE * abs(gold.value)) for v in values)
    return gold.value in values
