"""The process check: equations between numbers in a rationale are evaluated, by hand and not by `eval`.

`<<48/2=24>>`, `48 clips / 2 = 24`, `$5 x 3 + 2 = 17`, chains such as `3 + 4 = 5 + 2 = 7`. An equation with an unknown, a
function, a remainder or anything else that is not plain arithmetic is passed over: it is not checkable.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise

from gsi.verify.arithmetic import Value, evaluate
from gsi.verify.tidy import tidy

MAX_EQUATIONS = 200
MAX_TOKENS = 60  # of one side

_MARK = re.compile(r"<<([^<>=]{1,200})=([^<>=]{1,60})>>")
_NUM = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+"
_TOKEN = re.compile(
    rf"(?P<num>{_NUM})|(?P<op>[-+*/^])|(?P<lp>\()|(?P<rp>\))|(?P<pct>%)|(?P<word>[A-Za-z]+(?:\^[23](?!\d))?(?:\s?/\s?[A-Za-z]+(?:\^[23](?!\d))?)*)|(?P<other>\S)"
)
_REWRITES = [
    (re.compile(pattern, re.IGNORECASE | re.MULTILINE), new)
    for pattern, new in (
        (r"\\(?:times|cdot)\b|\*\*(?=[^\d(])", "*"),
        (r"\\div\b|\bdivided by\b", "/"),
        (r"\*\*", "^"),
        (r"(?<![\d.}])(\d+)\s*\\frac\s*\{\s*(\d+)\s*\}\s*\{\s*(\d+)\s*\}", r"(\1+\2/\3)"),
        (r"\\frac\s*\{\s*([\d.,]+)\s*\}\s*\{\s*([\d.,]+)\s*\}", r"(\1/\2)"),
        (r"\\(?:text|mathrm|mbox)\s*\{([^{}]*)\}", r" \1 "),
        (r"\{,\}", ","),
        (r"\\%", "%"),
        (r"\\approx|\\\(|\\\)|\\\[|\\\]|&|\\\\", lambda m: "=" if m.group().startswith("\\a") else " "),
        (r"\\\$|[$€£¥₹]|\bRs\.?(?=\s*\d)|\bUS(?=\s*\d)", " "),
        (r"(?<=[\d)%])\s*[x×]\s*(?=[\d(.$])|(?<=[\d)%])\s+(?:times|multiplied by)\s+(?=[\d(])", "*"),
        (r"(?<=\d)\s+(?:plus)\s+(?=\d)", "+"),
        (r"(?<=\d)\s+(?:minus)\s+(?=\d)", "-"),
        (r"(?<=\d%)\s*of\s+(?=\d)|(?<=\d/\d)\s*of\s+(?=\d)", "*"),
        (r"(?<=\d)\s?percent\b|(?<=\d)\s?per cent\b", "%"),
        (r"(?<![\d/.])(\d+)(?: and)? +(\d+)/(\d+)(?![\d/])", r"(\1+\2/\3)"),
        (r"(?<=[\dA-Za-z])\s*/\s+(\d+/\d+)(?!\d|/\d)", r" / (\1)"),
        (r"--+|\^\s*1/\d", "_"),
        (r"^\W*(?:step|part|day|week|case)\s*\d+\s*[-:.)]", " "),
    )
]
_BULLET = re.compile(r"^\s*[-*]\s+")
_LETTERS = re.compile(r"(?<![A-Za-z])\d+([A-Za-z])(?![A-Za-z])")
_LINE = re.compile(r"\n+|(?<=[.;!?])\s+(?=[A-Z])")
_EQUALS = re.compile(r"(?<![<>!:=\\])=(?![=>])")
_STOP = frozenset("\\_{}|^!'~<>")  # beside an expression: it goes on in a way that is not read here
_UNIT_LETTERS = frozenset("gmhslLaI")
_CONVERSIONS = frozenset(Fraction(n) for n in (Fraction(18, 5), 3, 4, 7, 12, 16, 24, 30, 36, 52, 60, 100, 365, 1000, 3600, 5280, 10**6))
_CONVERTS = re.compile(
    r"cent|minute|min\b|hour|second|feet|foot|inch|yard|mile|gram|\bkg|ounce|pound|week|day|month|year|dozen|million|thousand|meter|liter|\bk?m\b|"
    r"\bcm|ft\b|km/hr?|m/s|\bsec|quart|gallon|pint|cup|hundred|\bml|percent|dime|quarter|nickel|penn",
    re.IGNORECASE,
)


def check_steps(response: str, words: bool = True) -> bool | None:
    """True when at least one equation could be checked and all hold, False when one does not, None when none could.

    Args:
        words: whether units and other words may stand between the numbers; without it (mathematics, where letters are
            unknowns) an equation with any letter beside it is passed over.

    Rounding to the digits shown holds, and so does `5 + 5 = 10 + 3 = 13`, where the sum goes on behind the result.
    """
    seen = False
    for left, right, line in equations(response):
        holds = _holds(left, right, line, words)
        if holds is False:
            return False
        seen = seen or holds is True
    return True if seen else None


def failing(response: str, words: bool = True) -> list[str]:
    """The equations that do not hold, as text."""
    return [f"{left.strip()} = {right.strip()}" for left, right, line in equations(response) if _holds(left, right, line, words) is False]


def equations(response: str) -> list[tuple[str, str, str]]:
    """(left, right, the line it stands in) of every `=`, dress and words for operators rewritten."""
    found: list[tuple[str, str, str]] = []
    for m in _MARK.finditer(response):
        found.append((_rewrite(m[1]), _rewrite(m[2]), ""))
    text = _MARK.sub("", response) if found else response
    if "=" not in text and "≈" not in text:
        return found
    for line in _LINE.split(_rewrite(tidy(text))):
        if "=" not in line:
            continue
        sides = _EQUALS.split(line[:2000])
        found += [(a, b, line) for a, b in pairwise(sides)]
        if len(found) > MAX_EQUATIONS:
            break
    return found[:MAX_EQUATIONS]


def _rewrite(text: str) -> str:
    for pattern, new in _REWRITES:
        text = pattern.sub(new, text)
    return text


Token = tuple[str, str, int]  # kind, text, position


def _tokens(text: str) -> list[Token]:
    return [(m.lastgroup or "", m.group(), m.start()) for m in _TOKEN.finditer(text)]


def _holds(left: str, right: str, line: str, words: bool) -> bool | None:
    if not words and re.search(r"[A-Za-z\\]|\d\s*[_!]", f"{left} = {right}"):
        return None
    if re.search(
        r"\bmod\b|remain|\bdigit|^\W*\d+ and \(|\br\s?\d|\d\s?r\b|left over|\bratio\b|\(\d\)\s*[-+]\s*\(\d\)",
        right[:60] + left[-40:],
        re.IGNORECASE,
    ):
        return None
    if words:
        left, right = _BULLET.sub("", left), _BULLET.sub("", right)
    tokens = _tokens(left[-300:])
    a, b = _ending(tokens), _beginning(_tokens(right[:300]))
    if a is None or b is None or not (_operates(a) or _operates(b)):
        return None
    if not _operates(a) and any(kind == "word" for kind, _, _ in tokens):
        return None  # the price of 5 shirts = 3 * 5
    if set(_LETTERS.findall(left[-300:])) != set(_LETTERS.findall(right[:300])) and _LETTERS.search(
        left[a[0][2] - len(left[-300:]) :] + " " + right[:60]
    ):
        return None  # 2L + 11 = 35
    if _agree(a, b) or (len(b) > 1 and _operates(a) and b[0][0] == "num" and _agree(a, b[:1])):
        return True
    x, y = evaluate(a), evaluate(b)
    if x is None or y is None:
        return None
    if x.value and y.value and _CONVERTS.search(line) and (x.value / y.value in _CONVERSIONS or y.value / x.value in _CONVERSIONS):
        return None  # 30 minutes * 4 = 2 hours
    if any(text in "+-" for kind, text, _ in a[1:] if kind == "op") and len({m.lower() for m in _CONVERTS.findall(line)}) > 1:
        return None  # 4 pounds - 6 ounces = 58 ounces
    return False


def _operates(tokens: Sequence[Token]) -> bool:
    return any(kind == "op" for kind, _, _ in tokens[1:])


def _without_units(tokens: list[Token]) -> list[Token]:
    """Up to three words behind a number are its unit where an operator or the end follows."""
    kept: list[Token] = []
    i = 0
    while i < len(tokens):
        if tokens[i][0] == "word" and kept and kept[-1][0] in ("num", "rp", "pct"):
            j = i
            while j < len(tokens) and j - i < 3 and tokens[j][0] == "word" and not _breaks(tokens[j][1]):
                j += 1
            follows_operator = (
                j < len(tokens)
                and tokens[j][0] in ("op", "rp")
                and not (tokens[j][1] == "-" and j + 1 < len(tokens) and tokens[j + 1][0] == "word")
            )
            if j > i and (follows_operator or j == len(tokens)) and not _unknown(tokens[i], kept[-1]):
                i = j
                continue
        if (
            tokens[i][1] == "/"
            and kept
            and kept[-1][0] == "num"
            and i + 1 < len(tokens)
            and tokens[i + 1][0] == "word"
            and len(tokens[i + 1][1]) > 1
        ):
            i += 2  # $5/hour
            continue
        kept.append(tokens[i])
        i += 1
    return kept


_NO_UNIT_WORDS = (
    "a and are be by for from gets get gives he if in is it left of on or she "
    "so than that the then there therefore they thus to was we were which with"
)
_NO_UNIT = frozenset(_NO_UNIT_WORDS.split())


def _breaks(word: str) -> bool:
    """Words that no unit holds, and letters that may be unknowns."""
    return word.lower() in _NO_UNIT or (len(word) == 1 and word not in _UNIT_LETTERS)


def _unknown(word: Token, number: Token) -> bool:
    """`2x`, `5 n`: a letter that is no unit."""
    return len(word[1]) == 1 and word[1] not in _UNIT_LETTERS


def _ending(tokens: list[Token]) -> list[Token] | None:
    """The expression that a side ends with; None where it is not plain arithmetic."""
    tokens = _without_units(tokens)
    depth, start = 0, len(tokens)
    while start > 0:
        kind, text, _ = tokens[start - 1]
        if kind == "rp":
            depth += 1
        elif kind == "lp":
            if depth == 0:
                if start > 1 and tokens[start - 2][0] in ("op", "num", "rp"):
                    return None
                break
            depth -= 1
        elif kind in ("word", "other"):
            break
        start -= 1
    found = tokens[start:]
    if not found or depth or len(found) > MAX_TOKENS or not any(kind == "num" for kind, _, _ in found):
        return None
    before = tokens[start - 1] if start else None
    if before is not None:
        kind, text, at = before
        touching = at + len(text) == found[0][2]
        if text in _STOP or (kind == "word" and ((len(text) == 1 and text not in "aAI") or _FUNCTION.fullmatch(text) or touching)):
            return None
        if (touching and text in ".,:/") or (text == ":" and start > 1 and tokens[start - 2][0] in ("num", "rp")):
            return None
        if found[0][1] in "*/+^" or (found[0][1] == "-" and kind == "word"):
            return None  # goes on to the left with something that is no number
    return found if found[0][1] not in "*/+^" else None


_FUNCTION = re.compile(r"log|ln|sin|cos|tan|sqrt|mod|gcd|lcm|max|min|base|root", re.IGNORECASE)


def _beginning(tokens: list[Token]) -> list[Token] | None:
    """The expression that a side begins with; None where it is not plain arithmetic."""
    whole = tokens
    tokens = _without_units(tokens)
    depth, stop = 0, 0
    while stop < len(tokens):
        kind, text, _ = tokens[stop]
        if kind == "rp":
            if depth == 0:
                break
            depth -= 1
        elif kind == "lp":
            rest = tokens[stop + 1 :]
            if stop and tokens[stop - 1][0] in ("num", "rp") and not (rest and rest[0][0] in ("num", "lp", "op")):
                break  # 24 (since ...)
            depth += 1
        elif kind in ("word", "other"):
            break
        elif kind == "op" and stop + 1 < len(tokens) and tokens[stop + 1][0] in ("word", "other"):
            if text == "-" and len(tokens[stop + 1][1]) > 1 and depth == 0:
                break  # a dash
            return None
        stop += 1
    found = tokens[:stop]
    if depth or not found or len(found) > MAX_TOKENS or found[0][0] not in ("num", "lp", "op") or not any(k == "num" for k, _, _ in found):
        return None
    after = tokens[stop] if stop < len(tokens) else None
    if after is not None:
        kind, text, at = after
        touching = found[-1][2] + len(found[-1][1]) == at
        if (
            text in _STOP
            or (kind == "word" and _unknown(after, found[-1]))
            or (touching and text == ",")
            or text == ":"
            or (kind == "word" and touching and (len(text) == 1 or found[-1][0] == "rp"))
        ):
            return None
    last = found[-1]
    behind = next((t for t in whole if t[2] > last[2]), None)
    if behind is not None and behind[0] == "word" and _unknown(behind, last):
        return None
    return None if found[-1][0] == "op" and stop == len(tokens) else (found[:-1] if found[-1][0] == "op" else found) or None


def _agree(a: Sequence[Token], b: Sequence[Token]) -> bool:
    """Whether both sides are equal under one reading of `%` (a hundredth, or a mere unit), rounding aside."""
    readings = (True, False) if any(kind == "pct" for kind, _, _ in (*a, *b)) else (False,)
    for left_hundredths in readings:
        for right_hundredths in readings:
            x, y = evaluate(a, left_hundredths), evaluate(b, right_hundredths)
            if x is None or y is None:
                continue
            if _equal(x, y, _shown(b, right_hundredths)) or _equal(y, x, _shown(a, left_hundredths)):
                return True
    return False


def _shown(tokens: Sequence[Token], hundredths: bool) -> Fraction:
    """How far a side that is one number may be off as shown: cut off or rounded at its last decimal, a whole number only rounded."""
    numbers = [t for k, t, _ in tokens if k == "num"]
    if len(numbers) != 1 or any(k == "op" for k, _, _ in tokens[1:]):
        return Fraction(0)
    digits = len(numbers[0].partition(".")[2])
    room = Fraction(1, 10**digits) if digits else Fraction(1, 2)
    return room / 100 if hundredths and any(k == "pct" for k, _, _ in tokens) else room


def _equal(exact: Value, shown: Value, room: Fraction) -> bool:
    error = exact.error + shown.error
    if exact.value.denominator == 1:
        room = Fraction(0)
    if abs(exact.value - shown.value) <= error + (room if room.denominator == 2 else room / 2):
        return True
    return 0 <= abs(exact.value) - abs(shown.value) <= error + room and exact.value * shown.value > 0  # cut off
