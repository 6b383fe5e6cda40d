"""Dependency problems in the spirit of iGSM (arXiv 2407.20311): quantities made from others, with several right ways to solve each.

Quantities come in runs of consecutive letters, each made from the one before; a run starts from a number, or joins two runs; some runs
are not needed. A query of level n needs n operations, modulo 23:

    question    d 3 e + 4 f - 5 ; k 9 l + 1 ; s 8 t - 2 ; w f max t x + 6 ; ? x
    own words   e 3 + 4 = 7 ; f 7 - 5 = 2 ; t 8 - 2 = 6 ; w f 2 max t 6 = 6 ; x 6 + 6 = 12 ; # 12
    reference   t 8 less 2 is 6 ; f 3 plus 4 less 5 equals 2 ; w t 6 over f 2 is 6 ; x 6 add 6 equals 12 ; # 12

Any order in which every quantity comes after those it is made from is right; a step may take several operations of a run at once, in any
order, and the sides of a join may be swapped; quantities that are not needed may be worked out too. The references begin with another run now and then,
group and word their steps as they like; a base model writes its own words only, unless a response already begins in theirs.

What is hard is length: a small model looks operations up by where they stand, has seen mostly short questions, and loses its place in long ones. Two
choices are made for such models, after some forty tries. Letters are consecutive: with freely named quantities none learned to look a name up.
And a step of the references has the length and shape of one in own words: an opening in steps of another length confuses the look-up, so that it
hinders where it should help. Nothing here needs torch; the check is in `dag_check.py`.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import count

from gsi.types import GsiError, Query

MODULUS = 23
LETTERS = tuple("abcdefghijklmnopqrstuvwxyz")  # z is followed by a
NUMBERS = tuple(str(n) for n in range(MODULUS))
MAX_OPERAND = 9  # operands are 1..9
WORDS = {"+": ("plus", "add"), "-": ("minus", "less"), "max": ("above", "over"), "min": ("below", "under")}  # the references' signs
VOCABULARY = [*NUMBERS, *LETTERS, *WORDS, *(word for pair in WORDS.values() for word in pair)]
VOCABULARY += ["=", ";", "#", "?", "is", "equals", "book", "answer", "solution", "attempt", "teacher", "cue"]
HARD_LEVELS = (6, 7, 8)
LONGER = (9, 10)
MAX_LEVEL = 12
JOINS, SPARE, GROUPED = (
    0.1,
    0.1,
    0.15,
)  # shares: of problems with a join, with a run that is not needed; of reference steps with two operations
CHANCE = 1 / MODULUS

Operation = tuple[str, int]  # (sign, number)


@dataclass(frozen=True)
class Run:
    """Consecutive letters: the first is `start`, a number or a join (sign, letter, letter); each other applies the next operation."""

    letters: tuple[str, ...]
    start: int | tuple[str, str, str]
    operations: tuple[Operation, ...]

    @property
    def joined(self) -> tuple[str, ...]:
        return () if isinstance(self.start, int) else self.start[1:]

    def __str__(self) -> str:
        start = str(self.start) if isinstance(self.start, int) else f"{self.start[1]} {self.start[0]} {self.start[2]}"
        rest = (f"{letter} {sign} {n}" for letter, (sign, n) in zip(self.letters[1:], self.operations, strict=True))
        return " ".join([self.letters[0], start, *rest])


@dataclass(frozen=True)
class Problem:
    """Runs in the order of the question; the last letter of one is asked for."""

    runs: tuple[Run, ...]
    target: str

    @property
    def question(self) -> str:
        return " ".join([*(f"{run} ;" for run in self.runs), "?", self.target])

    def values(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for run in self.runs:
            value = run.start if isinstance(run.start, int) else combine(run.start[0], found[run.start[1]], found[run.start[2]])
            found[run.letters[0]] = value
            for letter, (sign, n) in zip(run.letters[1:], run.operations, strict=True):
                found[letter] = value = combine(sign, value, n)
        return found

    def needed(self) -> list[Run]:
        """The runs that the target needs, in the question's order."""
        wanted, kept = {self.target}, []
        for run in reversed(self.runs):
            if run.letters[-1] in wanted:
                wanted |= {*run.joined}
                kept.append(run)
        return kept[::-1]


