"""Dependency problems in the spirit of iGSM (arXiv 2407.20311): quantities made from others, with several right ways to solve each.

Quantities come in runs of consecutive letters, each made from the one before. A query of level n asks for what n operations make of the numbers:
of one run from its first to its last letter, or of two, joined and taken one operation further. Other runs are not needed.

    question    d 3 e +4 f -5 ; k 9 l +1 ; s 8 t -2 ; ? d f max s t +6
    own words   e +4 3 = 7 ; f -5 7 = 2 ; t -2 8 = 6 ; max 2 6 = 6 ; +6 6 = 12 ; # 12
    reference   t less 2 8 is 6 ; f plus 4 less 5 3 equals 2 ; over 6 2 is 6 ; add 6 6 equals 12 ; # 12

The runs may be worked out in any order, one within another too; a step may take several operations of a run at once, in any order; the sides of the join may
be swapped; quantities that are not needed may be worked out too. The references begin with the other run now and then, group and word
their steps as they like; a base model writes its own words only, unless a response already begins in theirs.

Two runs in one question are what a base model, which has seen mostly short ones, does not bring together: it loses the thread in the middle, and an opening that
carries past that point helps it over. Numbers up to 99 are a token each, so sums are facts to know; they grow with the level too.

Nothing here needs torch; the check is in `dag_check.py`.
"""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from gsi.types import GsiError, Query

LARGEST = 99
LETTERS = tuple("abcdefghijklmnopqrstuvwxyz")  # z is followed by a
NUMBERS = tuple(str(n) for n in range(LARGEST + 1))
OPERANDS = range(1, 10)
CHANGES = tuple(f"{sign}{n}" for sign in "+-" for n in OPERANDS)  # operations, one token each
WORDS = {"+": ("plus", "add"), "-": ("minus", "less"), "max": ("above", "over"), "min": ("below", "under")}  # the references' signs
VOCABULARY = [*NUMBERS, *LETTERS, *CHANGES, "max", "min", *(word for pair in WORDS.values() for word in pair)]
VOCABULARY += ["=", ";", "#", "?", "is", "equals", "book", "answer", "solution", "attempt", "teacher", "cue"]
HARD_LEVELS = (6, 7, 8)
LONGER = (9, 10)
MAX_LEVEL = 12
JOINS = {4: 0.3, 5: 0.5}  # share of problems with two runs: none below, all above
RISING = 0.8  # share of additions where numbers grow with the level

Operation = tuple[str, int]  # (sign, number)


@dataclass(frozen=True)
class Run:
    """Consecutive letters: the first is a number, each other applies the next operation to the one before."""

    letters: tuple[str, ...]
    start: int
    operations: tuple[Operation, ...]

    def __str__(self) -> str:
        rest = (f"{letter} {sign}{n}" for letter, (sign, n) in zip(self.letters[1:], self.operations, strict=True))
        return " ".join([self.letters[0], str(self.start), *rest])

    def values(self) -> dict[str, int]:
        found = {self.letters[0]: self.start}
        for before, letter, (sign, n) in zip(self.letters, self.letters[1:], self.operations, strict=False):
            found[letter] = combine(sign, found[before], n)
        return found


@dataclass(frozen=True)
class Problem:
    """Runs in the order of the question, of which one or two are needed; two are joined by a sign, with one operation after that."""

    runs: tuple[Run, ...]
    needed: tuple[Run, ...]
    sign: str | None = None  # max | min
    last: Operation = ("+", 0)

    @property
    def question(self) -> str:
        ends = [f"{run.letters[0]} {run.letters[-1]}" for run in self.needed]
        asked = f"{ends[0]} {self.sign} {ends[1]} {self.last[0]}{self.last[1]}" if self.sign else ends[0]
        return " ".join([*(f"{run} ;" for run in self.runs), f"? {asked}"])

    @property
    def level(self) -> int:
        return sum(len(run.operations) for run in self.needed) + (2 if self.sign else 0)

    def values(self) -> dict[str, int]:
        return {letter: value for run in self.runs for letter, value in run.values().items()}

    @property
    def ends(self) -> list[int]:
        """Last values of the runs that are needed."""
        return [run.values()[run.letters[-1]] for run in self.needed]

    @property
    def joined(self) -> int:
        return combine(self.sign, *self.ends) if self.sign else self.ends[0]

    @property
    def answer(self) -> int:
        return combine(self.last[0], self.joined, self.last[1]) if self.sign else self.joined


def combine(sign: str, a: int, b: int) -> int:
    return {"+": a + b, "-": a - b, "max": max(a, b), "min": min(a, b)}[sign]


# --------------------------------------------------------------------------------------- drawing


