"""The queries of a run from its config: loaded, checked, mixed and split; and those the warm start trains on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gsi import tasks
from gsi.config import Config
from gsi.config.data import Task
from gsi.config.engines import RayEngine
from gsi.seeds import seed_of
from gsi.spread import spread
from gsi.tasks.overlap import Overlap, overlaps
from gsi.train.parallel import pick_device
from gsi.train.tracking import check as check_tracker
from gsi.types import Grader, GsiError, Query
from gsi.verify import ONE_FORM, make_grader, with_programs
from gsi.verify.source import mark


@dataclass(frozen=True)
class Data:
    """The queries of a run, checked and split."""

    train: list[Query]  # sampled and trained on
    validation: list[Query]  # cut from the same tasks, evaluated in the loop
    test: list[Query]  # evaluated at the end only
    hard: dict[str, tuple[int, ...]]  # task -> levels that count as hard
    problems: list[Any]  # rows left out, with file, line, field and reason
    fingerprints: dict[str, str]  # of the queries of every task, and of the code of own checkers
    grader: Grader
    overlap: list[Overlap] = field(default_factory=list)  # test queries that are also training queries


def without_levels(data: Data) -> dict[str, list[Query]]:
    """The queries of tasks that declare no level, by split: those that `strata.draws` are for."""
    every: dict[str, Sequence[Query]] = {"train": data.train, "validation": data.validation, "test": data.test}
    with_levels = {q.task for own in every.values() for q in own if q.level is not None}
    return {name: [q for q in own if q.task not in with_levels] for name, own in every.items()}


def load_data(
    config: Config, queries: Sequence[Query] | None = None, check: Callable[..., Any] | None = None, planning: bool = False
) -> Data:
    """Loads the tasks, drops queries whose own answer does not verify, cuts the validation split.

    Args:
        queries: given in Python instead of by file; they belong to the config's only task.
        check: their checker, where the task names none.
        planning: what this machine lacks for sandboxes and training is no error; a plan may be made elsewhere.

    Raises GsiError when a file, an id or a strategy's needs make the run impossible.
    """
    if queries is not None:
        if len(config.tasks) != 1:
            raise GsiError(f"tasks: with queries given in Python there must be one task, found {len(config.tasks)}")
        loaded = [tasks.from_queries(queries, config.tasks[0])]
    else:
        loaded = _load("tasks", config.tasks)
    tests = _load("evaluate.tasks", config.evaluate.tasks)
    _unique_ids([t for data in loaded for t in data.queries], "tasks")
    _unique_ids([t for data in tests for t in data.queries], "evaluate.tasks")
    own_names = {t.name for t in config.tasks}  # of other test sets a checker given in Python knows nothing
    given = [t.check or (check if t.name in own_names else None) for t in (*config.tasks, *config.evaluate.tasks)]
    checks = _by_name(config, "check", given)
    hard = _by_name(config, "hard_levels", [data.hard_levels for data in (*loaded, *tests)])
    for t in (*config.tasks, *config.evaluate.tasks):
        if t.marked and (checks[t.name] or t.name in ONE_FORM):
            why = "is for tasks whose answers are read from text; " + ("your own check" if checks[t.name] else "a lab task's check")
            raise GsiError(f"task {t.name}: `marked` {why} decides by itself: leave it out")
    programs = {t.name for t in (*config.tasks, *config.evaluate.tasks) if t.programs}
    if mixed := programs & {t.name for t in (*config.tasks, *config.evaluate.tasks) if not t.programs}:
        raise GsiError(
            f"task {mixed.pop()}: `programs` is true in one place and false in another; say the same in tasks and evaluate.tasks"
        )
    workers, timeout = config.grading.workers, config.grading.timeout
    answers = make_grader(checks, workers, timeout)
    grader: Grader = answers
    try:
        own = {name for name, function in checks.items() if function}
        grader = with_programs(answers, () if planning else programs, workers, timeout, config.grading.allow_unisolated_programs, own)
        problems = [p for data in (*loaded, *tests) for p in data.problems]
        kept, bad = tasks.check_golds([q for data in loaded for q in data.queries], answers, own, programs)  # golds are no programs
        kept_tests, bad_tests = tasks.check_golds([q for data in tests for q in data.queries], answers, own, programs)
        kept = tasks.mix(kept, {t.name: t.weight for t in config.tasks if t.weight}, config.seed)
        overlap = _overlap(config, kept, kept_tests)
        if config.evaluate.overlap == "leave_out":
            gone = {o.query.id for o in overlap}
            kept_tests = [q for q in kept_tests if q.id not in gone]
        train, validation = tasks.split_validation(kept, config.evaluate.validation, config.seed)
        if not planning:
            _check_machine(config)
        _check_needs(config, train, checks)
        if isinstance(config.engine, RayEngine) and not planning:
            grader = spread(config.engine, config.grading, checks, programs, grader)
    except BaseException:
        grader.close()
        raise
    prints = {f"{i}:{t.name}": data.fingerprint for i, (t, data) in enumerate(zip(config.tasks, loaded, strict=True))}
    prints |= {f"test {i}:{t.name}": data.fingerprint for i, (t, data) in enumerate(zip(config.evaluate.tasks, tests, strict=True))}
    prints |= {f"check {name}": seen for name, function in checks.items() if (seen := mark(function))}
    return Data(train, validation, kept_tests, hard, problems + bad + bad_tests, prints, grader, overlap)


def _by_name(config: Config, key: str, values: Sequence[Any]) -> dict[str, Any]:
    """Task name -> its `key`. Of several entries of a name the first decides, a training task before a test set, and the others say the same or nothing.

    Args:
        values: what each entry of tasks, then of evaluate.tasks, has by itself: its own, or what holds where it leaves `key` out.

    Raises GsiError for an entry that says otherwise.
    """
    lists = (("tasks", config.tasks), ("evaluate.tasks", config.evaluate.tasks))
    entries = [(f"{name}[{i}]", task) for name, given in lists for i, task in enumerate(given)]
    first: dict[str, tuple[str, Any]] = {}
    for (where, task), value in zip(entries, values, strict=True):
        decides, holds = first.setdefault(task.name, (where, value))
        said = getattr(task, key)
        if said and said != holds:
            shown = getattr(holds, "__name__", repr(holds)) if holds else "left out"
            raise GsiError(
                f"task {task.name}: `{key}` is {said!r} for {where} and {shown} for {decides}; questions of one name have one: "
                f"say the same in both, or leave it out in {where}, which then takes over that of {decides}"
            )
    return {name: holds for name, (_, holds) in first.items()}


def _overlap(config: Config, train: Sequence[Query], tests: Sequence[Query]) -> list[Overlap]:
    """Test queries that are trained on. Raises GsiError for a test set that has no other ones."""
    if not tests:
        return []
    seen = [*train, *(warm_start_pool(config) if config.warm_start else ())]
    found = overlaps(seen, tests, exact_only=_generated())
    if config.evaluate.overlap == "leave_out":
        gone = {o.query.id for o in found}
        for task in {q.task for q in tests}:
            if all(q.id in gone for q in tests if q.task == task):
                raise GsiError(
                    f"evaluate.tasks: every test question of {task} is also a training question; name other data (path, split), "
                    "or set evaluate.overlap: count to evaluate on them all the same"
                )
    return found


def _unique_ids(queries: Sequence[Query], where: str) -> None:
    seen: dict[str, str] = {}
    for q in queries:
        if q.id in seen:
            raise GsiError(f"{where}: the id {q.id!r} occurs in {seen[q.id]} and in {q.task}; ids must be unique over all tasks of a run")
        seen[q.id] = q.task


def _check_machine(config: Config) -> None:
    """Refuses what this machine lacks for training or tracking."""
    check_tracker(config.report_to)
    t = config.train
    if t.kind == "trl" and t.cluster is not None:
        from gsi.engines.cluster import see_folder

        folder = t.cluster.folder or next(p for p in Path(config.output_dir).absolute().parents if p.is_dir())
        see_folder(t.cluster.address, Path(folder), "train.cluster.folder" if t.cluster.folder else "output_dir")
    elif t.kind == "trl" and (t.device not in ("auto", "cpu") or t.processes > 1 or t.liger or t.method == "qlora" or t.parallel != "ddp"):
        pick_device(t.model_dump())  # now, not after an iteration's sampling


def _check_needs(config: Config, queries: Sequence[Query], checks: Mapping[str, Any]) -> None:
    """Refuses a strategy or an acceptance rule that the data cannot serve."""
    kind = config.guidance.kind
    if config.guidance.needs_rationales and not any(q.rationale for q in queries):
        raise GsiError(
            f"guidance {kind} needs reference rationales, and no query has one; map the column (tasks[].columns.rationale), or use answer_driven, own_prefix or own_correction"
        )
    if config.curate.references != "none" and not any(q.rationale for q in queries):
        raise GsiError(
            f"curate.references: {config.curate.references} (strategy {config.strategy}) needs reference rationales, and no query has one; map the column "
            "(tasks[].columns.rationale)"
        )
    if config.accept == "steps":
        without = sorted({t.name for t in config.tasks if t.programs or (not checks[t.name] and not tasks.checks_steps(t.name))})
        if without:
            raise GsiError(
                f"accept: steps needs a step checker, and {', '.join(without)} has none; use accept: answer, or a check that sets steps_ok"
            )
    if config.warm_start and not config.warm_start.tasks and not any(q.rationale for q in queries):
        raise GsiError("warm_start needs reference rationales, and no query has one; name other data under warm_start.tasks")


def warm_start_queries(config: Config, train: Sequence[Query], validation: Sequence[Query]) -> tuple[list[Query], list[Query]]:
    """The queries whose rationales the warm start trains on, and those of `warm_start.tasks` left out because validation asks the same."""
    assert config.warm_start is not None
    pool, aside = warm_start_pool(config), []
    if pool:
        aside = [o.query for o in overlaps(validation, pool, exact_only=_generated())]
        gone = {id(q) for q in aside}  # ids of several files may be the same
        pool = [q for q in pool if id(q) not in gone]
        if not pool:
            raise GsiError("warm_start.tasks: validation asks every one of its questions; name other data, or set evaluate.validation to 0")
    pool = [q for q in pool or train if q.rationale]
    if not pool:
        raise GsiError("warm_start: none of its rows has a rationale")
    if config.warm_start.limit:
        pool = sorted(pool, key=lambda q: seed_of(config.seed, "warm_start", q.id))[: config.warm_start.limit]
    return sorted(pool, key=lambda q: q.id), aside


def _generated() -> set[str]:
    """Tasks whose few words repeat by design: two questions are the same where every word is."""
    return {name for name, spec in tasks.TASKS.items() if spec.generated}


def warm_start_pool(config: Config) -> list[Query]:
    """The queries of `warm_start.tasks`; empty = it uses the training queries."""
    return [q for data in _load("warm_start.tasks", config.warm_start.tasks) for q in data.queries] if config.warm_start else []


def _load(where: str, given: Sequence[Task]) -> list[tasks.TaskData]:
    """What the tasks of a list in the config hold. Raises GsiError that says which of them it is."""
    found = []
    entries: Counter[tuple[str, str]] = Counter()
    for number, task in enumerate(given):
        entries[task.name, task.split] += 1
        try:
            found.append(tasks.load(task, entry=entries[task.name, task.split]))
        except GsiError as e:
            raise type(e)(f"{where}.{number}: {e}") from e
    return found
