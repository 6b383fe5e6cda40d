"""The check of `multiply`: a response is walked step by step, in any scheme, in either dialect or a mixture of both."""

from __future__ import annotations

import re
from collections.abc import Sequence

from gsi.lab.multiply import DIGITS, LETTERS, MAX_LEVEL, WORDS, Problem
from gsi.types import GsiError, Query, Verdict

_SIGN = {word: sign for sign, words in WORDS.items() for word in words}
_SHAPE = re.compile(r"\* (?P<by>\d)(?: \+ (?P<carry>\d))? = (?P<result>.+)|(?P<product>\d \d) \+ (?P<added>\d) = (?P<total>.+)")
_RESULT = re.compile(r"\d(?: [A-Z]\d)+")


def in_signs(response: str) -> str:
    """Every word of the two dialects replaced by its sign: solutions that differ in nothing but words become equal."""
    return " ".join(_SIGN.get(token, token) for token in response.split())


class _Wrong(Exception):
    """What is wrong with a step, in words."""


def check(response: str, query: Query) -> Verdict:
    """Grades a response: the answer is the result that follows the last `#` and ends the response, `2 F8 E3 D8`, else no_answer.

    `steps_ok` is True if every step, in either dialect, follows from the question and the steps before it, and they reach every digit
    of the result. `detail` names the first step that does not. Raises GsiError where the question is not one of this task.
    """
    problem, detail = parse(query), ""
    try:
        _walk(response, problem)
    except _Wrong as e:
        detail = str(e)
    _, mark, last = response.rpartition("#")
    answer = " ".join(last.split())
    if not mark or not _RESULT.fullmatch(answer):
        return Verdict("no_answer", None, False, detail or "no `# result` at the end")
    return Verdict("correct" if answer == query.answer else "wrong", answer, not detail, detail)


def parse(query: Query) -> Problem:
    """The problem of a query's question. Raises GsiError where it is none."""
    *named, times, by, end = ["", "", "", *query.question.split()]
    named = named[3:]
    letters, digits = tuple(token[:1] for token in named), tuple(token[1:] for token in named)
    at = LETTERS.index(letters[0]) if letters and letters[0] in LETTERS else 0
    if not (
        (times, end) == ("times", "?")
        and by in DIGITS[2:]
        and 1 <= len(named) <= MAX_LEVEL
        and letters == tuple(LETTERS[(at + i) % len(LETTERS)] for i in range(len(named)))
        and {*digits} <= {*DIGITS}
        and digits[-1] != "0"
    ):
        raise GsiError(f"query {query.id}: {query.question!r} is no multiply question; it should look like `d3 e7 times 6 ?`")
    return Problem(letters, tuple(map(int, digits)), int(by))


def _walk(response: str, problem: Problem) -> None:
    """Goes through a response. Raises _Wrong at the first step that does not hold."""
    *steps, last = [part.split() for part in response.split(";")]
    products: set[int] = set()
    done = 0  # places whose total is reached
    for number, step in enumerate(steps, 1):
        where = f"step {number}: {' '.join(step)[:200]!r}"
        done = max(done, _step(step, problem, products, done, where))
    end = " ".join(last)
    if done < len(problem.digits) or end != f"# {problem.answer}":
        raise _Wrong(f"step {len(steps) + 1}: {end[:200]!r} does not end with the result")


def _step(step: Sequence[str], problem: Problem, products: set[int], done: int, where: str) -> int:
    """How many places are worked out after a right step; a product is added to `products`. Raises _Wrong."""
    shaped = _SHAPE.fullmatch(" ".join(_SIGN.get(token, token) for token in step[1:]))
    if not shaped or step[0] not in problem.named:
        raise _Wrong(f"{where} cannot be read")
    i = problem.named.index(step[0])
    product, carry = divmod(problem.digits[i] * problem.by, 10), shaped["carry"] or shaped["added"]
    if shaped["product"]:
        if i not in products or shaped["product"] != f"{product[0]} {product[1]}":
            raise _Wrong(f"{where}: {step[0]} {shaped['product']} is not known by then")
    elif shaped["by"] != str(problem.by):
        raise _Wrong(f"{where}: the number is multiplied by {problem.by}")
    if carry is None:
        if shaped["result"] != f"{product[0]} {product[1]}":
            raise _Wrong(f"{where} should give {product[0]} {product[1]}")
        products.add(i)
        return done
    if i > done or int(carry) != problem.carries[i]:
        raise _Wrong(f"{where}: the carry {carry} is not what is known by then")
    if (shaped["result"] or shaped["total"]) != problem.total(i):
        raise _Wrong(f"{where} should give {problem.total(i)}")
    return i + 1
