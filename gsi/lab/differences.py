"""Sections of the findings that compare arms of the same seed: contrasts named beforehand, any other differences, effects of a factorial."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from statistics import fmean

from gsi import stats
from gsi.lab.matrix import Contrast, Measure, arms
from gsi.lab.outcomes import WAYS, Compared, Table, contrast
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
            against = f"best of {', '.join(compared.among)} ({compared.against})" if "|" in c.b else c.b  # a bar would end the cell
            if absent := [b for b in c.b.split("|") if b not in compared.among]:
                against += f"; without {', '.join(absent)}, not run so"
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
        "Named in the study's file before its arms were run; the best of several is the one that comes closest, chosen in every line anew:",
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
    """Every arm less the first, less brute force, less training on references and less our own; or, where the study says, less the one it stands beside."""
    shown = [arm for arm in arms(table.study) if arm in table.arms]
    if len(shown) < 2:
        return []
    lines = ["In points [95 %]; nothing is decided by these:", ""]
    if table.study.beside:
        first = next(iter(arms(table.study)))
        pairs = [(arm, table.study.beside.get(arm, first)) for arm in shown if arm != first]
        rows = [[f"{table.named(a)} - {b}", *(_difference(table, a, b, *kind) for kind in KINDS)] for a, b in pairs]
        return [*lines, *markdown(("arms", *map(_title, KINDS)), rows), *_note(rows)]
    bases = list(dict.fromkeys([shown[0], *(arm for kind in BASES if (arm := _first_of(table, kind)))]))
    everything: list[list[str]] = []
    for kind in KINDS:
        rows = [[table.named(arm), *(_difference(table, arm, base, *kind) for base in bases)] for arm in shown]
        everything += rows
        lines += [f"{_title(kind).capitalize()}:", "", *markdown(("arm", *(f"less {base}" for base in bases)), rows)]
    return [*lines, *_note(everything)]


def _title(kind: tuple[Measure, str]) -> str:
    return f"{kind[0].replace('_', ' ')}, {kind[1]}"


KINDS: tuple[tuple[Measure, str], ...] = (("hard_accuracy", WAYS[0]), ("hard_accuracy", WAYS[1]), ("easy_accuracy", WAYS[0]))
BASES = ("brute_force", "sft_refs_hard", "own_prefix")


def _first_of(table: Table, strategy: str) -> str | None:
    return next((a for a, patch in arms(table.study).items() if patch.get("strategy") == strategy and a in table.arms), None)


def _difference(table: Table, a: str, b: str, measure: Measure, way: str) -> str:
    """`+3.1 [1.2, 5.0]` with the number of seeds where some are missing; '' where there is nothing to compare."""
    found = contrast(table, Contrast(a=a, b=b, measure=measure)).get(way) if a != b else None
    if found is None:
        return ""
    missing = len(found.values) < len(table.study.seeds)
    return _marked(found) + (f" ({len(found.values)})" if missing else "")


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
