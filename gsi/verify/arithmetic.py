"""A small evaluator of plain arithmetic over exact fractions: + - * / ^ and brackets, nothing else, in bounded time."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

_ROUNDED = re.compile(r"\.(?:\d*?(\d)\1|\d*(?:67|16|17|83|89|43|57|71|86|29|14)|\d{4,})$")
MAX_BITS = 400  # of any number on the way


class Value(NamedTuple):
    value: Fraction
    error: Fraction  # how far off it may be, from decimals that look rounded (66.67)


class _Stop(Exception):
    """Not plain arithmetic, or too large."""


def evaluate(tokens: Sequence[tuple[str, str, int]], hundredths: bool = False) -> Value | None:
    """The value of (kind, text, position) tokens of the kinds num, op, lp, rp and pct; None for anything that is no arithmetic.

    `hundredths`: whether `%` divides by 100 or is a unit that changes nothing.
    """
    reader = _Reader(tokens, hundredths)
    try:
        value = reader.sum(0)
    except (_Stop, ZeroDivisionError):
        return None
    return value if reader.at == len(tokens) else None


class _Reader:
    def __init__(self, tokens: Sequence[tuple[str, str, int]], hundredths: bool):
        self.tokens, self.hundredths, self.at = tokens, hundredths, 0

    def peek(self) -> tuple[str, str]:
        return self.tokens[self.at][:2] if self.at < len(self.tokens) else ("", "")

    def sum(self, depth: int) -> Value:
        total = self.product(depth)
        while self.peek()[1] in ("+", "-"):
            sign = 1 if self.peek()[1] == "+" else -1
            self.at += 1
            more = self.product(depth)
            total = _bounded(Value(total.value + sign * more.value, total.error + more.error))
        return total

    def product(self, depth: int) -> Value:
        total = self.power(depth)
        while self.peek()[1] in ("*", "/") or self.peek()[0] == "lp":
            operator = self.peek()[1]
            self.at += operator != "("  # 5(3)
            more = self.power(depth)
            if operator == "/":
                more = Value(1 / more.value, more.error / more.value**2)
            error = abs(total.value) * more.error + abs(more.value) * total.error
            total = _bounded(Value(total.value * more.value, error))
        return total

    def power(self, depth: int) -> Value:
        base = self.atom(depth)
        if self.peek()[1] == "^":
            self.at += 1
            exponent = self.atom(depth).value
            if exponent.denominator != 1 or abs(exponent) > 40 or base.value.numerator.bit_length() * abs(exponent) > MAX_BITS:
                raise _Stop
            base = _bounded(Value(base.value ** int(exponent), base.error * abs(exponent) * abs(base.value) ** max(0, int(exponent) - 1)))
        return base

    def atom(self, depth: int) -> Value:
        kind, text = self.peek()
        self.at += 1
        if kind == "op" and text in "+-" and depth < 20:
            inner = self.power(depth + 1)
            return Value(-inner.value, inner.error) if text == "-" else inner
        if kind == "lp" and depth < 20:
            found = self.sum(depth + 1)
            if self.peek()[0] != "rp":
                raise _Stop
            self.at += 1
        elif kind == "num" and len(text) <= 40:
            digits = text.replace(",", "")
            error = Fraction(1, 10 ** len(digits.partition(".")[2])) if _ROUNDED.search(digits) else Fraction(0)
            found = Value(Fraction(digits), error)
        else:
            raise _Stop
        if self.peek()[0] == "pct":
            self.at += 1
            found = Value(found.value / 100, found.error / 100) if self.hundredths else found
        return found


def _bounded(value: Value) -> Value:
    if value.value.numerator.bit_length() > MAX_BITS or value.value.denominator.bit_length() > MAX_BITS:
        raise _Stop
    return value
