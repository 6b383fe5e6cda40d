"""Plain numbers as exact fractions: separators, currency, units, percent, scales, mixed numbers, LaTeX fractions, words.

Nothing is ever compared as a float, save the relative tolerance of TheoremQA, which is a fraction too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from gsi.verify.words import SCALES

TOLERANCE = Fraction(1, 100)  # TheoremQA: within 0.6 % is right, 4 % is wrong; the border lies between


@dataclass(frozen=True)
class Number:
    value: Fraction
    percent: bool = False
    scale: str = ""  # million, dozen, ...: already in the value
    dollars: bool = False


_DIGITS = r"(?:\d{1,3}(?:,\d{2,3})*,\d{3}(?!\d)|\d+)(?:\.\d+)?|\.\d+"
NUMBER = re.compile(
    rf"(?<![\w.^\\])(?P<sign>[+-]\s*)?(?P<cur>[$€£¥₹]|US\$|Rs\.?|rs\s?\.?|USD|EUR)?\s*(?P<sign2>-\s*)?(?<![\d.])"
    rf"(?:(?P<whole>\d+)(?:\s+|\s*-\s*(?=\d+/\d))(?=\d+\s*/\s*\d))?"
    rf"(?P<num>{_DIGITS})(?P<exp>[eE][+-]?\d{{1,3}}(?!\w)|\s*(?:\\times|\\cdot|[x*])\s*10\s*\^\s*[{{(]?\s*(?P<pow>-?\s*\d{{1,3}})(?:\s*[)}}])?)?"
    rf"(?:\s*/\s*(?P<den>{_DIGITS}))?"
    rf"(?P<scale>\s*(?:{'|'.join(SCALES)})s?\b|k\b|(?(cur)\s?(?:K|M|B|bn|mn)\b|(?!)))?(?P<pct>\s*(?:\\?%|percent\b|per\s+cent\b|pct\b))?"
)
REPEATING = re.compile(r"(\d*)\.(\d*)\\overline\s*\{?(\d{1,30})\}?")


def repeating(m: re.Match[str]) -> str:
    """`0.1\\overline{6}` as a fraction."""
    whole, head, tail = m[1] or "0", m[2], m[3]
    value = Fraction(int(whole + head + tail) - int(whole + head), 10 ** len(head + tail) - 10 ** len(head))
    return f" \\frac{{{value.numerator}}}{{{value.denominator}}} "


_SIGNED = re.compile(
    r"(\b(?=negative\b)|^\W*(?=minus\b)|\b(?:is|are|be|was|equals?|to|about|just)\s+(?=minus\b)|[=:]\s*(?=minus\b))(?:negative|minus)\s+(?=[$]?\d)",
    re.IGNORECASE,
)
_SPACED = re.compile(
    r"(?<![\d.,:/^*+=x-])(?<![\d=*/+x-] )(?:[$€£]\s?)?\b[1-9]\d{0,2}(?: \d{3})+(?![\d.,]?\d|\s*[-+*/=x%^])(?!\s*(?:[a-z]+\s+){1,3}\d)"
)


def plain(text: str) -> str:
    """LaTeX and markdown dress off, numeric fractions as a/b."""
    if "overline" in text:
        text = REPEATING.sub(repeating, text)
    if (spaced := _SPACED.findall(text)) and (len(spaced) == 1 or all("$" in s for s in spaced)):
        text = _SPACED.sub(lambda m: m[0].replace(" ", ""), text)
    text = re.sub(
        r"\\frac\s*(?:\{\s*(-?[\d.,]+)\s*\}|(\d))\s*(?:\{\s*(-?[\d.,]+)\s*\}|(\d))", lambda m: f" {m[1] or m[2]}/{m[3] or m[4]}", text
    )
    text = re.sub(r"(?<=[\d+\-=(])\s*- (?=\d+/)", "-", text)
    if "\\frac" in text:  # hours/year
        text = re.sub(r"\\frac\s*\{\s*(\\(?:text|mathrm)\s*\{[^{}]*\})\s*\}\s*\{\s*(\\(?:text|mathrm)\s*\{[^{}]*\})\s*\}", r" \1/\2", text)
    if "'" in text:
        text = re.sub(r"(?<=\d)'(?=\d{3}(?!\d))", ",", text)  # 1'040
    if _SIGNED.search(text):
        text = _SIGNED.sub(r"\1-", text)
    if "below" in text:
        text = re.sub(r"(?<![-\d.])(\d[\d,.]*[^\d.,;]{0,25}?)\s*below\s+zero\b", r"-\1", text)
    if "cent" in text:
        text = re.sub(r"\$?(\d+)(?:\s+dollars?)?\s+and\s+(\d\d)\s+cents\b", r"$\1.\2", text)
    if ":00" in text:
        text = re.sub(r"\b(\d{1,2}):00\b(?!:)", r"\1", text)
    if "\\" in text:
        text = re.sub(r"(?<!\\)\\[,;:](?=[A-Za-z])", " ", text)  # m\,s
    if "^" in text:  # m s^{-2}, m/s^{2}
        text = re.sub(
            r"\^\s*\{\s*(\d)\s*\}",
            r"^\1",
            re.sub(r"(?:(?<=[A-Za-z])|(\\(?:text|mathrm)\s*\{[^{}]*\}))\s?\^\s?\{?\s?-\s?\d\s?\}?", r"\1", text),
        )
    text = re.sub(
        r"\\(?:text|mbox|textnormal|mathrm|textbf|mathbf|textit|operatorname|underline|textrm|textsf|mathit|mathsf|bm|boldsymbol|emph|underset\{[^{}]*\}|color\{[^{}]*\})\s*\{([^{}]*)\}",
        r" \1",
        text,
    )
    if "\\cdot" in text:
        text = re.sub(r"(?<=[A-Za-z])\s*\\cdot\s*(?=[A-Za-z])", " ", text)  # J·s
    text = re.sub(r"\{,\}|,\\?!|,\s*\\!", ",", text)
    text = re.sub(r"(?<=\d),\s(?=\d{3}\b)(?!\d{3}\s*,)", ",", text) if "\\!" in text else text
    text = re.sub(r"\^\s*\{?\s*\\circ\s*\}?", " degrees", text)
    text = re.sub(r"\\\(|\\\)|\\\[|\\\]|(?<!\\)\$\$?(?!\d)|(?<![\w\\])\$(?=\d+[^$]*\$(?!\d))|\*\*(?!\d)|\\!", " ", text)
    text = re.sub(r"^-\s+(?=\d)", "-", text.replace("\\$", "$").replace("\\%", "%").strip())
    return re.sub(r"^[(\[{]\s*(-?[\d.,]+)\s*[)\]}]$", r"\1", text)


_LETTERS = {"k": 1000, "K": 1000, "M": 10**6, "mn": 10**6, "B": 10**9, "bn": 10**9}


def value_of(m: re.Match[str]) -> Fraction | None:
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
        value *= _LETTERS.get(m["scale"].strip()) or SCALES[m["scale"].strip().lower().rstrip("s")]
    return -value if "-" in (m["sign"] or "") + (m["sign2"] or "") else value


_PERCENT = re.compile(r"percent|per cent|%", re.IGNORECASE)
# `what percentage`, `in %`; in `a 20% tip` it is given
_PERCENT_ASKED = re.compile(r"(?<![\d\s\\}$)])[\s(]*\b(?:percent|per\s+cent)|(?<![\d\s\\}$)])[\s(]+\\?%|\bpercentage", re.IGNORECASE)
_OTHER_ASKED = re.compile(r"\bhow\s+[a-z]+\b|\b(?:value|price|cost|amount|money|number|distance|total)\b", re.IGNORECASE)


def _asks_percentage(question: str) -> bool:
    """Whether `20%` may be meant by a gold of 20: asked for, or given in the question, which then asks for no number of things or money."""
    if not _PERCENT.search(question):
        return False
    asked = next((s for s in reversed(re.split(r"(?<=[.!?])\s+", question)) if "?" in s), "")
    return bool(_PERCENT_ASKED.search(question)) or not _OTHER_ASKED.search(asked)


def same(gold: Number, got: Number, question: str | None, relative: bool = False) -> bool:
    """Whether two numbers are the same; `20%` is 20 only where a percentage is asked for, and always 0.2."""
    values = [got.value]
    if got.percent and not gold.percent:
        asks = _asks_percentage(question or "")
        values = [got.value, got.value / 100] if asks else [got.value / 100]
    if got.scale and re.search(rf"\b(?:how many|in)\s+(?:\w+\s+)?{got.scale}", question or "", re.IGNORECASE):
        values.append(got.value / SCALES.get(got.scale, 1000))  # `26 billion miles` where billions of miles are asked for
    if gold.percent and not got.percent:
        values.append(got.value * 100)  # 0.15 for 15%
    if got.dollars and re.search(r"\bcents?\b", question or "", re.IGNORECASE):
        values.append(got.value * 100)
    if relative:
        return any(v == gold.value or (v * gold.value > 0 and abs(v - gold.value) <= TOLERANCE * abs(gold.value)) for v in values)
    return gold.value in values
