"""What a study's results say in numbers: one model on one task, its arms by seed, and differences between arms of the same seed."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from gsi import tasks
from gsi.lab.collect import Record
from gsi.lab.matrix import Contrast, Study
from gsi.lab.study import Results
from gsi.types import GsiError

Runs = dict[int, Record]  # seed -> result


@dataclass(frozen=True)
class Table:
    """One model on one task: the results of every arm by seed."""

    study: Study
    model: str
    task: str
    arms: dict[str, Runs]

    @property
    def hard(self) -> tuple[int, ...]:
        spec = tasks.TASKS.get(self.name)
        return spec.hard_levels if spec else ()

    @property
    def name(self) -> str:
        return str(self.study.tasks[self.task]["tasks"][0]["name"])

    def accuracy(self, record: Record, n: int = -1, which: str = "all", answers: bool = False) -> float:
        """Mean over levels of the greedy accuracy of iteration n on fresh queries; `which`: all, hard, easy (the others) levels."""
        levels = record["iterations"][n]["tests"][self.name]["levels"]
        kept = [v for k, v in levels.items() if which == "all" or (int(k) in self.hard) == (which == "hard")]
        return fmean(v[2 if answers else 1] / v[0] for v in kept) if kept else math.nan

    def hard_share(self, record: Record, n: int) -> float:
        rows = record["iterations"][n]["rows"]["levels"]
        return sum(c for level, c in rows.items() if int(level) in self.hard) / sum(rows.values())


def tables(study: Study, results: Results) -> list[Table]:
    found = []
    for model in study.models:
        for task in study.tasks:
            by_arm: dict[str, Runs] = defaultdict(dict)
            for key, record in results.records.items():
                m, t, seed, arm = key.split("/", 3)
                if (m, t) == (model, task) and int(seed[1:]) in study.seeds:
                    by_arm[arm][int(seed[1:])] = record
            if by_arm:
                found.append(Table(study, model, task, dict(by_arm)))
    return found


def cost(record: Record, n: int | None = None) -> float:
    """FLOPs up to and with iteration n (default: all): sampled, read and trained tokens."""
    return sum(i.get("flops", 0.0) for i in record["iterations"][: None if n is None else n + 1])


def tokens(record: Record) -> int:
    """Generated tokens over the run."""
    return sum(counts[4] for i in record["iterations"] for counts in i.get("sample", {}).values())


def at_cost(table: Table, record: Record, budget: float, which: str) -> float:
    """Accuracy when `budget` FLOPs are spent, linear between iterations; the last one's where it costs less."""
    before, value = 0.0, table.accuracy(record, 0, which)
    for n in range(1, len(record["iterations"])):
        after, next_value = cost(record, n), table.accuracy(record, n, which)
        if after >= budget and after > before:
            return value + (next_value - value) * (budget - before) / (after - before)
        before, value = after, next_value
    return value


def cost_to_reach(table: Table, record: Record, goal: float, which: str) -> float:
    """FLOPs when `goal` is first reached, linear between iterations; inf = never."""
    before, value = 0.0, table.accuracy(record, 0, which)
    if value >= goal:
        return 0.0
    for n in range(1, len(record["iterations"])):
        after, next_value = cost(record, n), table.accuracy(record, n, which)
        if next_value >= goal:
            return before + (after - before) * (goal - value) / (next_value - value)
        before, value = after, next_value
    return math.inf


def accepted_per_ktoken(table: Table, record: Record) -> float:
    """Accepted responses to hard queries per 1000 tokens generated for these, over the run; nan where there are none.

    A guided one counts by the share of the accepted guided responses' tokens (all levels) that the model generated itself.
    """
    made = paid = 0.0
    for i in record["iterations"]:
        own = (i.get("accepted") or {}).get("own_share") or 0.0
        for level, (_, plain, _, guided, generated, _) in i.get("sample", {}).items():
            if int(level) in table.hard:
                made, paid = made + plain + guided * own, paid + generated
    return 1000 * made / paid if paid else math.nan


MEASURES = {"hard_accuracy": "hard", "easy_accuracy": "easy", "accuracy": "all"}


def contrast(table: Table, c: Contrast) -> dict[str, list[float]]:
    """Differences a - b by seed, three ways: `as is`, `equal cost`, `equal tokens and steps` (left out where not run)."""
    which = MEASURES[c.measure]
    a, b = (best(table, names, which) for names in (c.a, c.b))
    found: dict[str, list[float]] = defaultdict(list)
    for seed in sorted(table.arms[a].keys() & table.arms[b].keys()):
        one, two = table.arms[a][seed], table.arms[b][seed]
        found["as is"].append(table.accuracy(one, -1, which) - table.accuracy(two, -1, which))
        budget = min(cost(one), cost(two))
        found["equal cost"].append(at_cost(table, one, budget, which) - at_cost(table, two, budget, which))
        cut = [table.arms.get(f"equal:{arm}", {}).get(seed) for arm in (a, b)]
        if cut[0] and cut[1]:
            found["equal tokens and steps"].append(table.accuracy(cut[0], -1, which) - table.accuracy(cut[1], -1, which))
    return dict(found)


def best(table: Table, names: str, which: str) -> str:
    """Of `a|b|c` the arm with the highest mean over the seeds they have in common: chosen on the same data, which favours the opponent.

    Raises GsiError where none of them has a result.
    """
    there = [name for name in names.split("|") if table.arms.get(name)]
    if not there:
        raise GsiError(f"{table.study.results}: no results yet for {names}")
    seeds = set.intersection(*(set(table.arms[name]) for name in there))
    if not seeds:  # an unfinished study
        return there[0]
    return max(there, key=lambda name: fmean(table.accuracy(table.arms[name][seed], -1, which) for seed in sorted(seeds)))


def slope(values: Sequence[float]) -> float:
    """Least-squares change per iteration."""
    n = len(values)
    middle = (n - 1) / 2
    return sum((i - middle) * v for i, v in enumerate(values)) / sum((i - middle) ** 2 for i in range(n))
