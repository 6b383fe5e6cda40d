"""What Python prints, as the checks read answers: `[1, 2]`, `Fraction(1, 2)`, `1+2j`, a matrix, the dust on a float.

A printed float is the program's value, not a rounded answer: `0.8660254037844386` is right for the root that it was
computed from. So a float with at least 14 digits may also be right by value, within a relative 1e-11 (`same_value`); for a
gold answer of zero, within 1e-12.
"""

from __future__ import annotations

import re
from fractions import Fraction

from gsi.types import Query
from gsi.verify.statements import parse_gold

TOLERANCE, AT_ZERO = Fraction(1, 10**11), Fraction(1, 10**12)

_FLOAT = re.compile(r"(?<![\w.])-?\d+\.\d+(?:[eE][+-]?\d{1,3})?(?![\w.])")


def as_answer(text: str, gold: str) -> str:
    """A printed value in the notation of answers. The gold answer only decides whether a list means a set of solutions."""
    text = _FLOAT.sub(lambda m: _without_dust(m[0]), text.strip())
    text = re.sub(r"\bFraction\((-?\d+), (\d+)\)", r"\1/\2", text)
    text = re.sub(r"(?<=[\d.])\*?[jI]\b|(?<![\w.])[I](?=\W|$)(?=[^A-Za-z]*$)", "i", text)
    if m := re.fullmatch(r"Matrix\(\[(\[.*\])\]\)", text):
        rows = [row.replace(",", " & ") for row in re.findall(r"\[([^\[\]]*)\]", m[1])]
        return r"\begin{pmatrix}" + r" \\ ".join(rows) + r"\end{pmatrix}"
    if m := re.fullmatch(r"\{([^{}:]*)\}", text):
        return rf"\{{{m[1]}\}}"
    if (m := re.fullmatch(r"\[([^\[\]]*)\]", text)) and not re.search(r"[\[(]|\\begin|\\langle", gold):
        return m[1]
    if m := re.fullmatch(r"\(([^(),]*i)\)", text):  # a complex number in the parentheses of its repr
        return m[1]
    return text


def _without_dust(literal: str) -> str:
    """396.00000000000006 -> 396: the nearest number of 12 digits, where that is within 1e-14."""
    if len(re.sub(r"[eE].*|[-.]", "", literal).lstrip("0")) < 15:
        return literal
    value = float(literal)
    short = float(f"{value:.12g}")
    if abs(short - value) > 1e-14 * abs(value):
        return literal
    return str(int(short)) if short.is_integer() and abs(short) < 1e15 else repr(short)


def is_full_float(text: str) -> bool:
    """Whether a text is one float with at least 14 digits, as `print` gives it."""
    return bool(_FLOAT.fullmatch(text)) and len(re.sub(r"[eE].*|[-.]", "", text).lstrip("0")) >= 14


def same_value(text: str, query: Query) -> bool:
    """Whether a float is the value of the query's answer. Runs in a worker (sympy)."""
    from gsi.verify.shapes import shape
    from gsi.verify.symbolic import _expression

    got, number = Fraction(text), parse_gold(query.answer)
    if number is not None:
        at_zero = 0 if query.task == "theoremqa" else AT_ZERO  # its numbers never get an absolute tolerance
        return abs(got - number.value) <= (TOLERANCE * abs(number.value) or at_zero)
    try:
        stated = shape(query.answer)
        stated = stated[2] if stated[0] == "named" else stated
        value = _expression(stated[1]).evalf(30) if stated[0] == "scalar" else None
    except ValueError:
        return False
    if value is None or not value.is_Float:  # a set, a complex number, an expression with variables
        return False
    gold = Fraction(str(value))
    return abs(got - gold) <= TOLERANCE * abs(gold)