def combine(sign: str, a: int, b: int) -> int:
    return {"+": (a + b) % MODULUS, "-": (a - b) % MODULUS, "max": max(a, b), "min": min(a, b)}[sign]


# --------------------------------------------------------------------------------------- drawing


def draw(rng: random.Random, level: int, joins: float = JOINS) -> Problem:
    """A problem whose target takes `level` operations; no other quantity that it needs has the answer's value.

    So an opening of the reference does not state the answer by coincidence, and a guess among what is known is never right.
    """
    while True:
        problem = _draw(rng, level, joins)
        values = problem.values()
        if sum(values[letter] == values[problem.target] for run in problem.needed() for letter in run.letters) == 1:
            return problem


def _draw(rng: random.Random, level: int, joins: float) -> Problem:
    leaves = 2 if level > 3 and rng.random() < joins else 1  # each join needs a leaf more with an operation of its own
    links, sizes = leaves - 1, [1] * leaves + [0] * (leaves - 1)  # operations of every run, links apart
    for _ in range(level - leaves - links):
        sizes[rng.randrange(len(sizes))] += 1
    spare = [rng.randint(1, 3)] if rng.random() < SPARE else []
    order = rng.sample(range(len(sizes) + len(spare)), len(sizes) + len(spare))
    names = _letters(rng, [n + 1 for n in (*sizes, *spare)], order)
    runs: list[Run] = []
    open_ends: list[str] = []
    for i, size in enumerate((*sizes, *spare)):
        start: int | tuple[str, str, str] = rng.randrange(MODULUS)
        if leaves <= i < len(sizes):
            one, other = rng.sample(open_ends, 2) if len(open_ends) > 2 or rng.random() < 0.5 else open_ends[:2]
            open_ends = [x for x in open_ends if x not in (one, other)]
            start = (rng.choice(("max", "min")), one, other)
        run = Run(names[i], start, tuple((rng.choice("+-"), rng.randint(1, MAX_OPERAND)) for _ in range(size)))
        runs.append(run)
        open_ends.append(run.letters[-1])
    target = runs[len(sizes) - 1].letters[-1]
    return Problem(tuple(_shuffled(runs, rng)), target)


def _letters(rng: random.Random, sizes: Sequence[int], order: Sequence[int]) -> list[tuple[str, ...]]:
    """Consecutive letters for every run, no letter twice: the runs lie on the circle of letters in `order`, with random gaps."""
    gaps = [0] * len(sizes)
    for _ in range(len(LETTERS) - sum(sizes)):
        gaps[rng.randrange(len(gaps))] += 1
    at, found = rng.randrange(len(LETTERS)), {}
    for i in order:
        found[i] = tuple(LETTERS[(at + j) % len(LETTERS)] for j in range(sizes[i]))
        at += sizes[i] + gaps[i]
    return [found[i] for i in range(len(sizes))]


def _shuffled(runs: Sequence[Run], rng: random.Random) -> list[Run]:
    """A random order in which every run comes after those it joins."""
    left, done, order = list(runs), set(), []
    while left:
        ready = [run for run in left if all(letter in done for letter in run.joined)]
        chosen = rng.choice(ready)
        left.remove(chosen)
        done.add(chosen.letters[-1])
        order.append(chosen)
    return order


# --------------------------------------------------------------------------------------- solving, in two dialects


