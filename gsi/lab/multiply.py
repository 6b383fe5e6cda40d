"""Long multiplication by one digit, with written steps in any of several schemes, checked to the step.

The places of a number have consecutive letters, the lowest first, and a digit is one token with its letter, `d3`, so that every look-up goes by
name and not by position. A query of level n has a number of n digits. A place's total is its product and the carry from the place below: a
carry of its own, and the digit of the result, with the capital letter:

    question    d3 e7 f4 times 6 ?                                                      473 times 6
    own words   d3 * 6 + 0 = 1 D8 ; e7 * 6 + 1 = 4 E3 ; f4 * 6 + 4 = 2 F8 ; # 2 F8 E3 D8
    reference   f4 by 6 makes 2 4 ; d3 of 6 with 0 is 1 D8 ; e7 of 6 is 4 2 ; e7 4 2 and 1 makes 4 E3 ; f4 2 4 with 4 is 2 F8 ; # 2 F8 E3 D8

A place may be taken at once (product and carry in one step) or in two steps, and the products in any order and at any time before their
totals; a product that is not used may be worked out too. The references choose among all these and between words; a base model takes places at
once, in its own words, unless a response already begins in theirs. Nothing here needs torch; the check is in `multiply_check.py`.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from gsi.types import GsiError, Query

LETTERS = tuple("abcdefghijkl")  # l is followed by a
DIGITS = tuple("0123456789")
WORDS = {"*": ("of", "by"), "+": ("with", "and"), "=": ("is", "makes")}  # the references' signs
NAMED = tuple(letter + digit for letter in LETTERS for digit in DIGITS)
VOCABULARY = [*DIGITS, *NAMED, *(named.upper() for named in NAMED), *WORDS, *(word for pair in WORDS.values() for word in pair)]
VOCABULARY += [";", "#", "?", "times", "book", "answer", "solution", "attempt", "teacher", "cue"]
HARD_LEVELS = (7, 8, 9)
LONGER = (10, 11)
MAX_LEVEL = 11


def chance(level: int) -> float:
    """Probability that a guess among all results of numbers of `level` digits and the multiplier that is asked for is right."""
    return 1 / (9 * 10 ** (level - 1))


@dataclass(frozen=True)
class Problem:
    """A number, digit by digit from the lowest place, its places' letters, and what it is multiplied by."""

    letters: tuple[str, ...]
    digits: tuple[int, ...]
    by: int

    @property
    def question(self) -> str:
        return " ".join([*self.named, "times", str(self.by), "?"])

    @cached_property
    def named(self) -> tuple[str, ...]:
        """The digits with their letters: `d3`, ..."""
        return tuple(f"{letter}{digit}" for letter, digit in zip(self.letters, self.digits, strict=True))

    @cached_property
    def carries(self) -> tuple[int, ...]:
        """Into every place, and out of the last: one more than there are digits."""
        found = [0]
        for digit in self.digits:
            found.append((digit * self.by + found[-1]) // 10)
        return tuple(found)

    def total(self, i: int) -> str:
        """The total of place i as it is written: `4 E3`."""
        carries = self.carries
        return f"{carries[i + 1]} {self.letters[i].upper()}{(self.digits[i] * self.by + carries[i]) % 10}"

    @property
    def answer(self) -> str:
        last, *rest = (self.total(i) for i in reversed(range(len(self.digits))))
        return " ".join([last, *(total[2:] for total in rest)])


def draw(rng: random.Random, level: int) -> Problem:
    """A problem with a number of `level` digits, times 2 to 9."""
    first = rng.randrange(len(LETTERS))
    letters = tuple(LETTERS[(first + i) % len(LETTERS)] for i in range(level))
    return Problem(letters, (*(rng.randrange(10) for _ in range(level - 1)), rng.randint(1, 9)), rng.randint(2, 9))


# --------------------------------------------------------------------------------------- solving, in two dialects


def own_words(problem: Problem, done: int = 0) -> str:
    """The solution as the base model writes it: place by place from the lowest. `done` places are worked out already."""
    carries = problem.carries
    steps = [f"{problem.named[i]} * {problem.by} + {carries[i]} = {problem.total(i)} ;" for i in range(done, len(problem.digits))]
    return " ".join([*steps, f"# {problem.answer}"])


def reference(problem: Problem, rng: random.Random) -> str:
    """A right solution as the references have it: places at once or in two steps, products early or late, other words, which vary."""
    carries, steps, done = problem.carries, [], 0
    products: set[int] = set()  # places whose product is written
    hurry = rng.choice((0.5, 0.8))  # how soon a product is put to use

    def say(text: str) -> None:
        steps.append(" ".join(rng.choice(WORDS[token]) if token in WORDS else token for token in text.split()))

    while done < len(problem.digits):
        named = problem.named[done]
        ahead = [i for i in range(done, len(problem.digits)) if i not in products]
        if done in products and (not ahead or rng.random() < hurry):
            a, b = divmod(problem.digits[done] * problem.by, 10)
            say(f"{named} {a} {b} + {carries[done]} = {problem.total(done)} ;")
            done += 1
        elif done not in products and rng.random() < 0.3:
            say(f"{named} * {problem.by} + {carries[done]} = {problem.total(done)} ;")
            done += 1
        else:
            i = done if done not in products and rng.random() < hurry else rng.choice(ahead)
            a, b = divmod(problem.digits[i] * problem.by, 10)
            say(f"{problem.named[i]} * {problem.by} = {a} {b} ;")
            products.add(i)
    return " ".join([*steps, f"# {problem.answer}"])


# --------------------------------------------------------------------------------------- what a base model learns from

HINTS = {  # how a taught base is shown a hint, as `guidance.template` of a run: before the question, which stays where the look-up finds it
    "answer_driven": "answer {answer} {question}",
    "rationale_driven": "solution {rationale} {question}",
    "interactive": "attempt {attempt} teacher {feedback} {question}",
    "cue": "cue {cue} {question}",
}


def documents(rng: random.Random, examples: int, level_rate: float, max_level: int, taught: bool = False) -> Iterator[tuple[str, str]]:
    """(prompt, completion) pairs, level = min(max_level, 1 + floor(Exp(level_rate))).

    Most are questions with a solution in own words. One in sixteen, of levels 1 to 4, is a solution in the references' words behind a question that
    ends in `book`; one in four goes on in own words where the prompt already holds some steps in the references':
    so the base reads them and goes on from them, and does not write them of its own. With `taught` about one in three shows a hint, of every level that it sees:
    hints make prompts longer, and from those of levels 1 to 4 it learns to read none on level 5 (`python -m gsi.lab.reading`).
    """
    for _ in range(examples):
        kind, level = rng.random(), min(max_level, 1 + math.floor(rng.expovariate(level_rate)))
        if kind < 0.0625:
            problem = draw(rng, min(4, level))
            yield f"{problem.question} book", reference(problem, rng)
        elif kind < 0.3125:
            yield _quoted(draw(rng, level), rng)
        elif taught and kind > 0.65:
            problem = draw(rng, rng.randint(1, max_level))
            yield hinted(problem, rng.choice(list(HINTS)), rng), own_words(problem)
        else:
            problem = draw(rng, level)
            yield problem.question, own_words(problem)


def _quoted(problem: Problem, rng: random.Random) -> tuple[str, str]:
    """A question with the opening of a reference, and how it goes on in own words."""
    steps = reference(problem, rng).split(" ; ")[:-1]
    begun = steps[: rng.randint(1, len(steps))]
    done = sum(step.split()[-1].isupper() for step in begun)
    return " ".join([problem.question, *(f"{step} ;" for step in begun)]), own_words(problem, done)


def hinted(problem: Problem, kind: str, rng: random.Random) -> str:
    """The question with a hint of this kind, as a run's template shows it."""
    attempt, wrong = spoil(own_words(problem), rng)
    fields = {
        "question": problem.question,
        "answer": problem.answer,
        "rationale": reference(problem, rng),
        "attempt": attempt,
        "feedback": feedback(problem, wrong),
        "cue": cue(problem),
    }
    return HINTS[kind].format(**fields)


def spoil(solution: str, rng: random.Random) -> tuple[str, str]:
    """A solution in own words with a wrong digit in one total, and in the result where that follows; and the place of that step."""
    *steps, result = solution.split(" ; ")
    at, place = rng.randrange(len(steps)), rng.choice((-1, -2))  # its digit of the result, or its carry
    step, final = steps[at].split(), result.split()
    right = step[place]
    step[place] = right[:-1] + rng.choice([digit for digit in DIGITS if digit != right[-1]])
    if place == -1:
        final[final.index(right)] = step[place]
    elif at == len(steps) - 1:
        final[1] = step[place]
    return " ; ".join([*steps[:at], " ".join(step), *steps[at + 1 :], " ".join(final)]), step[0]


def feedback(problem: Problem, wrong: str) -> str:
    """What a teacher says of a wrong total: how it is made, without its value."""
    return f"{wrong} * {problem.by} + {problem.carries[problem.named.index(wrong)]}"


def cue(problem: Problem) -> str:
    """The carries into the places, without any digit of the result."""
    return " ".join(map(str, problem.carries[:-1]))


RECIPE = (Problem, draw, own_words, reference, documents, _quoted, hinted, spoil, feedback, cue)


# --------------------------------------------------------------------------------------- queries


def queries(
    seed: int, per_level: int, levels: Sequence[int] = range(1, 10), prefix: str = "multiply", task: str = "multiply"
) -> list[Query]:
    """`per_level` queries of every level with a reference each, no question twice, ids like `multiply-s1-L3-0007`.

    Each is drawn from its own generator, seeded by seed, level and index; asking for more or for other levels changes none of the
    others. Level 1 has 864 questions, so sets of different seeds share some there. Raises GsiError for a level outside 1..11, or for more
    than half the questions a level has.
    """
    found: list[Query] = []
    for level in dict.fromkeys(levels):
        if not 1 <= level <= MAX_LEVEL:
            raise GsiError(f"multiply: level {level} does not exist; use levels from 1 to {MAX_LEVEL}")
        space = len(LETTERS) * 8 * 9 * 10 ** (level - 1)
        if per_level > space // 2:
            raise GsiError(f"multiply: {per_level} different questions of level {level} are too many; ask for at most {space // 2}")
        seen: set[str] = set()
        for index in range(per_level):
            redraw = 0
            while (problem := draw(rng := random.Random(f"multiply/{seed}/{level}/{index}/{redraw}"), level)).question in seen:
                redraw += 1
            seen.add(problem.question)
            found.append(
                Query(f"{prefix}-s{seed}-L{level}-{index:04d}", task, problem.question, problem.answer, reference(problem, rng), level)
            )
    return found


def longer(seed: int, per_level: int, levels: Sequence[int] = LONGER) -> list[Query]:
    """Held out: longer than anything that is sampled or learned from."""
    return queries(seed, per_level, levels, prefix="multiply-long", task="multiply_long")
