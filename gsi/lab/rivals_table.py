"""The section of the findings on methods outside this project's loop (`gsi.lab.rivals`), beside the arm whose FLOPs they had."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from pathlib import Path
from statistics import fmean
from typing import Any

from gsi import stats
from gsi.lab.matrix import Study
from gsi.lab.outcomes import Table, cost
from gsi.lab.texts import markdown, percent, points, spread
from gsi.report.parts import short

SEES = {"grpo": "nothing", "grpo_hint": "rationale", "sdft": "rationale; base taught to read it"}


def results(study: Study) -> Path:
    """Where a study's rivals are kept: one line per method, seed, learning rate, temperature and size of a group."""
    return Path(study.results).with_name(f"{Path(study.results).stem}-rivals.jsonl")


def read(path: Path) -> list[dict[str, Any]]:
    """All lines; the first ones say nothing of the group, which was 8."""
    return [{"group": 8} | json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def rivals(table: Table) -> list[str]:
    """Accuracy of the rivals after as many FLOPs as an arm spent, and that arm's accuracy less theirs on the same seeds."""
    study = table.study
    if (table.model, table.task) != (next(iter(study.models)), next(iter(study.tasks))):
        return []
    groups: dict[tuple[str, str, float, float, int], list[dict[str, Any]]] = defaultdict(list)
    for line in read(results(study)):
        if line["seed"] in table.arms.get(line["arm"], {}):
            groups[line["arm"], line["rival"], line["learning_rate"], line["temperature"], line["group"]].append(line)

    def mean(levels: dict[str, float], hard: bool) -> float:
        return fmean(share for level, share in levels.items() if (int(level) in table.hard) == hard)

    rows = []
    for (arm, rival, rate, temperature, group), lines in sorted(groups.items()):
        runs = [table.arms[arm][line["seed"]] for line in lines]
        ahead = [
            [table.accuracy(run, -1, which) - mean(line["after"], which == "hard") for run, line in zip(runs, lines, strict=True)]
            for which in ("hard", "easy")
        ]
        rows.append(
            [
                rival,
                SEES[rival],
                f"{rate:g}, {temperature:g}, {group}",
                spread([mean(line["before"], True) for line in lines]),
                spread([mean(line["after"], True) for line in lines]),
                points([mean(line["after"], True) - mean(line["before"], True) for line in lines]),
                spread([mean(line["after"], False) for line in lines]),
                short(fmean(line["tokens"] for line in lines)),
                percent(fmean(line["flops"] / (cost(run) or math.nan) for line, run in zip(lines, runs, strict=True))),
                f"{arm}: {points(ahead[0])}",
                f"{stats.sign_flip(ahead[0]):.3f}",
                points(ahead[1]),
                str(len(lines)),
            ]
        )
    if not rows:
        return []
    header = (
        "method",
        "may see",
        "learning rate, temperature, group",
        "hard before, %",
        "hard accuracy, %",
        "its gain, points",
        "easy accuracy, %",
        "generated tokens",
        "FLOPs, % of the arm's",
        "the arm's hard accuracy less its, points",
        "p",
        "easy",
        "seeds",
    )
    note = "Methods of TRL on the same base (`sdft`: one that was also taught to read hints, where it begins higher), pool and fresh questions until they had spent the arm's FLOPs (`python -m gsi.lab.rivals`); not named beforehand:"
    return [note, "", *markdown(header, rows)]
