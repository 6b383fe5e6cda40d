"""The check of `dag`: a response is walked step by step, in either dialect or a mixture of both."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from gsi.lab.dag import LETTERS, MAX_OPERAND, NUMBERS, WORDS, Operation, Problem, Run
from gsi.types import GsiError, Query, Verdict

_SIGN = {word: sign for sign, words in WORDS.items() for word in (sign, *words)}


def in_signs(response: str) -> str:
    """Every word of the two dialects replaced by its sign: solutions that differ in nothing but words become equal."""
    return " ".join("=" if token in ("is", "equals") else _SIGN.get(token, token) for token in response.split())


class _Wrong(Exception):
    """What is wrong with a step, in words."""


def check(response: str, query: Query) -> Verdict:
    """Grades a response: the answer is the number 0..22 that follows the last `#` and ends the response, else no_answer.

    `steps_ok` is True if every step, in either dialect, follows from the question and the steps before it, and they reach the
    target. `detail` names the first step that does not. Raises GsiError where the question is not one of this task.
    """
    tokens, detail = response.split(), ""
    try:
        _walk(tokens, parse(query))
    except _Wrong as e:
        detail = str(e)
    if len(tokens) < 2 or tokens[-2] != "#" or tokens[-1] not in NUMBERS:
        return Verdict("no_answer", None, False, detail or "no `# number` at the end")
    return Verdict("correct" if tokens[-1] == query.answer else "wrong", tokens[-1], not detail, detail)


def parse(query: Query) -> Problem:
    """The problem of a query's question. Raises GsiError where it is none."""
    tokens = query.question.split()
    runs: list[Run] = []
    known: set[str] = set()
    for part in _split(tokens[:-2]):
        run = _run(part)
        if run is None or known & {*run.letters} or not known >= {*run.joined}:
            raise GsiError(
                f"query {query.id}: {' '.join(part)!r} is no run of a dag question such as `d 3 e + 4 f - 5 ;` or `w f max t x + 6 ;`"
            )
        runs.append(run)
        known |= {*run.letters}
    if tokens[-2:-1] != ["?"] or tokens[-1] not in {run.letters[-1] for run in runs}:
        raise GsiError(f"query {query.id}: {query.question!r} is no dag question; it should look like `d 3 e + 4 ; ? e`")
    return Problem(tuple(runs), tokens[-1])


def _run(part: Sequence[str]) -> Run | None:
    joins = len(part) >= 4 and part[2] in ("max", "min")
    rest = part[4 if joins else 2 :]
    letters, signs, numbers = (*part[:1], *rest[::3]), rest[1::3], rest[2::3]
    follows = all((LETTERS.index(b) - LETTERS.index(a)) % 26 == 1 for a, b in pairwise(letters)) if {*letters} <= {*LETTERS} else False
    if (
        not letters
        or not follows
        or len(rest) % 3
        or not {*signs} <= {"+", "-"}
        or not all(n in NUMBERS and 1 <= int(n) <= MAX_OPERAND for n in numbers)
    ):
        return None
    operations = tuple((sign, int(n)) for sign, n in zip(signs, numbers, strict=True))
    if joins:
        return Run(letters, (part[2], part[1], part[3]), operations)
    return Run(letters, int(part[1]), operations) if len(part) > 1 and part[1] in NUMBERS else None


def _split(tokens: Sequence[str]) -> Iterator[list[str]]:
    part: list[str] = []
    for token in tokens:
        if token == ";":
            yield part
            part = []
        else:
            part.append(token)
    if part:
        yield part


def _walk(tokens: Sequence[str], problem: Problem) -> None:
    """Goes through a response. Raises _Wrong at the first step that does not hold."""
    values = problem.values()
    place = {letter: (run, i) for run in problem.runs for i, letter in enumerate(run.letters)}
    reached = {run.letters[0] for run in problem.runs if not run.joined}
    *steps, last = list(_split(tokens)) or [[]]
    for i, step in enumerate(steps, 1):
        where = f"step {i}: {' '.join(step)[:200]!r}"
        letter, body, value = _read(step)
        if letter not in place or not body:
            raise _Wrong(f"{where} cannot be read")
        run, at = place[letter]
        if at == 0:
            _join(run, body, reached, values, where)
        elif not any(
            before in reached and _operates(body, values[before], run.operations[j:at]) for j, before in enumerate(run.letters[:at])
        ):
            raise _Wrong(f"{where} is not how {letter} is made from what is known by then")
        if value != str(values[letter]):
            raise _Wrong(f"{where} should give {values[letter]}")
        reached.add(letter)
    if len(last) != 2 or last[0] != "#" or problem.target not in reached or last[1] != str(values[problem.target]):
        raise _Wrong(f"step {len(steps) + 1}: {' '.join(last)[:200]!r} does not end with the value of {problem.target}")


def _read(step: Sequence[str]) -> tuple[str, list[str], str]:
    """(letter, body, value) of `e 3 + 4 = 7`, `e 3 plus 4 is 7` or `e 3 plus 4 equals 7`; ("", [], "") of anything else."""
    if len(step) > 4 and step[-2] in ("=", "is", "equals"):
        return step[0], list(step[1:-2]), step[-1]
    return "", [], ""


def _join(run: Run, body: Sequence[str], reached: set[str], values: dict[str, int], where: str) -> None:
    """`f 2 max t 6`, either side first."""
    if isinstance(run.start, int) or len(body) != 5 or _SIGN.get(body[2]) != run.start[0] or {body[0], body[3]} != {*run.joined}:
        raise _Wrong(f"{where} is not how {run.letters[0]} is made")
    for letter, value in ((body[0], body[1]), (body[3], body[4])):
        if letter not in reached or value != str(values[letter]):
            raise _Wrong(f"{where}: {letter} {value} is not known by then")


def _operates(body: Sequence[str], start: int, operations: Sequence[Operation]) -> bool:
    """Whether `3 + 4 - 5` begins with `start` and holds these operations, in any order."""
    said = [(_SIGN.get(sign), n) for sign, n in zip(body[1::2], body[2::2], strict=False)]
    return len(body) % 2 == 1 and body[0] == str(start) and sorted(map(str, said)) == sorted(str((sign, str(n))) for sign, n in operations)
