"""Grade-school word problems with worked solutions: the GSM-Symbolic templates (arXiv 2410.05229) as the package `reasoning-gym` draws them.

A query's level is the number of lines of its solution that hold a calculation, 1 to 7; the solution is the reference. Answers and the
equations of a response are checked as those of `gsm8k`. There are 85 templates, few of them hard (six of level 1, 28, 26, 15, 7, 1 and 2 of level 7):
queries of another seed are the same problems with other names and numbers, so what is claimed on them is about calculating, not about new
kinds of problems. The package is an extra (`lab`) and is imported when the task is used.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from functools import lru_cache

from gsi.types import GsiError, Query, Verdict

HARD_LEVELS = (5, 6, 7)
MAX_LEVEL = 7
BLOCK = 500  # problems drawn at once
MAX_BLOCKS = 100  # drawn for one set of queries

Item = tuple[int, str, str, str]  # level, question, answer, solution


def queries(seed: int, per_level: int, levels: Sequence[int] = range(1, MAX_LEVEL + 1), prefix: str = "gsm_symbolic") -> list[Query]:
    """`per_level` queries of every level with a reference each, no question twice, ids like `gsm_symbolic-s1-L3-0007`.

    The problems of a seed come in one fixed order, so asking for more or for other levels changes none of the others. Levels are rare or
    frequent (one problem in fifty has level 6), hence seconds for some hundred queries of each. Raises GsiError for a level outside 1..7, where
    the package is missing, and where 50,000 problems do not have enough different ones of a level.
    """
    found: dict[int, list[Query]] = {}
    for level in levels:
        if not 1 <= level <= MAX_LEVEL:
            raise GsiError(f"gsm_symbolic: level {level} does not exist; use levels from 1 to {MAX_LEVEL}")
        found[level] = []
    seen: set[str] = set()
    for level, question, answer, solution in _items(seed):
        if level in found and len(found[level]) < per_level and question not in seen and _right(question, answer, solution):
            seen.add(question)
            name = f"{prefix}-s{seed}-L{level}-{len(found[level]):04d}"
            found[level].append(Query(name, "gsm_symbolic", question, answer, solution, level))
            if all(len(of_level) == per_level for of_level in found.values()):
                return [query for of_level in found.values() for query in of_level]
    level, most = min(((level, len(of_level)) for level, of_level in found.items()), key=lambda pair: pair[1])
    raise GsiError(f"gsm_symbolic: seed {seed} gave only {most} different questions of level {level}; ask for at most that many per level")


def _items(seed: int) -> Iterator[Item]:
    for block in range(MAX_BLOCKS):
        yield from _block(seed, block)


@lru_cache(maxsize=2 * MAX_BLOCKS)  # of two seeds, training and fresh
def _block(seed: int, block: int) -> tuple[Item, ...]:
    return drawn(f"gsm_symbolic/{seed}/{block}")


def drawn(name: str) -> tuple[Item, ...]:
    """The problems of a block of that name in the package's order, without those whose solution has no calculation or a wrong one (one in 25)."""
    from gsi.verify.steps import check_steps  # here: the registry of checks names the lab's tasks

    try:
        import reasoning_gym
    except ImportError as e:
        raise GsiError(
            f"task gsm_symbolic: the package reasoning-gym cannot be imported ({e}); pip install 'guided-self-improvement[lab]'"
        ) from e
    # the package seeds problem i of a set with seed + i: neighbouring seeds would share problems
    dataset = reasoning_gym.create_dataset("gsm_symbolic", size=BLOCK, seed=random.Random(name).getrandbits(48))
    items = []
    for problem in (dataset[i] for i in range(BLOCK)):
        solution = problem["metadata"]["answer_cot"].strip()
        lines = [check_steps(line) for line in solution.splitlines()]
        if False not in lines and True in lines:
            items.append((lines.count(True), problem["question"], problem["answer"], solution))
    return tuple(items)


def _right(question: str, answer: str, solution: str) -> bool:
    from gsi.verify.checks import check_number
    from gsi.verify.steps import check_steps

    verdict = check_number(solution, Query("", "gsm_symbolic", question, answer))
    return check_steps(solution) is True and isinstance(verdict, Verdict) and verdict.correct
