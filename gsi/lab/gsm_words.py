"""The own words of the tiny base of `gsm_symbolic`: the calculations of a worked solution alone, two numbers at a time, in any order that works.

    8 * 19 = 152
    10 * 9 = 90
    152 + 90 = 242
    #### 242

The worked solutions are the references: sentences around the same calculations, several numbers at a time, in one fixed order. So the
base has many right solutions to a problem, and a reference is in a dialect that it does not produce.
"""

from __future__ import annotations

import ast
import random
import re
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise

UNIT_WORDS = 6  # behind a number, at most: `9 skeins per pair of leg warmers`

Step = tuple[str, Fraction, Fraction, Fraction]  # operator, its two numbers, the result

_TOKEN = re.compile(r"(?P<num>\d[\d,]*(?:\.\d+)?|\.\d+)(?P<percent>%)?|(?P<op>[-+*/()])|(?P<word>[A-Za-z]+)|(?P<other>\S)")
_REWRITES = (
    (re.compile(r"[$€£]"), ""),
    (re.compile(r"[×÷]"), lambda m: " * " if m.group() == "×" else " / "),
    (re.compile(r"(?<=[\w)%]) x (?=[\d(.])"), " * "),
    (re.compile(r"\bhalf(?= \*)"), "0.5"),
    (re.compile(r"(?<=[A-Za-z])/[A-Za-z]+"), ""),  # boys/girl
)
_NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")
_WORDS = {
    word: Fraction(i)
    for i, word in enumerate(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"])
}
# what a solution may use without the question's naming it: halves and quarters, and how many smaller units make a larger one
_COMMON = {Fraction(n) for n in (1, 2, 3, 4, 7, 12, 24, 30, 52, 60, 100, 365, 1000)} | {Fraction(n, 4) for n in (1, 2, 3)}
_OPERATORS: dict[type[ast.operator], str] = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/"}


class _Untold(Exception):
    """The solution cannot be said in these words."""


def own_words(question: str, solution: str, answer: str, rng: random.Random) -> str | None:
    """The calculations that lead from the question's numbers to the answer; None where they cannot be read off the worked solution:
    an equation with an unknown, a number from nowhere, a rounded result, a decimal with more than three places (one problem in eight)."""
    try:
        final = _number(answer)
        steps, uses = _grounded(_calculations(solution), question)
        if not steps or steps[-1][3] != final:
            return None
        needed, todo = set(), [len(steps) - 1]
        while todo:
            i = todo.pop()
            if i not in needed:
                needed.add(i)
                todo += uses[i]
        order: list[int] = []
        while len(order) < len(needed):
            order.append(rng.choice(sorted(i for i in needed.difference(order) if uses[i] <= set(order))))
        return "\n".join([*(_line(steps[i], rng) for i in order), f"#### {_shown(final)}"])
    except _Untold:
        return None


def _line(step: Step, rng: random.Random) -> str:
    op, a, b, value = step
    if op in "+*" and rng.random() < 0.5:
        a, b = b, a
    return f"{_shown(a)} {op} {_shown(b)} = {_shown(value)}"


def _shown(number: Fraction) -> str:
    if number < 0:
        raise _Untold
    for places in range(4):
        if (number * 10**places).denominator == 1:
            whole, part = divmod(int(number * 10**places), 10**places)
            return f"{whole}.{part:0{places}}" if places else str(whole)
    raise _Untold


def _calculations(solution: str) -> list[Step]:
    """The steps of all equations in their order, none twice."""
    found: list[Step] = []
    for pattern, new in _REWRITES:
        solution = pattern.sub(new, solution)
    for line in solution.splitlines():
        for left, right in pairwise(line.split("=")):
            expression = _ending(left)
            if len(expression) < 3:
                continue
            steps: list[Step] = []
            value = _steps(expression, steps)
            told = _NUMBER.match(right.strip())
            if steps and told:
                result = _number(told.group())
                if result == 100 * value and right.strip()[told.end() : told.end() + 1] == "%":
                    steps.append(("*", value, Fraction(100), result))
                elif result != value:
                    raise _Untold
            found += [step for step in steps if step not in found and not (step[0] in "*/" and step[2] == 1)]
    return found


def _grounded(steps: Sequence[Step], question: str) -> tuple[list[Step], list[set[int]]]:
    """The steps, and of each the indices of the steps whose results it uses. A number that is the product of two numbers of the question gets
    a step of its own (`5 complexes of 300 apartments have 1500`)."""
    named = {_number(m.group()) for m in _NUMBER.finditer(question)}
    named |= {_WORDS[word] for word in re.findall("[a-z]+", question.lower()) if word in _WORDS}
    rates = {n / 100 for n in named} | {1 - n / 100 for n in named} | {1 + n / 100 for n in named}
    known = named | rates | _COMMON
    done: list[Step] = []
    uses: list[set[int]] = []

    def made(number: Fraction) -> set[int]:
        for i in reversed(range(len(done))):
            if done[i][3] == number:
                return {i}
        if number in known:
            return set()
        pairs = [(a, number / a) for a in sorted(named) if a > 1 and number / a in named and a <= number / a]
        if len(pairs) != 1:
            raise _Untold
        done.append(("*", *pairs[0], number))
        uses.append(set())
        return {len(done) - 1}

    for step in steps:
        used = made(step[1]) | made(step[2])
        done.append(step)
        uses.append(used)
    return done, uses


def _ending(text: str) -> list[tuple[str, str]]:
    """The tokens of the expression at the end of the text, units left out; (kind, text), a percentage as a number with its sign."""
    tokens = [(m.lastgroup or "", m.group()) for m in _TOKEN.finditer(text)]
    tokens = [("num", text) if kind == "percent" else (kind, text) for kind, text in tokens]
    found: list[tuple[str, str]] = []
    i, number_next = len(tokens) - 1, True  # from the right: a number, an operator, a number, ...
    depth = words = 0
    while i >= 0:
        kind, token = tokens[i]
        if kind == "word":
            words += 1
            if not number_next or words > UNIT_WORDS:
                break
        elif token == ")" and number_next:
            depth += 1
            found.append((kind, token))
        elif token == "(" and depth and not number_next:
            depth -= 1
            found.append((kind, token))
            if depth == 0 and i and tokens[i - 1][0] == "num":
                found.append(("op", "*"))  # 2(22)
                number_next = True
        elif kind == "num" and number_next:
            found.append((kind, token))
            number_next, words = False, 0
        elif kind == "op" and token in "+-*/" and not number_next:
            found.append((kind, token))
            number_next = True
        else:
            break
        i -= 1
    if depth:
        raise _Untold
    found.reverse()
    return found[1:] if found and found[0][1] in "+-*/" else found


def _steps(expression: Sequence[tuple[str, str]], steps: list[Step]) -> Fraction:
    """The value; its steps are appended, the innermost first."""
    numbers = [_number(token) for kind, token in expression if kind == "num"]
    names = iter(range(len(numbers)))
    text = " ".join(f"n{next(names)}" if kind == "num" else token for kind, token in expression)

    def value(node: ast.expr) -> Fraction:
        if isinstance(node, ast.Name):
            return numbers[int(node.id[1:])]
        assert isinstance(node, ast.BinOp)  # an expression is names, operators and brackets
        op, a, b = _OPERATORS[type(node.op)], value(node.left), value(node.right)
        if op == "/" and b == 0:
            raise _Untold
        result = a + b if op == "+" else a - b if op == "-" else a * b if op == "*" else a / b
        steps.append((op, a, b, result))
        return result

    return value(ast.parse(text, mode="eval").body)


def _number(text: str) -> Fraction:
    number = Fraction(text.rstrip("%,").replace(",", ""))
    return number / 100 if text.endswith("%") else number
