"""Named-chain arithmetic modulo 23: a task with a difficulty dial, checked to the step, small enough for a model from scratch.

A query of level n applies n operations to a start value; every value has a letter, and the letters are consecutive:

    question   d 3 e + 4 f - 5 ?                    d is 3, e is d + 4, f is e - 5
    rationale  e 3 + 4 = 7 ; f 7 - 5 = 2 ; # 2

One token per number, sign and letter (`VOCABULARY`). A question has exactly one right rationale, so lucky answers
(right number, wrong steps) can be told from earned ones. Nothing here needs torch.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence

from gsi.types import GsiError, Query, Verdict

MODULUS = 23
LETTERS = tuple("abcdefghijklmnopqrstuvwxyz")  # z is followed by a
NUMBERS = tuple(str(n) for n in range(MODULUS))
SIGNS = ("+", "-")
MAX_OPERAND = 9  # operands are 1..9, which makes 414 number facts; with operands to 22 the base model does not learn them in its minute
VOCABULARY = [*NUMBERS, *LETTERS, *SIGNS, "=", ";", "#", "?"]
HARD_LEVELS = (7, 8, 9, 10)
CHANCE = 1 / MODULUS  # probability that a guess among all numbers is right
MAX_LEVEL = len(LETTERS) - 1  # the letters of one question are distinct
STEP_TOKENS = 7  # tokens of one step of a rationale, `;` included


def draw(rng: random.Random, level: int) -> tuple[str, str, str]:
    """One question with `level` operations: (question, rationale, answer)."""
    first, start = rng.randrange(len(LETTERS)), rng.randrange(MODULUS)
    operations = [(LETTERS[(first + i) % len(LETTERS)], rng.choice(SIGNS), rng.randint(1, MAX_OPERAND)) for i in range(1, level + 1)]
    question = " ".join([LETTERS[first], str(start), *(f"{letter} {sign} {n}" for letter, sign, n in operations), "?"])
    rationale = solve(start, operations)
    return question, rationale, rationale.split()[-1]


def documents(rng: random.Random, examples: int, level_rate: float, max_level: int, taught: bool = False) -> Iterator[tuple[str, str]]:
    """What a base model learns from: (question, rationale), level = min(max_level, 1 + floor(Exp(level_rate)))."""
    for _ in range(examples):
        question, rationale, _answer = draw(rng, min(max_level, 1 + math.floor(rng.expovariate(level_rate))))
        yield question, rationale


def queries(seed: int, per_level: int, levels: Sequence[int] = range(1, 11), prefix: str = "chain") -> list[Query]:
    """`per_level` queries of every level, no question twice, ids like `chain-s1-L3-0007`.

    Each query is drawn from its own generator, seeded by seed, level and index; asking for more queries or other levels
    changes none of the others. Sets of different seeds may share questions at level 1 (10764 exist: two sets
    of 100 share one on average) and practically never above.

    Raises GsiError for a level outside 1..25, or for more than half the questions a level has.
    """
    found: list[Query] = []
    for level in dict.fromkeys(levels):
        if not 1 <= level <= MAX_LEVEL:
            raise GsiError(f"chain: level {level} does not exist; use levels from 1 to {MAX_LEVEL}")
        space = len(LETTERS) * MODULUS * (len(SIGNS) * MAX_OPERAND) ** level
        if per_level > space // 2:
            raise GsiError(f"chain: {per_level} different questions of level {level} are too many; ask for at most {space // 2}")
        seen: set[str] = set()
        for index in range(per_level):
            redraw = 0
            while True:
                question, rationale, answer = draw(random.Random(f"chain/{seed}/{level}/{index}/{redraw}"), level)
                if question not in seen:
                    break
                redraw += 1
            seen.add(question)
            found.append(Query(f"{prefix}-s{seed}-L{level}-{index:04d}", "chain", question, answer, rationale, level))
    return found


def check(response: str, query: Query) -> Verdict:
    """Grades a response: the answer is the number 0..22 that follows the last `#` and ends the response, else no_answer.

    `steps_ok` is True only for the one right rationale: every step in order with its letter, operands, sign and result,
    then `#` and the last result. `detail` names the first step that is wrong.

    Raises GsiError where the question is not one of this task; no response makes it raise.
    """
    tokens, right = response.split(), solve(*_parse(query)).split()
    detail = _first_wrong(tokens, right)
    if len(tokens) < 2 or tokens[-2] != "#" or tokens[-1] not in NUMBERS:
        return Verdict("no_answer", None, False, detail)
    status = "correct" if tokens[-1] == query.answer else "wrong"
    return Verdict(status, tokens[-1], not detail, detail)


def solve(start: int, operations: Sequence[tuple[str, str, int]]) -> str:
    """The rationale for a start value and (letter, sign, number) operations."""
    steps, value = [], start
    for letter, sign, number in operations:
        result = (value + number if sign == "+" else value - number) % MODULUS
        steps.append(f"{letter} {value} {sign} {number} = {result} ;")
        value = result
    return " ".join([*steps, f"# {value}"])


def _parse(query: Query) -> tuple[int, list[tuple[str, str, int]]]:
    """Start value and operations of a query's question."""
    tokens = query.question.split()
    body, letters, signs, numbers = tokens[2:-1], tokens[2:-1:3], tokens[3:-1:3], tokens[4:-1:3]
    shaped = len(body) > 0 and len(body) % 3 == 0 and tokens[-1] == "?" and tokens[0] in LETTERS and set(letters) <= set(LETTERS)
    if not (shaped and set(signs) <= set(SIGNS) and {tokens[1], *numbers} <= set(NUMBERS)):
        raise GsiError(f"query {query.id}: {query.question!r} is no chain question; it should look like `d 3 e + 4 f - 5 ?`")
    return int(tokens[1]), list(zip(letters, signs, map(int, numbers), strict=True))


def _first_wrong(tokens: Sequence[str], right: Sequence[str]) -> str:
    """Where a response first leaves the right rationale, in words; '' = nowhere."""
    if list(tokens) == list(right):
        return ""
    same = next((i for i, (a, b) in enumerate(zip(tokens, right, strict=False)) if a != b), min(len(tokens), len(right)))
    begin = min(same, len(right) - 1) // STEP_TOKENS * STEP_TOKENS
    # where the response goes on after a right final line, that line is shown with the rest of the response
    end = begin + STEP_TOKENS if same < len(right) else None
    said, wanted = " ".join(tokens[begin:end])[:200], " ".join(right[begin : begin + STEP_TOKENS])
    return f"step {begin // STEP_TOKENS + 1}: {said!r}, right is {wanted!r}"


RECIPE = (draw, solve, documents)  # the code that a base model depends on
