"""The check of `dag`: a response is walked step by step, in either dialect or a mixture of both."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from gsi.lab.dag import CHANGES, LETTERS, NUMBERS, WORDS, Operation, Problem, Run
from gsi.types import GsiError, Query, Verdict

_SIGN = {word: sign for sign, words in WORDS.items() for word in words}
_JOINS = ("max", "min")


class _Wrong(Exception):
    """What is wrong with a step, in words."""


def check(response: str, query: Query) -> Verdict:
    """Grades a response: the answer is the number 0..99 that follows the last `#` and ends the response, else no_answer.

    `steps_ok` is True if every step, in either dialect, follows from the question and the steps before it, and they reach what is
    asked. `detail` names the first step that does not. Raises GsiError where the question is not one of this task.
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
    *parts, asked = list(_split(query.question.split())) or [[]]
    runs: list[Run] = []
    known: set[str] = set()
    for part in parts:
        run = _run(part)
        if run is None or known & {*run.letters}:
            raise GsiError(f"query {query.id}: {' '.join(part)!r} is no run of a dag question such as `d 3 e +4 f -5 ;`")
        runs.append(run)
        known |= {*run.letters}
    by_ends = {f"{run.letters[0]} {run.letters[-1]}": run for run in runs}
    first, second = by_ends.get(" ".join(asked[1:3])), by_ends.get(" ".join(asked[4:6]))
    if asked[:1] == ["?"] and first and len(asked) == 3:
        return Problem(tuple(runs), (first,))
    if asked[:1] == ["?"] and first and second and len(asked) == 7 and asked[3] in _JOINS and asked[6] in CHANGES:
        return Problem(tuple(runs), (first, second), asked[3], (asked[6][0], int(asked[6][1:])))
    raise GsiError(f"query {query.id}: {query.question!r} is no dag question; it should end like `; ? d f` or `; ? d f max s t +6`")


def _run(part: Sequence[str]) -> Run | None:
    letters, changes = (*part[:1], *part[2::2]), part[3::2]
    follows = {*letters} <= {*LETTERS} and all((LETTERS.index(b) - LETTERS.index(a)) % 26 == 1 for a, b in pairwise(letters))
    if len(part) < 2 or len(part) % 2 or not follows or part[1] not in NUMBERS or not {*changes} <= {*CHANGES}:
        return None
    return Run(letters, int(part[1]), tuple((change[0], int(change[1:])) for change in changes))


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
    reached = {run.letters[0] for run in problem.runs}
    joined = done = False
    *steps, end = list(_split(tokens)) or [[]]
    for i, step in enumerate(steps, 1):
        where = f"step {i}: {' '.join(step)[:200]!r}"
        name, body, value = _read(step)
        if name in place and name not in {run.letters[0] for run in problem.runs}:
            run, at = place[name]
            if not any(
                before in reached and body == _taken(run.operations[j:at], values[before]) for j, before in enumerate(run.letters[:at])
            ):
                raise _Wrong(f"{where} is not how {name} is made from what is known by then")
            right = values[name]
            reached.add(name)
        elif name in _JOINS:
            if (
                name != problem.sign
                or sorted(body) != sorted(map(str, problem.ends))
                or not all(r.letters[-1] in reached for r in problem.needed)
            ):
                raise _Wrong(f"{where} is not what is asked for, or not known by then")
            right, joined = problem.joined, True
        elif name in CHANGES and problem.sign:
            if not joined or [name, *body] != [f"{problem.last[0]}{problem.last[1]}", str(problem.joined)]:
                raise _Wrong(f"{where} is not what is asked for after {problem.sign}")
            right, done = problem.answer, True
        else:
            raise _Wrong(f"{where} cannot be read")
        if value != str(right):
            raise _Wrong(f"{where} should give {right}")
    if not problem.sign:
        done = problem.needed[0].letters[-1] in reached
    if not done or end != ["#", str(problem.answer)]:
        raise _Wrong(f"step {len(steps) + 1}: {' '.join(end)[:200]!r} does not end with the value that is asked for")


def _taken(operations: Sequence[Operation], value: int) -> list[str]:
    return [*sorted(f"{sign}{n}" for sign, n in operations), str(value)]


def _read(step: Sequence[str]) -> tuple[str, list[str], str]:
    """(letter or sign or operation, operations and numbers, value) of a step in either dialect, as own words; ("", [], "") of anything else.

    `f +4 -5 3 = 2` and `f less 5 plus 4 3 is 2` -> ("f", ["+4", "-5", "3"], "2"): operations sorted, the number they start from last.
    """
    if len(step) < 4 or step[-2] not in ("=", "is", "equals"):
        return "", [], ""
    said: list[str] = []
    rest = list(step[:-2])
    while rest:
        word = rest.pop(0)
        sign = _SIGN.get(word)
        if sign in ("+", "-") and rest:
            said.append(f"{sign}{rest.pop(0)}")
        else:
            said.append(sign or word)
    if said[0] in LETTERS:
        return said[0], [*sorted(said[1:-1]), said[-1]], step[-1]
    return said[0], said[1:], step[-1]
