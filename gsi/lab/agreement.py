"""Sections of the findings over all studies: the same differences on every task and model, and by how much the initial model solved."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean

from gsi.lab.matrix import Contrast, arms
from gsi.lab.outcomes import WAYS, Begun, Table, contrast
from gsi.lab.texts import image, markdown, points

Column = tuple[Contrast, list[dict[int, float]]]  # by table: seed -> difference

EDGES = (0.1, 0.2, 0.3, 0.45)  # of the initial model's hard accuracy
ENOUGH = 15  # seeds that a difference needs to be shown by them


def agreement(shown: Sequence[Table], named: Iterable[Contrast], figures: Path | None = None, beside: Path = Path()) -> list[str]:
    """The differences between single arms that the contrasts name, as they are: on every model and task that has both arms, then over all of them."""
    pairs = {(c.a, b, c.measure): Contrast(a=c.a, b=b, measure=c.measure) for c in named for b in c.b.split("|")}
    columns: dict[str, Column] = {}
    for (a, b, measure), c in pairs.items():
        there = [contrast(table, c)[WAYS[0]].differences if table.arms.get(a) and table.arms.get(b) else {} for table in shown]
        if sum(map(bool, there)) > 1:
            columns[f"{a} - {b}{'' if measure == 'hard_accuracy' else ', ' + measure}"] = c, there
    rows = []
    for i, table in enumerate(shown):
        cells = [f"{points([*there[i].values()])} ({len(there[i])})" if there[i] else "-" for _, there in columns.values()]
        if any(cell != "-" for cell in cells):
            rows.append([f"{table.task}, {table.model} ({table.study.name})", *cells])
    if not rows:
        return []
    note = "Differences of hard accuracy (or what is named) in points, as they are, with 95 % interval (seeds); what a contrast asked for and whether it held stands in its study:"
    return ["## Agreement", "", note, "", *markdown(("where", *columns), rows), *_by_base(shown, columns, figures, beside)]


def _by_base(shown: Sequence[Table], columns: Mapping[str, Column], figures: Path | None, beside: Path) -> list[str]:
    lines = []
    for task in dict.fromkeys(table.name for table in shown):
        found: dict[str, list[Begun]] = {}
        for name, (c, there) in columns.items():
            seeds = [
                Begun(table.model, table.accuracy(table.arms[c.a][seed], 0, "hard"), difference)
                for table, differences in zip(shown, there, strict=True)
                if table.name == task
                for seed, difference in differences.items()
            ]
            if c.measure == "hard_accuracy" and len(seeds) >= ENOUGH:
                found[name] = seeds
        if not found:
            continue
        groups = range(len(EDGES) + 1)
        rows = [[name, *(_group(seeds, group) for group in groups)] for name, seeds in found.items()]
        lines += [
            f"### {task}, by what the initial model solves",
            "",
            "The same differences over all studies and architectures, seeds together by the hard accuracy of the model they began with. Not named beforehand, so a description: points [95 %] (seeds)."
            + _otherwise([table for table in shown if table.name == task]),
            "",
            *markdown(("initial model, hard, %", *map(_between, groups)), rows),
        ]
        if figures:
            from gsi.lab.figures import by_base

            name = next((n for n in found if any(_ours(t, columns[n][0]) for t in shown)), next(iter(found)))
            path, caption = figures / f"findings-by-base-{task}.svg", f"{task}: {name}"
            by_base(found[name], path, caption)
            lines += [image(caption, path, beside), ""]
    return lines


def _otherwise(shown: Sequence[Table]) -> str:
    """Which studies train otherwise than most do."""
    trained = {table.study.name: table.study.config.get("train") or {} for table in shown}
    every = list(trained.values())
    usual = max(every, key=every.count)
    found = []
    for name, settings in trained.items():
        if other := [f"{key} {value}" for key, value in settings.items() if usual.get(key) != value]:
            found.append(f"`{name}` ({', '.join(other)})")
    return f" Trained otherwise than the rest: {', '.join(found)}." if found else ""


def _ours(table: Table, c: Contrast) -> bool:
    """Whether it is our own strategy less more plain attempts: the difference that is drawn."""
    strategies = [arms(table.study).get(name, {}).get("strategy") for name in (c.a, c.b)]
    return strategies == ["own_prefix", "brute_force"]


def _between(group: int) -> str:
    low, high = (0.0, *EDGES)[group], (*EDGES, 1.0)[group]
    return f"{100 * low:g} to {100 * high:g}"


def _group(seeds: Sequence[Begun], group: int) -> str:
    there = [s.difference for s in seeds if bisect(EDGES, s.base) == group]
    if not there:
        return "-"
    return f"{points(there if len(there) > 2 else [fmean(there)])} ({len(there)})"  # an interval over two says nothing
