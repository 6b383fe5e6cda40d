"""Dependency problems in the spirit of iGSM (arXiv 2407.20311): quantities defined from others, several right ways to solve each.

A query of level n needs n operations, modulo 23, over named quantities; some definitions are not needed at all:

    question    c. 4 ; V = c + 6 ; K = c - 3 ; U = v max c ; T = u + 2 ; ? T
    own words   V = c + 6 : c 4 + 6 = v. 10 ; U = v max c : v 10 max c 4 = u. 10 ; T = u + 2 : u 10 + 2 = t. 12 ; # 12
    reference   V needs c 4 plus 6 = 10 so v. 10 ; for U with c 4 over v 10 = 10 thus u. 10 ; T needs 2 add u 10 = 12 so t. 12 ; # 12

A name is one token in each of three spellings: `V` where the quantity is defined, `v` where it is used, `v.` where its value stands. So
looking it up is a thing that a model of 150k parameters learns in its minutes; with one spelling none of twenty tries learned it.

Any order in which every quantity comes after those it is made from is right; terms may be swapped but in differences, three terms may be taken in
three groupings (`v 10 max w 8 = _ 10 ; _ 10 max c 4 = u. 10 ;`), and quantities that are not needed may be worked out too. The
references go from the target down to what it needs, in other words, which vary; a base model writes its own words only, unless a
response already begins in theirs. Nothing here needs torch; the check is in `dag_check.py`.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gsi.types import GsiError, Query

MODULUS = 23
LETTERS = tuple("abcdefghijklmnopqrstuvwxyz")
NUMBERS = tuple(str(n) for n in range(MODULUS))
MAX_LITERAL = 9  # numbers in definitions are 1..9
WORDS = {"+": ("plus", "add"), "-": ("minus", "less"), "max": ("above", "over"), "min": ("below", "under")}  # the references' signs
SPELLINGS = [spelled for x in LETTERS for spelled in (x, x.upper(), f"{x}.")]
VOCABULARY = [*NUMBERS, *SPELLINGS, *WORDS, *(word for pair in WORDS.values() for word in pair)]
VOCABULARY += ["=", ";", "#", "?", "_", ":", "needs", "for", "with", "so", "thus", "book", "answer", "solution", "attempt", "teacher", "cue"]
HARD_LEVELS = (6, 7, 8)
MAX_LEVEL = 12
CHANCE = 1 / MODULUS

Term = str  # a letter or a number
Definition = tuple[str, str, tuple[Term, ...]]  # (letter, sign, terms): `+`, `-` (2 terms), `max`, `min` (2 or 3) or `` (a given number)


@dataclass(frozen=True)
class Problem:
    """Definitions in the order of the question, and the quantity asked for."""

    definitions: tuple[Definition, ...]
    target: str

    @property
    def question(self) -> str:
        shown = (f"{defined(d)} ;" if d[1] else f"{d[0]}. {d[2][0]} ;" for d in self.definitions)
        return " ".join([*shown, "?", self.target.upper()])

    def values(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for name, sign, terms in self.definitions:
            found[name] = combine(sign, [found[t] if t in found else int(t) for t in terms])
        return found

    def needed(self) -> set[str]:
        """The target and what it is made from, given numbers included."""
        made = {name: terms for name, _, terms in self.definitions}
        reached, left = set(), [self.target]
        while left:
            name = left.pop()
            if name not in reached:
                reached.add(name)
                left += [t for t in made[name] if t in made]
        return reached


def defined(definition: Definition) -> str:
    """`V = c + 6`."""
    name, sign, terms = definition
    return f"{name.upper()} = {f' {sign} '.join(terms)}"


def combine(sign: str, values: Sequence[int]) -> int:
    if sign in ("max", "min"):
        return max(values) if sign == "max" else min(values)
    if not sign:
        return values[0]
    return (values[0] + values[1] if sign == "+" else values[0] - values[1]) % MODULUS


# --------------------------------------------------------------------------------------- drawing


def draw(rng: random.Random, level: int) -> Problem:
    """A problem whose target takes `level` operations, with distractors; no other quantity that it needs has the answer's value.

    So an opening of the reference does not state the answer by coincidence, and a guess among what is known is never right.
    """
    while True:
        problem = _draw(rng, level)
        values = problem.values()
        if sum(values[name] == values[problem.target] for name in problem.needed()) == 1:
            return problem


def _draw(rng: random.Random, level: int) -> Problem:
    names = rng.sample(LETTERS, len(LETTERS))
    given = names[: rng.choice((1, 2, 2))]
    fresh = iter(names[len(given) :])
    definitions: list[Definition] = [(name, "", (str(rng.randrange(MODULUS)),)) for name in given]
    unused, made, left = [given[0]], list(given), level
    while left:
        count = 3 if left >= 2 and len(made) >= 3 and rng.random() < 0.25 else 2
        lowest = max(0, len(unused) - left + count - 1)  # of the unused that this definition has to use, so that the target needs all
        used = [x for x in made if x not in unused]
        if (count == 2 and lowest < 2 and rng.random() < 0.65) or len(made) < 2:
            source = rng.choice(used) if used and not lowest and rng.random() < 0.3 else rng.choice(unused)
            terms, sign = [source, str(rng.randint(1, MAX_LITERAL))], rng.choice("+-")
        else:
            terms = rng.sample(unused, rng.randint(max(lowest, count - len(used), 0), min(len(unused), count)))
            terms += rng.sample(used, count - len(terms))
            rng.shuffle(terms)
            sign = rng.choice(("max", "min"))
        name = next(fresh)
        definitions.append((name, sign, tuple(terms)))
        unused = [x for x in unused if x not in terms] + [name]
        made.append(name)
        left -= count - 1
    target = name
    for _ in range(rng.randint(0, (level + 1) // 3) if level > 1 else rng.random() < 0.25):  # distractors: nothing is made from them
        terms = rng.sample(made, 2) if len(made) > 1 and rng.random() < 0.35 else [rng.choice(made), str(rng.randint(1, MAX_LITERAL))]
        definitions.append((next(fresh), rng.choice("+-") if terms[1].isdigit() else rng.choice(("max", "min")), tuple(terms)))
    return Problem(tuple(_shuffled(definitions, rng)), target)


def _shuffled(definitions: Sequence[Definition], rng: random.Random) -> list[Definition]:
    """A random order in which every quantity comes after those it is made from."""
    left, done, order = list(definitions), set(), []
    while left:
        ready = [d for d in left if all(t in done or t.isdigit() for t in d[2])]
        chosen = rng.choice(ready)
        left.remove(chosen)
        done.add(chosen[0])
        order.append(chosen)
    return order


# --------------------------------------------------------------------------------------- solving, in two dialects


def own_words(problem: Problem, rng: random.Random) -> str:
    """A right solution as the base model writes it: what is needed, mostly in the question's order, each definition repeated first."""
    values, needed = problem.values(), problem.needed()
    steps: list[str] = []
    for definition in _shuffled(problem.definitions, rng) if rng.random() < 0.15 else problem.definitions:
        name, sign, terms = definition
        if sign and name in needed:
            shown, first = [_used(t, values) for t in terms], f"{defined(definition)} : "
            if len(terms) == 3:
                last = rng.randrange(3)  # the term that is added last
                part = combine(sign, [_value(t, values) for j, t in enumerate(terms) if j != last])
                steps.append(f"{first}{f' {sign} '.join(t for j, t in enumerate(shown) if j != last)} = _ {part} ;")
                shown, first = [f"_ {part}", shown[last]], ""
            steps.append(f"{first}{f' {sign} '.join(shown)} = {name}. {values[name]} ;")
    return " ".join([*steps, f"# {values[problem.target]}"])


