"""Dependency problems in the spirit of iGSM (arXiv 2407.20311): quantities defined from others, several right ways to solve each.

A query of level n needs n operations, modulo 23, over named quantities; some definitions are not needed at all:

    question    c = 4 ; v = c + 6 ; k = c - v ; u = v + c ; ? u
    own words   c 4 + 6 = v 10 ; v 10 + c 4 = u 14 ; # 14
    reference   v needs c 4 plus 6 = 10 so v 10 ; for u with c 4 and v 10 = 14 thus u 14 ; # 14

Any order in which every quantity comes after those it is made from is right; the terms of a sum may be swapped, and a sum of
three may be taken in three groupings (`a 1 + b 2 = _ 3 ; _ 3 + c 4 = u 7 ;`); quantities that are not needed may be worked out
too. The references go from the target down to what it needs and use other words; a base model writes its own words only,
unless a response already begins in theirs. Nothing here needs torch.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from gsi.types import GsiError, Query, Verdict

MODULUS = 23
LETTERS = tuple("abcdefghijklmnopqrstuvwxyz")
NUMBERS = tuple(str(n) for n in range(MODULUS))
MAX_LITERAL = 9  # numbers in definitions are 1..9
WORDS = {"+": ("plus", "add"), "-": ("minus", "less"), "max": ("above", "over"), "min": ("below", "under")}  # the references' signs
VOCABULARY = [
    *NUMBERS,
    *LETTERS,
    *WORDS,
    "=",
    ";",
    "#",
    "?",
    "_",
    ":",
    "book",
    "read",
    "answer",
    "solution",
    "attempt",
    "teacher",
    "cue",
    "needs",
    "for",
    "with",
    "so",
    "thus",
    *(w for pair in WORDS.values() for w in pair),
]
HARD_LEVELS = (6, 7, 8)
MAX_LEVEL = 12
CHANCE = 1 / MODULUS

Term = str  # a letter or a number
Made = Mapping[str, tuple[str, tuple[Term, ...]]]  # name -> (sign, terms)
Definition = tuple[str, str, tuple[Term, ...]]  # (letter, sign, terms): sign `+` (2 or 3 terms), `-` (2) or `` (a given number)


@dataclass(frozen=True)
class Problem:
    """Definitions in the order of the question, and the quantity asked for."""

    definitions: tuple[Definition, ...]
    target: str

    @property
    def question(self) -> str:
        shown = (f"{name} {'= ' if sign else ''}{f' {sign} '.join(terms)} ;" for name, sign, terms in self.definitions)
        return " ".join([*shown, "?", self.target])

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
    for _ in range(rng.randint(0, (level + 2) // 3)):  # distractors: nothing is made from them
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
    """A right solution as the base model writes it: what is needed, in a random right order, operands as they come."""
    values, needed = problem.values(), problem.needed()
    steps: list[str] = []
    for name, sign, terms in _shuffled(problem.definitions, rng) if rng.random() < 0.3 else problem.definitions:
        if sign and name in needed:
            shown, first = [_own(t, values) for t in terms], f"{name} = {f' {sign} '.join(terms)} : "
            if len(terms) == 3:
                last = rng.randrange(3)  # the term that is added last
                part = combine(sign, [_value(t, values) for j, t in enumerate(terms) if j != last])
                steps.append(f"{first}{f' {sign} '.join(t for j, t in enumerate(shown) if j != last)} = _ {part} ;")
                shown, first = [f"_ {part}", shown[last]], ""
            steps.append(f"{first}{f' {sign} '.join(shown)} = {name} {values[name]} ;")
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
        shown = [_own(t, values) for t in (terms if sign == "-" or rng.random() < 0.5 else terms[::-1])]
        word = rng.choice(WORDS[sign])
        head = rng.choice((f"{name} needs", f"for {name} with"))
        steps.append(f"{head} {f' {word} '.join(shown)} = {values[name]} {rng.choice(('so', 'thus'))} {name} {values[name]} ;")

    work_out(problem.target)
    return " ".join([*steps, f"# {values[problem.target]}"])


def _value(term: Term, values: dict[str, int]) -> int:
    return values[term] if term in values else int(term)


def _own(term: Term, values: dict[str, int]) -> str:
    return f"{term} {values[term]}" if term in values else term


# How a taught base is shown a hint, as `guidance.template` of a run.
HINTS = {
    "answer_driven": "{question} answer {answer}",
    "rationale_driven": "{question} solution {rationale}",
    "interactive": "{question} attempt {attempt} teacher {feedback}",
    "cue": "{question} cue {cue}",
}


def documents(rng: random.Random, examples: int, level_rate: float, max_level: int, taught: bool = False) -> Iterator[tuple[str, str]]:
    """What a base model learns from: (question, solution), level = min(max_level, 1 + floor(Exp(level_rate))).

    The first fifth only looks definitions up (`look_up`), from which copying is learned many times faster than from solutions. Then one in ten,
    of levels 1 to 3, is in the references' words, behind a question that ends in `book`: so the base can read and go on in them,
    and does not write them of its own. With `taught` one in five, of levels 1 to 4, shows a hint with the question.
    """
    for i in range(examples):
        kind = rng.random()
        if i < examples // 5 or kind > 0.95:
            yield look_up(draw(rng, rng.randint(1, 4)), rng)
            continue
        book, hinted = kind < 0.1, taught and kind > 0.75
        problem = draw(rng, min(3 if book else 4 if hinted else max_level, 1 + math.floor(rng.expovariate(level_rate))))
        if book:
            yield f"{problem.question} book", reference(problem, rng)
        elif hinted:
            yield _hinted(problem, rng), own_words(problem, rng)
        else:
            yield problem.question, own_words(problem, rng)


def look_up(problem: Problem, rng: random.Random) -> tuple[str, str]:
    """The definitions of a question once more, in another order."""
    definitions = list(problem.definitions)
    rng.shuffle(definitions)
    repeated = Problem(tuple(definitions), problem.target).question.rpartition(" ? ")[0]
    return f"{problem.question} read", repeated


def _hinted(problem: Problem, rng: random.Random) -> str:
    kind = rng.choice(list(HINTS))
    attempt, wrong = spoil(own_words(problem, rng), problem, rng)
    fields = {
        "question": problem.question,
        "answer": str(problem.values()[problem.target]),
        "rationale": reference(problem, rng),
        "attempt": attempt,
        "feedback": feedback(problem, wrong),
        "cue": cue(problem),
    }
    return HINTS[kind].format(**fields)


def spoil(solution: str, problem: Problem, rng: random.Random) -> tuple[str, str]:
    """A solution in own words with a wrong result in one step, carried on to the end, and the quantity that is wrong."""
    steps = solution.split(" ; ")
    at = rng.randrange(len(steps) - 1)
    tokens = steps[at].split()
    name, right = (tokens[-2] if tokens[-2] != "_" else steps[at + 1].split()[-2]), tokens[-1]
    wrong = rng.choice([n for n in NUMBERS if n != right])
    steps[at] = " ".join([*tokens[:-1], wrong])
    for i in range(at + 1, len(steps)):
        steps[i] = f" {steps[i]} ".replace(f" {tokens[-2]} {right} ", f" {tokens[-2]} {wrong} ").strip()
    if name == problem.target:
        steps[-1] = f"# {wrong}"
    return " ; ".join(steps), name


def feedback(problem: Problem, wrong: str) -> str:
    """What a teacher says of a wrong quantity: how it is made, without its value."""
    _, sign, terms = next(d for d in problem.definitions if d[0] == wrong)
    return f"{wrong} = {f' {sign} '.join(terms)}"


def cue(problem: Problem) -> str:
    """The quantities to work out, in an order that works, without any value."""
    needed = problem.needed()
    return " ".join(name for name, sign, _ in problem.definitions if sign and name in needed)


# --------------------------------------------------------------------------------------- queries and their check


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
        given = len(part) == 2  # `c 4`; else `v = c + 6`
        name, terms, signs = part[:1], tuple(part[1:] if given else part[2::2]), {*part[3::2]}
        fits = (given or (len(part) in (5, 7) and part[1] == "=")) and name[0] in LETTERS and name[0] not in known
        if not (
            fits
            and all(t in known or t in NUMBERS for t in terms)
            and (signs in ({"max"}, {"min"}, set()) or (len(part) == 5 and signs in ({"+"}, {"-"})))
        ):
            raise GsiError(f"query {query.id}: {' '.join(part)!r} is no definition of a dag question such as `v = c + 6 ;`")
        definitions.append((name[0], "".join(signs), terms))
        known.add(name[0])
    if tokens[-2:-1] != ["?"] or tokens[-1] not in known:
        raise GsiError(f"query {query.id}: {query.question!r} is no dag question; it should look like `c = 4 ; v = c + 6 ; ? v`")
    return Problem(tuple(definitions), tokens[-1])


class _Wrong(Exception):
    """The first wrong step, in words."""


_SIGN = {word: sign for sign, words in WORDS.items() for word in (sign, *words)}


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
    """Goes through a response step by step. Raises _Wrong at the first that does not hold."""
    values, made = problem.values(), {name: (sign, terms) for name, sign, terms in problem.definitions}
    reached = {name for name, (sign, _) in made.items() if not sign}
    part: tuple[str, int, tuple[str, ...]] | None = None  # sign, value and terms of a partial result that waits for its last term
    *steps, last = list(_split(tokens)) or [[]]
    for i, step in enumerate(steps, 1):
        name, sign, operands, value = _read(step, i, made)
        terms: list[str] = []
        for operand in operands:
            if operand[0] == "_":
                if part is None or part[0] != sign or operand[1] != str(part[1]):
                    raise _Wrong(f"step {i}: {' '.join(step)!r} uses a partial result that the step before does not give")
                terms += part[2]
            else:
                if len(operand) == 2 and (operand[0] not in reached or operand[1] != str(values[operand[0]])):
                    raise _Wrong(f"step {i}: {' '.join(operand)!r} is not known by then")
                terms.append(operand[0])
        if part is not None and not any(operand[0] == "_" for operand in operands):
            raise _Wrong(f"step {i}: {' '.join(step)!r} leaves the partial result before it unused")
        result = combine(sign, [values[t] if t in values else int(t) for t in terms])
        if str(result) != value:
            raise _Wrong(f"step {i}: {' '.join(step)!r} should give {result}")
        if name == "_":
            part = (sign, result, tuple(terms))
            continue
        part = None
        wanted_sign, wanted = made.get(name, ("", ()))
        same = tuple(terms) == wanted if sign == "-" else sorted(terms) == sorted(wanted)
        if wanted_sign != sign or not same:
            raise _Wrong(f"step {i}: {' '.join(step)!r} is not how {name} is defined")
        reached.add(name)
    if part is not None or len(last) != 2 or last[0] != "#" or problem.target not in reached or last[1] != str(values[problem.target]):
        raise _Wrong(f"step {len(steps) + 1}: {' '.join(last)[:200]!r} does not end with the value of {problem.target}")


def _own_shape(step: Sequence[str], made: Made) -> tuple[str, list[str], list[str]] | None:
    """`u = v + c : OPERANDS = u 8`, where `v + c` repeats the definition, or `OPERANDS = u 8`: (u, operands, [u, 8])."""
    if len(step) < 6 or step[-3] != "=":
        return None
    if ":" not in step:
        return step[-2], list(step[:-3]), list(step[-2:])
    repeated = list(step[: step.index(":")])
    sign, terms = made.get(step[0], ("", ()))
    if repeated != [step[0], "=", *f" {sign} ".join(terms).split()]:
        return None
    return step[0], list(step[len(repeated) + 1 : -3]), list(step[-2:])


def _reference_shape(step: Sequence[str]) -> tuple[str, list[str], list[str]] | None:
    """`u needs OPERANDS = 8 so u 8` or `for u with ...`: (u, operands, [u, 8]); both values have to agree."""
    if len(step) < 8 or step[-5] != "=" or step[-4] != step[-1] or step[-3] not in ("so", "thus"):
        return None
    if step[1] == "needs":
        return step[0], list(step[2:-5]), list(step[-2:])
    return (step[1], list(step[3:-5]), list(step[-2:])) if (step[0], step[2]) == ("for", "with") else None


def _read(step: Sequence[str], i: int, made: Made) -> tuple[str, str, list[tuple[str, ...]], str]:
    """(name, sign, operands, value) of a step in either dialect; operands are (number,), (letter, value) or ("_", value)."""
    wrong = _Wrong(f"step {i}: {' '.join(step)[:200]!r} cannot be read")
    name, left, right = _own_shape(step, made) or _reference_shape(step) or ("", [], [])
    if not name or right[0] not in (name, "_"):
        raise wrong
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
            raise wrong
    if (
        len(right) != 2
        or right[0] not in (*LETTERS, "_")
        or right[1] not in NUMBERS
        or len({*signs}) != 1
        or (signs[0] in "+-" and len(signs) > 1)
    ):
        raise wrong
    return right[0], signs[0], operands, right[1]


RECIPE = (
    combine,
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
)  # the code that a base model depends on