def draw(rng: random.Random, level: int, rising: bool = True, joins: float | None = None) -> Problem:
    """A problem of `level` operations with all numbers in 0..99; no other quantity that it needs has the answer's value.

    So an opening of the reference does not state the answer by coincidence, and a guess among what is known is never right.

    Args:
        rising: numbers grow with the level; else they stay below about 20.
        joins: share of problems with two runs, among those of level 4 and more; None = JOINS.
    """
    while True:
        problem = _draw(rng, level, rising, joins)
        stated = [v for run in problem.needed for v in run.values().values()] + ([problem.joined] if problem.sign else [])
        answers = stated.count(problem.answer) - (0 if problem.sign else 1)
        if not answers and all(0 <= v <= LARGEST for v in (*problem.values().values(), problem.answer)):
            return problem


def _draw(rng: random.Random, level: int, rising: bool, joins: float | None) -> Problem:
    joined = rng.random() < (JOINS.get(level, 1.0 if level > 5 else 0.0) if joins is None else joins * (level > 3))
    first = rng.randint(1, level - 3) if joined else level
    sizes = [first, level - 2 - first] if joined else [first]
    spare = [rng.randint(1, 3)] if rng.random() < 0.25 else []
    runs = [_run(rng, letters, rising) for letters in _letters(rng, [n + 1 for n in (*sizes, *spare)])]
    needed = tuple(runs[: len(sizes)])
    shown = tuple(rng.sample(runs, len(runs)))
    return Problem(shown, needed, rng.choice(("max", "min")), _operation(rng, 10, rising)) if joined else Problem(shown, needed)


def _run(rng: random.Random, letters: tuple[str, ...], rising: bool) -> Run:
    start = value = rng.randint(0, 9)
    operations = []
    for _ in letters[1:]:
        operations.append(_operation(rng, value, rising))
        value = combine(operations[-1][0], value, operations[-1][1])
    return Run(letters, start, tuple(operations))


def _operation(rng: random.Random, value: int, rising: bool) -> Operation:
    share = RISING if rising else 0.7 if value < 7 else 0.3
    return "+" if rng.random() < share else "-", rng.choice(OPERANDS)


def _letters(rng: random.Random, sizes: Sequence[int]) -> list[tuple[str, ...]]:
    """Consecutive letters for every run, no letter twice: the runs lie on the circle of letters in a random order, with random gaps."""
    gaps = [0] * len(sizes)
    for _ in range(len(LETTERS) - sum(sizes)):
        gaps[rng.randrange(len(gaps))] += 1
    at, found = rng.randrange(len(LETTERS)), {}
    for i in rng.sample(range(len(sizes)), len(sizes)):
        found[i] = tuple(LETTERS[(at + j) % len(LETTERS)] for j in range(sizes[i]))
        at += sizes[i] + gaps[i]
    return [found[i] for i in range(len(sizes))]


# --------------------------------------------------------------------------------------- solving, in two dialects


def own_words(problem: Problem, done: Collection[str] = ()) -> str:
    """The right solution as the base model writes it: run by run as they are asked for, one operation a step.

    `done`: letters whose values are known already, `max` or `min` where the join is too; only what is left is written.
    """
    values, steps = problem.values(), []
    for run in problem.needed:
        known = max((i for i, letter in enumerate(run.letters) if letter in done), default=0)
        for i, (sign, n) in list(enumerate(run.operations))[known:]:
            before, letter = run.letters[i : i + 2]
            steps.append(f"{letter} {sign}{n} {values[before]} = {values[letter]} ;")
    if problem.sign:
        if problem.sign not in done:
            steps.append(f"{problem.sign} {problem.ends[0]} {problem.ends[1]} = {problem.joined} ;")
        steps.append(f"{problem.last[0]}{problem.last[1]} {problem.joined} = {problem.answer} ;")
    return " ".join([*steps, f"# {problem.answer}"])


def reference(problem: Problem, rng: random.Random) -> str:
    """A right solution as the references have it: the other run first now and then, two operations at once, other words, which vary."""
    values, steps = problem.values(), []

    def say(name: str, operations: Sequence[Operation], value: int, result: int) -> None:
        shown = (f"{rng.choice(WORDS[sign])} {n}" for sign, n in operations)
        steps.append(" ".join([*([name] if name else []), *shown, str(value), rng.choice(("is", "equals")), str(result), ";"]))

    for run in rng.sample(problem.needed, len(problem.needed)) if rng.random() < 0.5 else problem.needed:
        done = 0
        while done < len(run.operations):
            size = 2 if done + 2 <= len(run.operations) and rng.random() < 0.25 else 1
            letter = run.letters[done + size]
            say(letter, run.operations[done : done + size], values[run.letters[done]], values[letter])
            done += size
    if problem.sign:
        a, b = rng.sample(problem.ends, 2)
        say("", [(problem.sign, a)], b, problem.joined)
        say("", [problem.last], problem.joined, problem.answer)
    return " ".join([*steps, f"# {problem.answer}"])


# --------------------------------------------------------------------------------------- what a base model learns from

HINTS = {  # how a taught base is shown a hint, as `guidance.template` of a run
    "answer_driven": "{question} answer {answer}",
    "rationale_driven": "{question} solution {rationale}",
    "interactive": "{question} attempt {attempt} teacher {feedback}",
    "cue": "{question} cue {cue}",
}


