"""Sections of the findings that compare arms of the same seed: contrasts named beforehand, any other differences, effects of a factorial, agreement between studies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from statistics import fmean

from gsi import stats
from gsi.lab.matrix import Contrast, arms
from gsi.lab.outcomes import Compared, Table, contrast
from gsi.lab.texts import markdown, points


def contrasts(table: Table) -> list[str]:
    rows = []
    for c in table.study.contrasts:
        if (c.task or next(iter(table.study.tasks))) != table.task or (c.model or next(iter(table.study.models))) != table.model:
            continue
        if not all(any(name in table.arms for name in side.split("|")) for side in (c.a, c.b)):
            rows.append([f"{c.a} - {' or '.join(c.b.split('|'))}", c.measure, "-", "-", "-", f"> {100 * c.margin:g}", "not run", "0"])
            continue
        for way, compared in contrast(table, c).items():
            against = f"best of {c.b.replace('|', ', ')} ({compared.against})" if "|" in c.b else c.b  # a bar would end the cell
            differences = compared.values
            low = stats.t_interval(differences)[1]
            there = len(differences)
            verdict = (
                ("yes" if low > c.margin else "no") if there == len(table.study.seeds) else f"open ({there} of {len(table.study.seeds)})"
            )
            rows.append(
                [
                    f"{c.a} - {against}",
                    c.measure,
                    way,
                    _marked(compared),
                    f"{stats.sign_flip(differences):.3f}",
                    f"> {100 * c.margin:g}",
                    verdict,
                    str(there),
                ]
            )
    if not rows:
        return []
    return [
        "Named before any of these seeds was run; the best of several is the one that comes closest, chosen in every line anew:",
        "",
        *markdown(("contrast", "measure", "compared at", "points [95 %]", "p", "asked for", "held", "seeds"), rows),
        *_note(rows),
    ]


def _marked(compared: Compared) -> str:
    return points(compared.values) + ("†" if compared.early else "")


def _note(rows: Sequence[Sequence[str]]) -> list[str]:
    """What the mark means, where one is shown."""
    if not any("†" in cell for row in rows for cell in row):
        return []
    return [
        "† For some seeds the cost ends inside the dearer arm's first iteration, whose model is not there yet: a point on the line from the initial model to it.",
        "",
    ]


def differences(table: Table) -> list[str]:
    """Every arm less the first (or the one that `beside` names), for a study that names no contrasts; nothing is decided by them."""
    first, *others = arms(table.study)
    if table.study.contrasts or first not in table.arms or not others:
        return []
    rows = []
    for arm in others:
        cells: list[str] = []
        there, other = 0, table.study.beside.get(arm, first)
        for measure in ("hard_accuracy", "easy_accuracy"):
            ways = contrast(table, Contrast(a=arm, b=other, measure=measure))
            there = max(there, *(len(compared.values) for compared in ways.values()), 0)
            cells += [_marked(ways[way]) if way in ways else "-" for way in ("as is", "equal cost")]
        rows.append([f"{arm} - {other}", *cells, str(there)])
    header = ("arms", "hard accuracy, as is", "at equal cost", "easy accuracy, as is", "at equal cost", "seeds")
    note = "In points [95 %]; not named beforehand, so nothing is decided by them:"
    return [note, "", *markdown(header, rows), *_note(rows)]


def effects(table: Table) -> list[str]:
    """A factorial's main effects, the pairs of arms that each is the mean of, and two-way interactions, over the seeds that have every arm."""
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
    for name, having in study.factors.items():
        for arm, twin in _pairs(study.factors, name, names):
            found[f"{name}: {arm} - {twin}"] = [effect(which, having, (arm, twin)) for which in measures]
    for (one, having), (other, too) in combinations(study.factors.items(), 2):
        without = [a for a in names if a not in too]
        found[f"{one} x {other}"] = [
            [a - b for a, b in zip(effect(which, having, too), effect(which, having, without), strict=True)] for which in measures
        ]
    rows = [[name, *(cell for there in both for cell in (points(there), f"{stats.sign_flip(there):.3f}"))] for name, both in found.items()]
    note = f"Mean of the arms that have it less mean of those that do not, in points [95 %], {len(seeds)} seeds; `x`: the first one's effect where the other is there, less where it is not:"
    return [note, "", *markdown(("effect", "hard accuracy", "p", "easy accuracy", "p"), rows)]


def _pairs(factors: Mapping[str, Sequence[str]], name: str, names: Sequence[str]) -> list[tuple[str, str]]:
    """Arms that have `name` with the arm that is the same in all other factors and has it not."""
    kind = {arm: tuple(arm in having for other, having in factors.items() if other != name) for arm in names}
    return [(a, b) for a in names for b in names if a in factors[name] and b not in factors[name] and kind[a] == kind[b]]


def agreement(shown: Sequence[Table]) -> list[str]:
    """The differences between single arms that contrasts name, on every model and task that has both arms, as they are."""
    named = (Contrast(a=c.a, b=b, measure=c.measure) for table in shown for c in table.study.contrasts for b in c.b.split("|"))
    pairs = {(c.a, c.b, c.measure): c for c in named}
    columns = {}
    for (a, b, measure), c in pairs.items():
        there = [contrast(table, c)["as is"].values if table.arms.get(a) and table.arms.get(b) else [] for table in shown]
        if sum(map(bool, there)) > 1:
            columns[f"{a} - {b}{'' if measure == 'hard_accuracy' else ', ' + measure}"] = there
    rows = []
    for i, table in enumerate(shown):
        cells = [f"{points(there[i])} ({len(there[i])})" if there[i] else "-" for there in columns.values()]
        if any(cell != "-" for cell in cells):
            rows.append([f"{table.task}, {table.model} ({table.study.name})", *cells])
    if not rows:
        return []
    note = "Differences of hard accuracy (or what is named) in points, as they are, with 95 % interval (seeds); what a contrast asked for and whether it held stands in its study:"
    return ["## Agreement", "", note, "", *markdown(("where", *columns), rows)]
