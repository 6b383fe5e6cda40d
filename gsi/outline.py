"""What a plan has to know of a run's data: how many questions there are, and how long they and their solutions are.

It is read, checked and split as the run would do it. Where the hub does not answer, built-in data sets count as large as they are
there (SIZES), and the plan says that nothing was read.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import mean
from typing import NamedTuple

from gsi import tasks
from gsi.config import Config
from gsi.config.data import Task
from gsi.hub import HubUnreachable
from gsi.queries import load_data, without_levels
from gsi.tasks.mixture import mixed_sizes, validation_size


class Size(NamedTuple):
    """Of a built-in data set on the hub."""

    rows: dict[str, int]  # by split
    question: int  # characters, mean
    solution: int | None  # characters, mean; None = it has none


SIZES = {  # rows: as the data sets' cards say; characters: of the development files, which hold two thirds of the test sets and all of GSM8K and MATH
    "gsm8k": Size({"train": 7473, "test": 1319}, 235, 239),
    "svamp": Size({"train": 700, "test": 300}, 163, None),
    "math": Size({"train": 7500, "test": 5000}, 210, 552),
    "math500": Size({"test": 500}, 210, 552),
    "theoremqa": Size({"test": 800}, 202, None),
    "aqua": Size({"train": 97467, "validation": 254, "test": 254}, 233, 263),
    "mathqa": Size({"train": 29837, "validation": 4475, "test": 2985}, 239, None),
}


@dataclass(frozen=True)
class Pool:
    train: int
    validation: int
    test: int
    references: int  # training questions that have one
    unlevelled: int  # questions of all three, of tasks that declare no level
    question: float  # characters, mean
    rationale: float | None  # characters, mean of those there are
    said: list[str]  # what a reader of the plan should know of the data


def pool(config: Config, must_read: bool = False) -> Pool:
    """Raises GsiError for whatever would stop the run at its start; with `must_read` also where the hub does not answer."""
    try:
        data = load_data(config, planning=not must_read)
    except HubUnreachable as e:
        if must_read or any(_unknown(t) for t in (*config.tasks, *config.evaluate.tasks)):
            raise
        return _by_size(config, e)
    data.grader.close()
    said = []
    if data.overlap:
        said.append(f"{len(data.overlap)} test questions are also training questions (evaluate.overlap: {config.evaluate.overlap})")
    if data.problems:
        said.append(f"{len(data.problems)} rows would be left out, for example: {data.problems[0]}")
    solutions = [len(q.rationale) for q in data.train if q.rationale]
    question = mean(len(q.question) for q in data.train) if data.train else 0.0
    unlevelled = sum(map(len, without_levels(data).values()))
    return Pool(
        len(data.train), len(data.validation), len(data.test), len(solutions), unlevelled, question, mean(solutions) if solutions else None,
        said,
    )  # fmt: skip


def _on_hub(task: Task) -> bool:
    return not task.path and (task.hub is not None or tasks.TASKS[task.name].generated is None)


def _unknown(task: Task) -> bool:
    """Whether it is on the hub and nothing is known of its size."""
    return not task.path and (task.hub is not None or (_on_hub(task) and _split(task) not in SIZES[task.name].rows))


def _split(task: Task) -> str:
    only = tasks.TASKS[task.name].split
    return only if only and task.split == "train" else task.split


class _Part(NamedTuple):
    rows: int
    question: float
    solution: float | None
    levels: bool


def _part(task: Task) -> _Part:
    if _on_hub(task):
        size = SIZES[task.name]
        rows = size.rows[_split(task)]
        # the hub's solutions are text: of programs nothing is known
        levels = bool(tasks.TASKS[task.name].hard_levels)
        return _Part(min(rows, task.limit or rows), size.question, None if task.programs else size.solution, levels)
    queries = tasks.load(task).queries
    solutions = [len(q.rationale) for q in queries if q.rationale]
    levels = any(q.level is not None for q in queries)
    return _Part(len(queries), mean(len(q.question) for q in queries), mean(solutions) if solutions else None, levels)


def _by_size(config: Config, why: HubUnreachable) -> Pool:
    parts = {t.name: _part(t) for t in config.tasks}
    if weights := {t.name: t.weight for t in config.tasks if t.weight}:
        sizes = mixed_sizes({name: parts[name].rows for name in weights}, weights)
        parts = {name: parts[name]._replace(rows=rows) for name, rows in sizes.items()}
    tests = [(t.name, _part(t)) for t in config.evaluate.tasks]
    with_levels = {name for name, p in (*parts.items(), *tests) if p.levels}
    n = sum(p.rows for p in parts.values())
    validation = validation_size(n, config.evaluate.validation)
    solved = [(p.rows, p.solution) for p in parts.values() if p.solution is not None]
    return Pool(
        n - validation, validation, sum(p.rows for _, p in tests),
        sum(rows for rows, _ in solved) * (n - validation) // n,
        sum(p.rows for name, p in (*parts.items(), *tests) if name not in with_levels),
        sum(p.rows * p.question for p in parts.values()) / n,
        sum(rows * length for rows, length in solved) / sum(rows for rows, _ in solved) if solved else None,
        [f"warning: {why}", "So the data was neither read nor checked: the plan takes built-in sets as large as they are on the hub (gsi/outline.py)."],
    )  # fmt: skip