BOOK, QUOTED, EVEN = 1 / 16, 1 / 6, 1 / 10  # shares of the documents a base learns from, see `documents`


def documents(rng: random.Random, examples: int, level_rate: float, max_level: int, taught: bool = False) -> Iterator[tuple[str, str]]:
    """(prompt, completion) pairs, level = min(max_level, 1 + floor(Exp(level_rate))).

    Most are questions with a solution in own words. BOOK of them are solutions in the references' words behind a question that ends in `book`; QUOTED go on
    in own words where the prompt already holds some steps in the references': so the base reads them and goes on from them, and does
    not write them of its own. These and EVEN more are of all levels alike, with numbers that stay small. With `taught` one in five, of levels 1 to
    4, shows a hint.
    """
    for _ in range(examples):
        kind = rng.random()
        hinted = taught and kind > 0.8
        level = min(max_level, 1 + math.floor(rng.expovariate(level_rate)))
        even = kind < BOOK + QUOTED + EVEN
        if even:
            level = rng.randint(1, max_level)
        problem = draw(rng, min(4, level) if hinted else level, rising=not even)
        if kind < BOOK:
            yield f"{problem.question} book", reference(problem, rng)
        elif kind < BOOK + QUOTED:
            steps = reference(problem, rng).split(" ; ")[:-1]
            begun = steps[: rng.randint(1, len(steps))]
            yield " ".join([problem.question, *(f"{step} ;" for step in begun)]), own_words(problem, _done(problem, begun))
        elif hinted:
            yield _hinted(problem, rng), own_words(problem)
        else:
            yield problem.question, own_words(problem)


def _done(problem: Problem, steps: Sequence[str]) -> set[str]:
    """What the first steps of a reference have worked out, as `own_words` takes it."""
    names = [step.split()[0] for step in steps]
    signs = {word: sign for sign, words in WORDS.items() for word in words}
    return {signs.get(name, name) for name in names}


def _hinted(problem: Problem, rng: random.Random) -> str:
    kind = rng.choice(list(HINTS))
    attempt, wrong = spoil(own_words(problem), rng)
    fields = {
        "question": problem.question,
        "answer": str(problem.answer),
        "rationale": reference(problem, rng),
        "attempt": attempt,
        "feedback": wrong,
        "cue": cue(problem),
    }
    return HINTS[kind].format(**fields)


def spoil(solution: str, rng: random.Random) -> tuple[str, str]:
    """A solution in own words with a wrong result in one step and at the end where that follows, and that step up to its result: a teacher's remark."""
    steps = solution.split(" ; ")
    at = rng.randrange(len(steps) - 1)
    *front, right = steps[at].split()
    wrong = rng.choice([n for n in NUMBERS if n != right])
    steps[at] = " ".join([*front, wrong])
    if at == len(steps) - 2:
        steps[-1] = f"# {wrong}"
    return " ; ".join(steps), " ".join(front[:-1])


def cue(problem: Problem) -> str:
    """The operations to take, in an order that works, without any value."""
    signs = [f"{sign}{n}" for run in problem.needed for sign, n in run.operations]
    return " ".join([*signs, *([problem.sign, f"{problem.last[0]}{problem.last[1]}"] if problem.sign else [])])


RECIPE = (Run, Problem, combine, draw, _draw, _run, _operation, _letters, own_words, reference, documents, _done, _hinted, spoil, cue)


# --------------------------------------------------------------------------------------- queries


def queries(
    seed: int, per_level: int, levels: Sequence[int] = range(1, 9), joins: float | None = None, prefix: str = "dag", task: str = "dag"
) -> list[Query]:
    """`per_level` queries of every level with a reference each, no question twice, ids like `dag-s1-L3-0007`.

    Each is drawn from its own generator, seeded by seed, level and index; asking for more or for other levels changes none of the
    others. Raises GsiError for a level outside 1..12.
    """
    found: list[Query] = []
    for level in dict.fromkeys(levels):
        if not 1 <= level <= MAX_LEVEL:
            raise GsiError(f"dag: level {level} does not exist; use levels from 1 to {MAX_LEVEL}")
        seen: set[str] = set()
        for index in range(per_level):
            redraw = 0
            while (problem := draw(rng := random.Random(f"dag/{seed}/{level}/{index}/{redraw}"), level, joins=joins)).question in seen:
                redraw += 1
            seen.add(problem.question)
            answer, rationale = str(problem.answer), reference(problem, rng)
            found.append(Query(f"{prefix}-s{seed}-L{level}-{index:04d}", task, problem.question, answer, rationale, level))
    return found


def longer(seed: int, per_level: int, levels: Sequence[int] = LONGER) -> list[Query]:
    """Held out: longer than anything that is sampled or learned from."""
    return queries(seed, per_level, levels, prefix="dag-long", task="dag_long")


def single(seed: int, per_level: int, levels: Sequence[int] = HARD_LEVELS) -> list[Query]:
    """Held out: long questions that need one run only, where those that are sampled need two."""
    return queries(seed, per_level, levels, joins=0.0, prefix="dag-single", task="dag_single")