def own_words(problem: Problem, rng: random.Random, done: Collection[str] = ()) -> str:
    """A right solution as the base model writes it: run by run, mostly in the question's order, one operation a step.

    `done`: letters whose values are known already; only what is left is written.
    """
    values, steps = problem.values(), []
    for run in _shuffled(problem.needed(), rng) if rng.random() < 0.1 else problem.needed():
        known = max((i for i, letter in enumerate(run.letters) if letter in done), default=-1)
        if not isinstance(run.start, int) and known < 0:
            sign, a, b = run.start
            steps.append(f"{run.letters[0]} {a} {values[a]} {sign} {b} {values[b]} = {values[run.letters[0]]} ;")
        for i, (sign, n) in list(enumerate(run.operations))[max(0, known) :]:
            before, letter = run.letters[i : i + 2]
            steps.append(f"{letter} {values[before]} {sign} {n} = {values[letter]} ;")
    return " ".join([*steps, f"# {values[problem.target]}"])


def reference(problem: Problem, rng: random.Random) -> str:
    """A right solution as the references have it: another order of runs, now and then two operations at once, other words, which vary."""
    values, steps = problem.values(), []

    def say(letter: str, body: str) -> None:
        steps.append(f"{letter} {body} {rng.choice(('is', 'equals'))} {values[letter]} ;")

    for run in _shuffled(problem.needed(), rng) if rng.random() < 0.3 else problem.needed():
        if not isinstance(run.start, int):
            sign, a, b = run.start
            a, b = (a, b) if rng.random() < 0.5 else (b, a)
            say(run.letters[0], f"{a} {values[a]} {rng.choice(WORDS[sign])} {b} {values[b]}")
        done = 0
        while done < len(run.operations):
            size = 2 if done + 2 <= len(run.operations) and rng.random() < GROUPED else 1
            shown = (f"{rng.choice(WORDS[sign])} {n}" for sign, n in run.operations[done : done + size])
            say(run.letters[done + size], " ".join([str(values[run.letters[done]]), *shown]))
            done += size
    return " ".join([*steps, f"# {values[problem.target]}"])


# --------------------------------------------------------------------------------------- what a base model learns from

# how a taught base is shown a hint, as `guidance.template` of a run: before the question, which stays where the look-up finds it
HINTS = {
    "answer_driven": "answer {answer} {question}",
    "rationale_driven": "solution {rationale} {question}",
    "interactive": "attempt {attempt} teacher {feedback} {question}",
    "cue": "cue {cue} {question}",
}


def documents(rng: random.Random, examples: int, level_rate: float, max_level: int, taught: bool = False) -> Iterator[tuple[str, str]]:
    """(prompt, completion) pairs, level = min(max_level, 1 + floor(Exp(level_rate))).

    Most are questions with a solution in own words. One in sixteen, of levels 1 to 4, is a solution in the references' words behind a question that
    ends in `book`; one in eight goes on in own words where the prompt already holds some steps in the references': so the base reads
    them and goes on from them, and does not write them of its own. With `taught` about one in three shows a hint, of all levels: from hints of levels
    1 to 5 alone no model of this size learns to read one on the hard levels, where prompts are longer (`python -m gsi.lab.reading`).
    """
    for _ in range(examples):
        kind = rng.random()
        if taught and kind > 0.65:
            while (level := 1 + math.floor(rng.expovariate(0.25))) > max_level:
                pass
            problem = draw(rng, level)
            # most of what is hardest to read
            (shown,) = rng.choices(["rationale_driven", "interactive", "answer_driven", "cue"], [9, 5, 3, 3])
            yield hinted(problem, shown, rng), own_words(problem, rng)
            continue
        problem = draw(rng, min(4 if kind < 0.0625 else max_level, 1 + math.floor(rng.expovariate(level_rate))))
        if kind < 0.0625:
            yield f"{problem.question} book", reference(problem, rng)
        elif kind < 0.1875:
            steps = reference(problem, rng).split(" ; ")[:-1]
            begun = steps[: rng.randint(1, len(steps))]
            done = [step.split()[0] for step in begun]
            yield " ".join([problem.question, *(f"{step} ;" for step in begun)]), own_words(problem, rng, done)
        else:
            yield problem.question, own_words(problem, rng)


