"""What a study's results say in numbers: one model on one task, its arms by seed, and differences between arms of the same seed."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean

from gsi import tasks
from gsi.lab.collect import Record
from gsi.lab.matrix import Contrast, Study, arms
from gsi.lab.study import Results
from gsi.strategies import STRATEGIES

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

    @property
    def chance(self) -> float | None:
        """Probability that a guess among all possible answers is right, mean over the hard levels; None = no finite set of answers."""
        spec = tasks.TASKS.get(self.name)
        return fmean(map(spec.chance, self.hard)) if spec and spec.chance and self.hard else None

    def named(self, arm: str) -> str:
        """The arm with what it may see beside the question."""
        sees = self.sees(arm)
        return arm if sees == "nothing" else f"{arm} ({sees})"

    def sees(self, arm: str) -> str:
        patch = arms(self.study).get(arm, {})
        if patch.get("guidance", {}).get("beginnings", True) is False:
            return "nothing"  # own_prefix that is not told where its attempts go wrong
        return STRATEGIES[patch.get("strategy", "vanilla")].sees

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
WAYS = ("as is", "equal cost", "equal tokens and steps")


@dataclass
class Compared:
    """An arm less another one, seed by seed."""

    against: str
    differences: dict[int, float] = field(default_factory=dict)  # by seed
    among: tuple[str, ...] = ()  # the opponents that were there to choose it from
    early: int = 0  # seeds whose equal cost ends before the first model of one of the two is there

    @property
    def values(self) -> list[float]:
        return list(self.differences.values())


@dataclass(frozen=True)
class Begun:
    """A difference of one seed, beside the hard accuracy of the model it began with."""

    model: str
    base: float
    difference: float


def contrast(table: Table, c: Contrast) -> dict[str, Compared]:
    """Differences a - b, one way after the other (`WAYS`; one that was not run is left out).

    Of several b, in each way the one that a is least ahead of, on the seeds they have in common: chosen on the same data, which favours it.
    """
    found = {}
    for way in WAYS:
        there = [x for b in c.b.split("|") if (x := _compared(table, c.a, b, MEASURES[c.measure], way)).differences]
        if there:
            common = set.intersection(*(set(x.differences) for x in there)) or set(there[0].differences)
            found[way] = min((x for x in there if common <= set(x.differences)), key=lambda x: fmean(x.differences[s] for s in common))
            found[way].among = tuple(x.against for x in there)
    return found


def _compared(table: Table, a: str, b: str, which: str, way: str) -> Compared:
    found = Compared(b)
    one, two = [table.arms.get(f"equal:{arm}" if way == WAYS[2] else arm, {}) for arm in (a, b)]
    for seed in sorted(one.keys() & two.keys()):
        x, y = one[seed], two[seed]
        if way != "equal cost":
            found.differences[seed] = table.accuracy(x, -1, which) - table.accuracy(y, -1, which)
            continue
        budget = min(cost(x), cost(y))
        found.differences[seed] = at_cost(table, x, budget, which) - at_cost(table, y, budget, which)
        found.early += budget < max(cost(x, 1), cost(y, 1))
    return found


def slope(values: Sequence[float]) -> float:
    """Least-squares change per iteration."""
    n = len(values)
    middle = (n - 1) / 2
    return sum((i - middle) * v for i, v in enumerate(values)) / sum((i - middle) ** 2 for i in range(n))
