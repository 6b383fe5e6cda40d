"""Sections of the findings on final models drawn from or tested once more (`pass:ARM` and `again:ARM`), whose arms another study may have run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from statistics import fmean

from gsi import stats
from gsi.lab.collect import Record
from gsi.lab.outcomes import Table
from gsi.lab.texts import markdown, points, spread
from gsi.metrics import pass_at_k


def _by_level(record: Record, k: int) -> dict[int, float]:
    """pass@k, mean over the queries of a level."""
    found = defaultdict(list)
    for right, level in zip(record["right"], record["levels"], strict=True):
        found[level].append(pass_at_k(record["draws"], right, k))
    return {level: fmean(values) for level, values in sorted(found.items())}


def breadth(table: Table) -> list[str]:
    """pass@k by level of final models, less the initial one's, and the mean over the hard levels."""
    settings = table.study.pass_at
    if settings is None or "pass:base" not in table.arms:
        return []

    def shares(record: Record) -> dict[str, float]:
        return _with_mean(_by_level(record, settings.k), "hard, mean", table.hard)

    before = {seed: shares(record) for seed, record in table.arms["pass:base"].items()}
    rows = []
    for arm in settings.arms:
        after = {seed: shares(record) for seed, record in table.arms.get(f"pass:{arm}", {}).items() if seed in before}
        for level in next(iter(after.values()), {}):
            there = [after[seed][level] - before[seed][level] for seed in sorted(after)]
            held = "yes" if stats.t_interval(there)[1] > settings.margin else "no"
            first = spread([before[seed][level] for seed in sorted(after)])
            rows.append([arm, level, first, points(there), held if len(there) > 1 else "-", str(len(there))])
    if not rows:
        return []
    text = f"pass@{settings.k} on fresh queries from {settings.draws} draws, every step right, %: the initial model's, and the final model's difference to it in points. Held: not worse by more than {-100 * settings.margin:g} points."
    return [text, "", *markdown(("arm", "level", "initial model", "difference [95 %]", "held", "seeds"), rows)]


def _with_mean(levels: Mapping[int, float], name: str, of: Collection[int]) -> dict[str, float]:
    """The shares by level behind their mean over the levels `of`."""
    kept = [share for level, share in levels.items() if level in of]
    return ({name: fmean(kept)} if kept else {}) | {str(level): share for level, share in levels.items()}


def again(table: Table) -> list[str]:
    """Final models on more fresh questions: accuracy, and the difference to one arm's, by level and in the mean over levels."""
    settings = table.study.again
    if settings is None:
        return []

    def with_mean(record: Record) -> dict[str, float]:
        levels = _by_level(record, 1)
        return _with_mean(levels, "mean", levels)

    tested = {
        arm: {seed: with_mean(record) for seed, record in table.arms.get(f"again:{arm}", {}).items()} for arm in ("base", *settings.tested)
    }
    than = tested[settings.than]
    rows = []
    for arm, runs in tested.items():
        for level in next(iter(runs.values()), {}):
            row = [arm if arm != "base" else "initial model", level, spread([r[level] for r in runs.values()])]
            there = [runs[seed][level] - than[seed][level] for seed in sorted(runs.keys() & than.keys())]
            if arm == settings.than or len(there) < 2:
                rows.append([*row, "", "", "", str(len(runs))])
                continue
            held = ("yes" if stats.t_interval(there)[1] > settings.margin else "no") if len(there) == len(table.study.seeds) else "open"
            rows.append([*row, points(there), f"{stats.sign_flip(there):.3f}", held, str(len(there))])
    if not rows:
        return []
    asked = next(len(r["right"]) for arm in tested for r in table.arms.get(f"again:{arm}", {}).values())
    text = (
        f"Greedy accuracy on {asked} more fresh questions, every step right, %, and the difference to {settings.than} in points. "
        f"Held: the lower bound is above {100 * settings.margin:g} points."
    )
    header = ("arm", "level", "accuracy", f"less {settings.than}'s [95 %]", "p", "held", "seeds")
    return [text, "", *markdown(header, rows)]
