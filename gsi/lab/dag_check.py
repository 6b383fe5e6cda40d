"""The check of `dag`: a response is walked step by step, in either dialect or a mixture of both."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from gsi.lab.dag import LETTERS, NUMBERS, WORDS, Definition, Problem, combine, defined
from gsi.types import GsiError, Query, Verdict

_SIGN = {word: sign for sign, words in WORDS.items() for word in (sign, *words)}
_DEFINED = {x.upper(): x for x in LETTERS}
_STANDS = {f"{x}.": x for x in LETTERS}
Step = tuple[str, str, list[tuple[str, ...]], str]  # (name or _, sign, operands, value); operands (number,), (letter, value) or (_, value)


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
    definitions: list[Definition] = []
    known: set[str] = set()
    for part in _split(tokens[:-2]):
        name, sign, terms = "", "", tuple(part[1:])
        if len(part) == 2 and part[1] in NUMBERS:
            name = _STANDS.get(part[0], "")
        elif len(part) in (5, 7) and part[1] == "=" and len({*part[3::2]}) == 1 and (len(part) == 5 or part[3] in ("max", "min")):
            name, sign, terms = _DEFINED.get(part[0], ""), part[3], tuple(part[2::2])
        if not name or name in known or (sign and (sign not in WORDS or not all(t in known or t in NUMBERS for t in terms))):
            raise GsiError(f"query {query.id}: {' '.join(part)!r} is no definition of a dag question such as `V = c + 6 ;`")
        definitions.append((name, sign, terms))
        known.add(name)
    if tokens[-2:-1] != ["?"] or _DEFINED.get(tokens[-1]) not in known:
        raise GsiError(f"query {query.id}: {query.question!r} is no dag question; it should look like `c. 4 ; V = c + 6 ; ? V`")
    return Problem(tuple(definitions), _DEFINED[tokens[-1]])


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
    values, made = problem.values(), {d[0]: d for d in problem.definitions}
    reached = {name for name, (_, sign, _) in made.items() if not sign}
    part: tuple[str, int, tuple[str, ...]] | None = None  # sign, value and terms of a partial result that waits for its last term
    *steps, last = list(_split(tokens)) or [[]]
    for i, step in enumerate(steps, 1):
        where = f"step {i}: {' '.join(step)[:200]!r}"
        read = _read(step, made)
        if read is None:
            raise _Wrong(f"{where} cannot be read")
        name, sign, operands, value = read
        terms: list[str] = []
        for operand in operands:
            if operand[0] == "_":
                if part is None or part[0] != sign or operand[1] != str(part[1]):
                    raise _Wrong(f"{where} uses a partial result that the step before does not give")
                terms += part[2]
            else:
                if len(operand) == 2 and (operand[0] not in reached or operand[1] != str(values[operand[0]])):
                    raise _Wrong(f"{where}: {' '.join(operand)!r} is not known by then")
                terms.append(operand[0])
        if part is not None and not any(operand[0] == "_" for operand in operands):
            raise _Wrong(f"{where} leaves the partial result before it unused")
        result = combine(sign, [values[t] if t in values else int(t) for t in terms])
        if str(result) != value:
            raise _Wrong(f"{where} should give {result}")
        if name == "_":
            part = (sign, result, tuple(terms))
            continue
        part = None
        _, wanted_sign, wanted = made.get(name, ("", "", ()))
        same = tuple(terms) == wanted if sign == "-" else sorted(terms) == sorted(wanted)
        if wanted_sign != sign or not same:
            raise _Wrong(f"{where} is not how {name} is defined")
        reached.add(name)
    if part is not None or len(last) != 2 or last[0] != "#" or problem.target not in reached or last[1] != str(values[problem.target]):
        raise _Wrong(f"step {len(steps) + 1}: {' '.join(last)[:200]!r} does not end with the value of {problem.target}")


def _read(step: Sequence[str], made: Mapping[str, Definition]) -> Step | None:
    """A step in either dialect; None where it is in none."""
    name, left, right = _own_shape(step, made) or _reference_shape(step) or ("", [], [])
    if not left or right[0] not in (name, "_") or right[1] not in NUMBERS:
        return None
    operands: list[tuple[str, ...]] = [()]
    signs: list[str] = []
    for token in left:
        if token in _SIGN:
            signs.append(_SIGN[token])
            operands.append(())
        else:
            operands[-1] += (token,)
    for operand in operands:
        bare = len(operand) == 1 and operand[0] in NUMBERS
        if not (bare or (len(operand) == 2 and operand[0] in (*LETTERS, "_") and operand[1] in NUMBERS)):
            return None
    if len({*signs}) != 1 or (signs[0] in "+-" and len(signs) > 1):
        return None
    return right[0], signs[0], operands, right[1]


def _own_shape(step: Sequence[str], made: Mapping[str, Definition]) -> tuple[str, list[str], list[str]] | None:
    """`U = v max c : OPERANDS = u. 8`, which repeats the definition, or `OPERANDS = u. 8`: (u, operands, [u, 8]); `_` may stand for `u.`."""
    if len(step) < 6 or step[-3] != "=":
        return None
    result = _STANDS.get(step[-2], "_" if step[-2] == "_" else "")
    if ":" not in step:
        return (result, list(step[:-3]), [result, step[-1]]) if result else None
    colon, name = step.index(":"), _DEFINED.get(step[0], "")
    if name not in made or not made[name][1] or " ".join(step[:colon]) != defined(made[name]):
        return None
    return name, list(step[colon + 1 : -3]), [result, step[-1]]


def _reference_shape(step: Sequence[str]) -> tuple[str, list[str], list[str]] | None:
    """`U needs OPERANDS = 8 so u. 8` or `for U with ...`: (u, operands, [u, 8]); both values have to agree."""
    if len(step) < 8 or step[-5] != "=" or step[-4] != step[-1] or step[-3] not in ("so", "thus"):
        return None
    begin = 2 if step[1] == "needs" else 3 if (step[0], step[2]) == ("for", "with") else 0
    name = _DEFINED.get(step[begin - 2], "")
    if not begin or not name:
        return None
    return name, list(step[begin:-5]), [_STANDS.get(step[-2], ""), step[-1]]
