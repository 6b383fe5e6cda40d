"""`python -m gsi.lab.findings STUDY.yaml... --output docs/findings.md`: every table and figure of the findings, from compact results alone.

Statistics: differences are between arms of the same seed (base model, data and run seed); t-interval over seeds, exact sign-flip p.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from gsi import stats, tasks
from gsi.config import Task
from gsi.lab.chance import lost_by_chance
from gsi.lab.collect import Record, bits
from gsi.lab.study import Contrast, Results, Study, arms, filler, load_study
from gsi.strategies import STRATEGIES
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


# --------------------------------------------------------------------------------------- numbers as text


def percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.1f}"


def points(differences: Sequence[float]) -> str:
    """`+3.1 [1.2, 5.0]` in percentage points, with its p."""
    mean, low, high = stats.t_interval(differences)
    interval = f" [{100 * low:.1f}, {100 * high:.1f}]" if len(differences) > 1 else ""
    return f"{100 * mean:+.1f}{interval}"


def spread(values: Sequence[float]) -> str:
    """Mean and 95 % t-interval half-width over seeds, in percent."""
    values = [v for v in values if not math.isnan(v)]
    if not values:
        return "-"
    mean, low, _ = stats.t_interval(values)
    return f"{100 * mean:.1f} ± {100 * (mean - low):.1f}" if len(values) > 1 else f"{100 * mean:.1f}"


def count(value: float) -> str:
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return ["| " + " | ".join(header) + " |", "|" + "---|" * len(header), *("| " + " | ".join(row) + " |" for row in rows), ""]


# --------------------------------------------------------------------------------------- what is compared


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


MEASURES = {"hard_accuracy": "hard", "easy_accuracy": "easy", "accuracy": "all"}


def contrast(table: Table, c: Contrast) -> dict[str, list[float]]:
    """Differences a - b by seed, three ways: `as is`, `equal cost`, `equal tokens and steps` (left out where not run)."""
    which = MEASURES[c.measure]
    a, b = (_best(table, names, which) for names in (c.a, c.b))
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


def _best(table: Table, names: str, which: str) -> str:
    """Of `a|b|c` the arm with the highest mean: the strongest opponent is chosen on the same data, which favours the opponent."""
    there = [name for name in names.split("|") if name in table.arms]
    if not there:
        raise GsiError(f"{table.study.results}: no results yet for {names}")
    return max(there, key=lambda name: fmean(table.accuracy(r, -1, which) for r in table.arms[name].values()))


def slope(values: Sequence[float]) -> float:
    """Least-squares change per iteration."""
    n = len(values)
    middle = (n - 1) / 2
    return sum((i - middle) * v for i, v in enumerate(values)) / sum((i - middle) ** 2 for i in range(n))


# --------------------------------------------------------------------------------------- sections


def arm_rows(table: Table) -> list[list[str]]:
    rows = []
    shown = [a for a in arms(table.study) if a in table.arms]
    if shown:
        runs = table.arms[shown[0]]
        rows.append(
            [
                "initial model",
                "",
                *(spread([table.accuracy(r, 0, w) for r in runs.values()]) for w in ("hard", "easy")),
                "",
                "",
                "",
                "",
                "",
                str(len(runs)),
            ]
        )
    for arm in shown:
        runs, last = table.arms[arm], [r["iterations"][-1] for r in table.arms[arm].values()]
        strategy = arms(table.study)[arm].get("strategy", "vanilla")
        coverage = [i["tail"].get("tail/coverage", math.nan) for i in last]
        rows.append(
            [
                arm,
                STRATEGIES[strategy].sees,
                spread([table.accuracy(r, -1, "hard") for r in runs.values()]),
                spread([table.accuracy(r, -1, "easy") for r in runs.values()]),
                percent(fmean(table.accuracy(r, -1, "hard", True) for r in runs.values())),
                spread([table.hard_share(r, -1) for r in runs.values()]),
                percent(fmean(coverage)),
                count(fmean(tokens(r) for r in runs.values())),
                count(fmean(cost(r) for r in runs.values())),
                str(len(runs)),
            ]
        )
    return rows


ARM_HEADER = (
    "arm",
    "may see",
    "hard accuracy, %",
    "easy accuracy, %",
    "hard, answers only, %",
    "hard share of rows, %",
    "coverage, %",
    "generated tokens",
    "FLOPs",
    "seeds",
)


def narrowing(table: Table) -> list[str]:
    """Hard share and fresh hard accuracy by iteration."""
    lines = []
    names = [a for a in arms(table.study) if a in table.arms and min(len(r["iterations"]) for r in table.arms[a].values()) > 2]
    if not names:
        return ["No arm has more than one iteration.", ""]
    depth = max(len(r["iterations"]) for a in names for r in table.arms[a].values())
    rows = []
    for arm in names:
        runs = table.arms[arm].values()
        shares = [[table.hard_share(r, n) for n in range(1, len(r["iterations"]))] for r in runs]
        slopes = [slope(s) for s in shares]
        means = [percent(fmean(s[n] for s in shares if n < len(s))) for n in range(depth - 1)]
        rows.append([arm, *means, points(slopes), f"{stats.sign_flip(slopes):.3f}"])
    pool = next(iter(table.arms[names[0]].values()))["pool"]
    share = sum(c for level, c in pool.items() if int(level) in table.hard) / sum(pool.values())
    lines += [
        f"Hard share of the training rows by iteration, % (of the queries: {percent(share)}), and its slope in points per iteration:",
        "",
    ]
    lines += markdown(("arm", *(f"{n}" for n in range(1, depth)), "slope [95 %]", "p"), rows)
    rows = []
    for arm in names:
        runs = table.arms[arm].values()
        means = [percent(fmean(table.accuracy(r, n, "hard") for r in runs if n < len(r["iterations"]))) for n in range(depth)]
        change = [table.accuracy(r, -1, "hard") - table.accuracy(r, 1, "hard") for r in runs]
        rows.append([arm, *means, points(change), f"{stats.sign_flip(change):.3f}"])
    lines += ["Hard accuracy on fresh queries by iteration, %, and the last one's difference to iteration 1:", ""]
    lines += markdown(("arm", *(f"{n}" for n in range(depth)), "last - first [95 %]", "p"), rows)
    return lines


def guidance(table: Table) -> list[str]:
    """Acceptance of plain and guided attempts in iteration 1 (one initial model for all arms), tokens per accepted hard rationale, identity."""
    rows = []
    for arm in [a for a in arms(table.study) if a in table.arms]:
        runs = [r for r in table.arms[arm].values() if sum(c[0] for c in r["iterations"][1]["sample"].values())]
        if not runs:
            continue
        firsts = [r["iterations"][1] for r in runs]
        hard = [[c for level, c in i["sample"].items() if int(level) in table.hard] for i in firsts]
        plain = [sum(c[1] for c in h) / max(1, sum(c[0] - c[2] for c in h)) for h in hard]
        guided = [sum(c[3] for c in h) / n for h in hard if (n := sum(c[2] for c in h))]
        paid = [sum(c[4] for c in h) / max(1, sum(c[1] + c[3] for c in h)) for h in hard]
        lucky = [sum(c[5] for c in h) / max(1, sum(c[5] + c[1] + c[3] for c in h)) for h in hard]
        same = [i["accepted"]["identical"] / max(1, i["accepted"]["n"]) for i in firsts]
        same_guided = [i["accepted"]["guided_identical"] / i["accepted"]["guided"] for i in firsts if i["accepted"]["guided"]]
        rows.append(
            [
                arm,
                spread(plain),
                spread(guided),
                count(fmean(paid)),
                spread(lucky),
                spread(same),
                spread(same_guided),
            ]
        )
    header = (
        "arm",
        "plain attempts accepted",
        "guided accepted",
        "tokens per accepted one",
        "lucky of right answers",
        "accepted = reference",
        "of guided ones",
    )
    return ["Iteration 1, hard queries (the last two columns: all queries), %:", "", *markdown(header, rows)]


def lost(table: Table) -> list[str]:
    """Pool queries that a plain attempt solved in iteration 1 and none in the last, beside what chance alone would give."""
    if "draws" not in table.arms:
        return []
    rows = []
    for arm in [a for a in arms(table.study) if a in table.arms]:
        seen, expected = [], []
        for seed, record in table.arms[arm].items():
            sampled = [i for i in record["iterations"] if i.get("solved") and sum(c[0] for c in i["sample"].values())]
            if len(sampled) < 2 or seed not in table.arms["draws"]:
                continue
            first, last = bits(sampled[0]["solved"]), bits(sampled[-1]["solved"])
            seen.append(sum(a and not b for a, b in zip(first, last, strict=True)) / len(first))
            draws = table.arms["draws"][seed]
            expected.append(lost_by_chance(draws["right"], draws["draws"], table.study.config.get("sample", {}).get("k", 8)))
        if seen:
            rows.append([arm, spread(seen), spread(expected), points([a - b for a, b in zip(seen, expected, strict=True)])])
    if not rows:
        return []
    note = "Share of the pool's queries that plain attempts solved in the first iteration and not in the last (expected: from separate draws of the initial model, beta-binomial, if nothing changed):"
    return [note, "", *markdown(("arm", "solved, then lost, %", "expected, %", "difference"), rows)]


def contrasts(table: Table) -> list[str]:
    rows = []
    for c in table.study.contrasts:
        if (c.task or next(iter(table.study.tasks))) != table.task or (c.model or next(iter(table.study.models))) != table.model:
            continue
        name = f"{c.a} - {c.b}" + (f" (best: {_best(table, c.b, MEASURES[c.measure])})" if "|" in c.b else "")
        for way, differences in contrast(table, c).items():
            low = stats.t_interval(differences)[1]
            verdict = "yes" if low > c.margin else "no"
            rows.append(
                [
                    name,
                    c.measure,
                    way,
                    points(differences),
                    f"{stats.sign_flip(differences):.3f}",
                    f"> {100 * c.margin:g}",
                    verdict,
                    str(len(differences)),
                ]
            )
    if not rows:
        return []
    return [
        "Named before any of these seeds was run:",
        "",
        *markdown(("contrast", "measure", "compared at", "points [95 %]", "p", "asked for", "held", "seeds"), rows),
    ]


def chance(table: Table) -> float:
    """Share of hard queries that the best constant answer gets right, answers only: mean over levels of the commonest answer's share."""
    entry = filler({"seed": 0, "fresh": 0})(table.study.tasks[table.task]["tasks"][0])
    queries = tasks.load(Task.model_validate(entry | {"args": entry.get("args", {}) | {"per_level": 300}})).queries
    by_level: dict[int | None, Counter[str]] = defaultdict(Counter)
    for q in queries:
        by_level[q.level][q.answer] += 1
    return fmean(max(c.values()) / c.total() for level, c in by_level.items() if level in table.hard)