def hinted(problem: Problem, kind: str, rng: random.Random) -> str:
    """The question with a hint of this kind, as a run's template shows it."""
    attempt, wrong = spoil(own_words(problem, rng), rng)
    fields = {
        "question": problem.question,
        "answer": str(problem.values()[problem.target]),
        "rationale": reference(problem, rng),
        "attempt": attempt,
        "feedback": feedback(problem, wrong),
        "cue": cue(problem),
    }
    return HINTS[kind].format(**fields)


def spoil(solution: str, rng: random.Random) -> tuple[str, str]:
    """A solution in own words with a wrong result in one step and at the end where that follows, and the letter of that step."""
    steps = solution.split(" ; ")
    at = rng.randrange(len(steps) - 1)
    *front, right = steps[at].split()
    wrong = rng.choice([n for n in NUMBERS if n != right])
    steps[at] = " ".join([*front, wrong])
    if at == len(steps) - 2:
        steps[-1] = f"# {wrong}"
    return " ; ".join(steps), front[0]


def feedback(problem: Problem, wrong: str) -> str:
    """What a teacher says of a wrong quantity: how it is made, without its value."""
    run = next(run for run in problem.runs if wrong in run.letters)
    i = run.letters.index(wrong)
    if i:
        sign, n = run.operations[i - 1]
        return f"{wrong} {run.letters[i - 1]} {sign} {n}"
    return " ".join(str(Run(run.letters[:1], run.start, ())).split())


def cue(problem: Problem) -> str:
    """The last letters of the runs to work out, in an order that works, without any value."""
    return " ".join(run.letters[-1] for run in problem.needed())


RECIPE = (Run, Problem, combine, draw, _draw, _letters, _shuffled, own_words, reference, documents, hinted, spoil, feedback, cue)


# --------------------------------------------------------------------------------------- queries


def queries(
    seed: int,
    per_level: int,
    levels: Sequence[int] = range(1, 9),
    joins: float = JOINS,
    prefix: str = "dag",
    task: str = "dag",
    wanted: Callable[[Problem], bool] = lambda problem: True,
) -> list[Query]:
    """`per_level` queries of every level with a reference each, no question twice, ids like `dag-s1-L3-0007`.

    Each is drawn from its own generator, seeded by seed, level and index, until it is `wanted`; asking for more or for other levels
    changes none of the others. Raises GsiError for a level outside 1..12.
    """
    found: list[Query] = []
    for level in dict.fromkeys(levels):
        if not 1 <= level <= MAX_LEVEL:
            raise GsiError(f"dag: level {level} does not exist; use levels from 1 to {MAX_LEVEL}")
        seen: set[str] = set()
        for index in range(per_level):
            for redraw in count():
                rng = random.Random(f"dag/{seed}/{level}/{index}/{redraw}")
                problem = draw(rng, level, joins)
                if problem.question not in seen and wanted(problem):
                    break
            seen.add(problem.question)
            rationale = reference(problem, rng)
            found.append(Query(f"{prefix}-s{seed}-L{level}-{index:04d}", task, problem.question, rationale.split()[-1], rationale, level))
    return found


def longer(seed: int, per_level: int, levels: Sequence[int] = LONGER) -> list[Query]:
    """Held out: longer than anything that is sampled or learned from."""
    return queries(seed, per_level, levels, prefix="dag-long", task="dag_long")


def joined(seed: int, per_level: int, levels: Sequence[int] = range(4, 7)) -> list[Query]:
    """Held out: two runs in every question, which is rare elsewhere."""
    return queries(seed, per_level, levels, joins=1.0, prefix="dag-joined", task="dag_joined")


def with_spare(seed: int, per_level: int, levels: Sequence[int] = range(4, 8)) -> list[Query]:
    """Held out: a run in every question that is not needed, which is rare elsewhere."""
    return queries(seed, per_level, levels, prefix="dag-spare", task="dag_spare", wanted=lambda p: len(p.needed()) < len(p.runs))