def reference(problem: Problem, rng: random.Random) -> str:
    """A right solution as the references have it: from the target down to what it needs, in other words, which vary."""
    values, made = problem.values(), {d[0]: d for d in problem.definitions}
    done: set[str] = set()
    steps: list[str] = []

    def work_out(name: str) -> None:
        if name in done:
            return
        done.add(name)
        _, sign, terms = made[name]
        for term in terms:
            if term in made:
                work_out(term)
        if not sign:
            return
        shown = [_used(t, values) for t in (terms if sign == "-" or rng.random() < 0.5 else terms[::-1])]
        word, ending = rng.choice(WORDS[sign]), rng.choice(("so", "thus"))
        head = rng.choice((f"{name.upper()} needs", f"for {name.upper()} with"))
        steps.append(f"{head} {f' {word} '.join(shown)} = {values[name]} {ending} {name}. {values[name]} ;")

    work_out(problem.target)
    return " ".join([*steps, f"# {values[problem.target]}"])


def _value(term: Term, values: dict[str, int]) -> int:
    return values[term] if term in values else int(term)


def _used(term: Term, values: dict[str, int]) -> str:
    return f"{term} {values[term]}" if term in values else term


# --------------------------------------------------------------------------------------- what a base model learns from

HINTS = {  # how a taught base is shown a hint, as `guidance.template` of a run
    "answer_driven": "{question} answer {answer}",
    "rationale_driven": "{question} solution {rationale}",
    "interactive": "{question} attempt {attempt} teacher {feedback}",
    "cue": "{question} cue {cue}",
}