def held_out(table: Table) -> list[str]:
    """Accuracy on test tasks other than the one that is trained on, before and after."""
    shown = [a for a in arms(table.study) if a in table.arms]
    if not shown:
        return []
    first = next(iter(table.arms[shown[0]].values()))
    names = [name for name in first["iterations"][-1]["tests"] if name != table.name]
    if not names:
        return []

    def mean(record: Record, n: int, name: str) -> float:
        return fmean(right / count for count, right, _ in record["iterations"][n]["tests"][name]["levels"].values())

    rows = [["initial model", *(spread([mean(r, 0, name) for r in table.arms[shown[0]].values()]) for name in names)]]
    rows += [[arm, *(spread([mean(r, -1, name) for r in table.arms[arm].values()]) for name in names)] for arm in shown]
    return ["Greedy accuracy, every step right, %, mean over levels:", "", *markdown(("arm", *names), rows)]


SECTIONS: tuple[tuple[str, Callable[[Table], list[str]]], ...] = (
    ("Contrasts", contrasts),
    ("Narrowing", narrowing),
    ("Guidance", guidance),
    ("Held-out sets", held_out),
    ("Solved, then lost", lost),
)


def write(paths: Sequence[str], heading: str = "") -> str:
    lines = [heading.rstrip(), ""] if heading else []
    for path in paths:
        study, mark = load_study(path)
        results = Results(study.results)
        lines += [f"## Study `{study.name}`", ""]
        ran, code = (sorted({r[key] for r in results.records.values() if key in r}) for key in ("study", "code"))
        hours = sum(r["seconds"] for r in results.records.values()) / 3600
        lines += [
            f"`{path}`, hash {mark} (results made under {', '.join(ran) or 'none'}, by the code {', '.join(code) or 'unknown'}); {len(results.records)} cells, {hours:.1f} core-hours.",
            "",
        ]
        if study.exclusions:
            lines += ["Excluded beforehand: " + " ".join(study.exclusions), ""]
        for table in tables(study, results):
            guess = percent(chance(table))
            lines += [f"### {table.task}, {table.model}", "", *markdown(ARM_HEADER, arm_rows(table))]
            lines += [
                f"Chance, hard, answers only: {guess} % (always the commonest answer of a level). With every step checked, a guess is never right.",
                "",
            ]
            for title, section in SECTIONS:
                if body := section(table):
                    lines += [f"#### {title}", "", *body]
    return "\n".join(lines).rstrip() + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description="Writes the findings of studies from their compact results.")
    parser.add_argument("studies", nargs="+")
    parser.add_argument("--output", type=Path, help="file to write (default: print)")
    parser.add_argument("--heading", type=Path, help="text that goes before the tables")
    args = parser.parse_args()
    try:
        text = write(args.studies, args.heading.read_text(encoding="utf-8") if args.heading else "")
    except GsiError as e:
        print(e, file=sys.stderr)
        return 2
    if args.output:
        args.output.write_text(text, encoding="utf-8")
    else:
        print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
