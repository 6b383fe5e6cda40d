"""Sections of the findings that compare arms of the same seed: contrasts named beforehand, any other differences, effects of a factorial, agreement between studies."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations
from statistics import fmean

from gsi import stats
from gsi.lab.matrix import Contrast, arms
from gsi.lab.outcomes import MEASURES, Table, best, contrast
from gsi.lab.texts import markdown, points


def contrasts(table: Table) -> list[str]:
    rows = []
    for c in table.study.contrasts:
        if (c.task or next(iter(table.study.tasks))) != table.task or (c.model or next(iter(table.study.models))) != table.model:
            continue
        if not all(any(name in table.arms for name in side.split("|")) for side in (c.a, c.b)):
            rows.append([f"{c.a} - {' or '.join(c.b.split('|'))}", c.measure, "-", "-", "-", f"> {100 * c.margin:g}", "not run", "0"])
            continue
        against = (
            f"best of {c.b.replace('|', ', ')} ({best(table, c.b, MEASURES[c.measure])})" if "|" in c.b else c.b
        )  # a bar would end the cell
        name = f"{c.a} - {against}"
        for way, differences in contrast(table, c).items():
            low = stats.t_interval(differences)[1]
            there = len(differences)
            verdict = (
                ("yes" if low > c.margin else "no") if there == len(table.study.seeds) else f"open ({there} of {len(table.study.seeds)})"
            )
            rows.append(
                [
                    name,
                    c.measure,
                    way,
                    points(differences),
                    f"{stats.sign_flip(differences):.3f}",
                    f"> {100 * c.margin:g}",
                    verdict,
                    str(there),
                ]
            )
    if not rows:
        return []
    return [
        "Named before any of these seeds was run:",
        "",
        *markdown(("contrast", "measure", "compared at", "points [95 %]", "p", "asked for", "held", "seeds"), rows),
    ]


def differences(table: Table) -> list[str]:
    """Every arm less the first, for a study that names no contrasts; nothing is decided by them."""
    first, *others = arms(table.study)
    if table.study.contrasts or first not in table.arms or not others:
        return []
    rows = []
    for arm in others:
        cells: list[str] = []
        there = 0
        for measure in ("hard_accuracy", "easy_accuracy"):
            ways = contrast(table, Contrast(a=arm, b=first, measure=measure)) if arm in table.arms else {}
            there = max(there, len(ways.get("as is", ())))
            cells += [points(ways[way]) if ways.get(way) else "-" for way in ("as is", "equal cost")]
        rows.append([arm, *cells, str(there)])
    header = ("arm", "hard accuracy, as is", "at equal cost", "easy accuracy, as is", "at equal cost", "seeds")
    return [f"Less {first}'s, in points [95 %]; not named beforehand, so nothing is decided by them:", "", *markdown(header, rows)]


def effects(table: Table) -> list[str]:
    """A factorial's main effects and two-way interactions, over the seeds that have every arm."""
    study = table.study
    names = list(arms(study))
    seeds = sorted(set.intersection(*(set(table.arms.get(arm, {})) for arm in names))) if study.factors else []
    if not seeds:
        return []

    def effect(which: str, having: Sequence[str], among: Sequence[str]) -> list[float]:
        """By seed: mean of the arms that have it less mean of those that do not."""

        def mean(seed: int, kept: Iterable[str]) -> float:
            return fmean(table.accuracy(table.arms[arm][seed], -1, which) for arm in kept)

        return [mean(s, (a for a in among if a in having)) - mean(s, (a for a in among if a not in having)) for s in seeds]

    measures = ("hard", "easy")
    found = {name: [effect(which, having, names) for which in measures] for name, having in study.factors.items()}
    for (one, having), (other, too) in combinations(study.factors.items(), 2):
        without = [a for a in names if a not in too]
        found[f"{one} x {other}"] = [
            [a - b for a, b in zip(effect(which, having, too), effect(which, having, without), strict=True)] for which in measures
        ]
    rows = [[name, *(cell for there in both for cell in (points(there), f"{stats.sign_flip(there):.3f}"))] for name, both in found.items()]
    note = f"Mean of the arms that have it less mean of those that do not, in points [95 %], {len(seeds)} seeds; `x`: the first one's effect where the other is there, less where it is not:"
    return [note, "", *markdown(("effect", "hard accuracy", "p", "easy accuracy", "p"), rows)]


def agreement(shown: Sequence[Table]) -> list[str]:
    """The same differences on every model and task that has both arms, as they are; named beforehand only where the contrasts say so."""
    pairs = dict.fromkeys((c.a, c.b, c.measure) for table in shown for c in table.study.contrasts if "|" not in c.b)
    rows = []
    for a, b, measure in pairs:
        cells = []
        for table in shown:
            if table.arms.get(a) and table.arms.get(b):
                there = contrast(table, Contrast(a=a, b=b, measure=measure))["as is"]
                cells.append(f"{points(there)} ({len(there)})" if there else "-")
            else:
                cells.append("-")
        if sum(cell != "-" for cell in cells) > 1:
            rows.append([f"{a} - {b}, {measure}", *cells])
    if not rows:
        return []
    names = [f"{table.task}, {table.model} ({table.study.name})" for table in shown]
    return ["## Agreement", "", "Differences in points as they are, with 95 % interval (seeds):", "", *markdown(("contrast", *names), rows)]