def documents(rng: random.Random, examples: int, level_rate: float, max_level: int, taught: bool = False) -> Iterator[tuple[str, str]]:
    """(question, solution) pairs, level = min(max_level, 1 + floor(Exp(level_rate))).

    One in ten, of levels 1 to 3, is in the references' words, behind a question that ends in `book`: so the base can read and go on in
    them, and does not write them of its own. With `taught` one in five, of levels 1 to 4, shows a hint with the question.
    """
    for _ in range(examples):
        kind = rng.random()
        book, hinted = kind < 0.1, taught and kind > 0.8
        problem = draw(rng, min(3 if book else 4 if hinted else max_level, 1 + math.floor(rng.expovariate(level_rate))))
        if book:
            yield f"{problem.question} book", reference(problem, rng)
        elif hinted:
            yield _hinted(problem, rng), own_words(problem, rng)
        else:
            yield problem.question, own_words(problem, rng)


def _hinted(problem: Problem, rng: random.Random) -> str:
    kind = rng.choice(list(HINTS))
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
    """A solution in own words with a wrong result in one step, used as it is from there on, and the quantity whose step it is."""
    steps = solution.split(" ; ")
    at = rng.randrange(len(steps) - 1)
    *front, holder, right = steps[at].split()
    name = next(s.split()[-2] for s in steps[at:] if s.split()[-2].endswith(".")).removesuffix(".")
    wrong = rng.choice([n for n in NUMBERS if n != right])
    steps[at] = " ".join([*front, holder, wrong])
    used = holder.removesuffix(".")
    for i in range(at + 1, len(steps)):
        steps[i] = f" {steps[i]} ".replace(f" {used} {right} ", f" {used} {wrong} ").strip()
    if at == len(steps) - 2:
        steps[-1] = f"# {wrong}"
    return " ; ".join(steps), name


def feedback(problem: Problem, wrong: str) -> str:
    """What a teacher says of a wrong quantity: how it is made, without its value."""
    return next(defined(d) for d in problem.definitions if d[0] == wrong)


def cue(problem: Problem) -> str:
    """The quantities to work out, in an order that works, without any value."""
    needed = problem.needed()
    return " ".join(name.upper() for name, sign, _ in problem.definitions if sign and name in needed)


RECIPE = (
    combine,
    defined,
    draw,
    _draw,
    _shuffled,
    own_words,
    reference,
    documents,
    _hinted,
    spoil,
    feedback,
    cue,
)  # code a base model depends on

# --------------------------------------------------------------------------------------- queries


def queries(seed: int, per_level: int, levels: Sequence[int] = range(1, 9), prefix: str = "dag") -> list[Query]:
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
            while (problem := draw(rng := random.Random(f"dag/{seed}/{level}/{index}/{redraw}"), level)).question in seen:
                redraw += 1
            seen.add(problem.question)
            rationale = reference(problem, rng)
            found.append(Query(f"{prefix}-s{seed}-L{level}-{index:04d}", "dag", problem.question, rationale.split()[-1], rationale, level))
    return found
