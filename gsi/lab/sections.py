"""The tables of the findings, a function each: one model on one task as Markdown lines, none where there is nothing to show."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import fmean, median_high

from gsi import stats
from gsi.lab.chance import lost_by_chance
from gsi.lab.collect import Record, bits
from gsi.lab.differences import contrasts, differences, effects
from gsi.lab.matrix import arms
from gsi.lab.outcomes import Table, accepted_per_ktoken, cost, cost_to_reach, slope, tokens
from gsi.lab.retested import again, breadth
from gsi.lab.rivals_table import rivals
from gsi.lab.texts import average, markdown, percent, points, spread
from gsi.report.parts import short


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
                *(average([table.accuracy(r, 0, w, True) for r in runs.values()]) for w in ("hard", "easy")),
                "",
                "",
                "",
                "",
                str(len(runs)),
            ]
        )
    for arm in shown:
        runs, last = table.arms[arm], [r["iterations"][-1] for r in table.arms[arm].values()]
        coverage = [i["tail"].get("tail/coverage", math.nan) for i in last]
        rows.append(
            [
                arm,
                table.sees(arm),
                spread([table.accuracy(r, -1, "hard") for r in runs.values()]),
                spread([table.accuracy(r, -1, "easy") for r in runs.values()]),
                *(average([table.accuracy(r, -1, w, True) for r in runs.values()]) for w in ("hard", "easy")),
                spread([table.hard_share(r, -1) for r in runs.values()]),
                average(coverage) + answered(last),
                short(fmean(tokens(r) for r in runs.values())),
                short(fmean(cost(r) for r in runs.values())),
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
    "easy, answers only, %",
    "hard share of rows, %",
    "coverage, % (by answers)",
    "generated tokens",
    "FLOPs",
    "seeds",
)


def answered(iterations: Sequence[Record]) -> str:
    """` (81.2)`: the share of the training queries with a right answer, steps or not; '' where the results do not say."""
    shares = [i["covered"][1] / (len(bits(i["solved"])) or 1) for i in iterations if "covered" in i]
    return f" ({average(shares)})" if shares else ""


def narrowing(table: Table) -> list[str]:
    """Hard share and fresh hard accuracy by iteration: what one step of sampling makes of the questions, apart from what more iterations change."""
    lines = []
    names = [a for a in arms(table.study) if a in table.arms and min(len(r["iterations"]) for r in table.arms[a].values()) > 2]
    if not names:
        return ["No arm has more than one iteration.", ""]
    depth = max(len(r["iterations"]) for a in names for r in table.arms[a].values())
    pool = next(iter(table.arms[names[0]].values()))["pool"]
    share = sum(c for level, c in pool.items() if int(level) in table.hard) / sum(pool.values())
    rows = []
    for arm in names:
        runs = table.arms[arm].values()
        shares = [[table.hard_share(r, n) for n in range(1, len(r["iterations"]))] for r in runs]
        slopes = [slope(s) for s in shares]
        means = [average([s[n] for s in shares if n < len(s)]) for n in range(depth - 1)]
        rows.append([table.named(arm), *means, points([s[0] - share for s in shares]), points(slopes), f"{stats.sign_flip(slopes):.3f}"])
    lines += [
        f"Hard share of the training rows by iteration, % (of the queries: {percent(share)}); what one step of sampling does to it (iteration 1 less the queries'), and its slope "
        "from there in points per iteration:",
        "",
    ]
    lines += markdown(("arm", *(f"{n}" for n in range(1, depth)), "in one step [95 %]", "slope [95 %]", "p"), rows)
    rows = []
    for arm in names:
        runs = table.arms[arm].values()
        means = [average([table.accuracy(r, n, "hard") for r in runs if n < len(r["iterations"])]) for n in range(depth)]
        change = [table.accuracy(r, -1, "hard") - table.accuracy(r, 1, "hard") for r in runs]
        rows.append([table.named(arm), *means, points(change), f"{stats.sign_flip(change):.3f}"])
    lines += [f"Hard accuracy on fresh queries by iteration, %, and the last one's difference to iteration 1. {chance(table)}", ""]
    lines += markdown(("arm", *(f"{n}" for n in range(depth)), "last - first [95 %]", "p"), rows)
    rows = []
    for arm in names:
        drawn = [r["iterations"][1:] for r in table.arms[arm].values() if all(i["accepted"]["n"] for i in r["iterations"][1:])]
        means = [average([i[n]["accepted"]["texts"] / i[n]["accepted"]["n"] for i in drawn if n < len(i)]) for n in range(depth - 1)]
        if drawn:
            rows.append([table.named(arm), *means])
    if rows:
        lines += [
            "Different texts among the accepted responses to a question, % of accepted responses, by iteration: how alike draws become:",
            "",
        ]
        lines += markdown(("arm", *(f"{n}" for n in range(1, depth))), rows)
    return lines


def guidance(table: Table) -> list[str]:
    """Acceptance of plain and guided attempts in iteration 1 (one initial model for all arms) and of guided ones in the last, tokens per accepted hard
    rationale, identity."""
    rows = []
    for arm in [a for a in arms(table.study) if a in table.arms]:
        runs = [r for r in table.arms[arm].values() if sum(c[0] for c in r["iterations"][1]["sample"].values())]
        if not runs:
            continue
        firsts = [r["iterations"][1] for r in runs]
        hard, lasts = (
            [[c for level, c in i["sample"].items() if int(level) in table.hard] for i in part]
            for part in (firsts, [r["iterations"][-1] for r in runs])
        )
        plain = [sum(c[1] for c in h) / max(1, sum(c[0] - c[2] for c in h)) for h in hard]
        guided, later = ([sum(c[3] for c in h) / n for h in part if (n := sum(c[2] for c in h))] for part in (hard, lasts))
        unaided = [[c for level, c in i["unaided"].items() if int(level) in table.hard] for i in firsts if i.get("unaided")]
        alone = [sum(c[1] for c in h) / n for h in unaided if (n := sum(c[0] for c in h))]
        paid = [sum(c[4] for c in h) / max(1, sum(c[1] + c[3] for c in h)) for h in hard]
        lucky = [sum(c[5] for c in h) / max(1, sum(c[5] + c[1] + c[3] for c in h)) for h in hard]
        accepted = [i["accepted"] for i in firsts]
        helped = [a for a in accepted if a["guided"]]
        same, alike = (_share(accepted, key, "n") for key in ("identical", "alike"))
        same_guided, alike_guided = (_share(helped, key, "guided") for key in ("guided_identical", "guided_alike"))
        rows.append(
            [
                table.named(arm),
                spread(plain),
                spread(alone),
                spread(guided),
                spread(later),
                short(fmean(paid)),
                spread(lucky),
                spread(same),
                spread(alike),
                spread(same_guided),
                spread(alike_guided),
            ]
        )
    header = (
        "arm",
        "plain attempts accepted",
        "at guided questions",
        "guided accepted",
        "in the last iteration",
        "tokens per accepted one",
        "lucky of right answers",
        "accepted = reference",
        "accepted = reference but for its words",
        "guided = reference",
        "guided = reference but for its words",
    )
    return ["Hard queries (the last four columns: all queries), iteration 1 unless it says otherwise, %:", "", *markdown(header, rows)]


def _share(accepted: Sequence[Record], key: str, of: str) -> list[float]:
    """Of each run's accepted responses; older results do not have every key."""
    return [a[key] / max(1, a[of]) for a in accepted if key in a]


def economy(table: Table) -> list[str]:
    """What accepted responses cost, and which share of another arm's FLOPs its final hard accuracy would have cost."""
    shown = [a for a in arms(table.study) if a in table.arms and any(tokens(r) for r in table.arms[a].values())]
    brute = [a for a in shown if arms(table.study)[a].get("strategy") == "brute_force" and all(map(cost, table.arms[a].values()))]
    if not shown:
        return []
    header = ["arm", "accepted per 1000 tokens", *(f"FLOPs to reach {b}'s final hard accuracy, % of what it spent" for b in brute)]
    rows = []
    for arm in shown:
        row = [table.named(arm), f"{fmean(accepted_per_ktoken(table, r) for r in table.arms[arm].values()):.2f}"]
        for other in brute:
            seeds = sorted(table.arms[arm].keys() & table.arms[other].keys())
            ends = {s: table.arms[other][s] for s in seeds}
            shares = sorted(
                cost_to_reach(table, table.arms[arm][s], table.accuracy(ends[s], -1, "hard"), "hard") / cost(ends[s]) for s in seeds
            )
            reached = sum(math.isfinite(s) for s in shares)
            at_once = sum(s == 0 for s in shares)
            middle = median_high(shares) if shares else math.inf
            row.append(
                f"{percent(middle) if math.isfinite(middle) else 'not reached'} ({reached} of {len(seeds)}{f', {at_once} by the initial model' if at_once else ''})"
            )
        rows.append(row)
    note = "Hard queries: accepted responses, a guided one counted by the share that the model generated itself; and the median over seeds of the FLOPs needed (seeds that reached it):"
    return [note, "", *markdown(header, rows)]


def lost(table: Table) -> list[str]:
    """Pool queries that a plain attempt solved in iteration 1 and none in the last, beside what chance alone would give.

    Of arms that draw k plain attempts for every query in both iterations: the expectation is for k, and says nothing of others.
    """
    if "draws" not in table.arms:
        return []
    rows, k = [], table.study.config.get("sample", {}).get("k", 8)
    for arm in [a for a in arms(table.study) if a in table.arms]:
        seen, expected = [], []
        for seed, record in table.arms[arm].items():
            sampled = [i for i in record["iterations"] if i.get("solved") and sum(c[0] for c in i["sample"].values())]
            if len(sampled) < 2 or seed not in table.arms["draws"]:
                continue
            first, last = bits(sampled[0]["solved"]), bits(sampled[-1]["solved"])
            if any(sum(c[0] - c[2] for c in i["sample"].values()) != k * len(first) for i in (sampled[0], sampled[-1])):
                continue
            seen.append(sum(a and not b for a, b in zip(first, last, strict=True)) / len(first))
            draws = table.arms["draws"][seed]
            expected.append(lost_by_chance(draws["right"], draws["draws"], k))
        if seen:
            rows.append([table.named(arm), spread(seen), spread(expected), points([a - b for a, b in zip(seen, expected, strict=True)])])
    if not rows:
        return []
    note = f"Share of the pool's queries that plain attempts solved in the first iteration and not in the last (expected: from separate draws of the initial model, beta-binomial, if nothing changed; its prior adds half a point or so). Arms that draw more or fewer than {k} plain attempts for a query are left out:"
    return [note, "", *markdown(("arm", "solved, then lost, %", "expected, %", "difference"), rows)]


def chance(table: Table) -> str:
    """The chance line of a table of accuracies."""
    guess = table.chance
    if guess is None:
        return (
            "Chance, answers only: answers are numbers without a bound, so a guess has no rate. With every step checked, it is never right."
        )
    return f"Chance, hard, answers only: {100 * guess:.2g} % (a guess among all possible answers). With every step checked, a guess is never right."


def held_out(table: Table) -> list[str]:
    """Accuracy on test tasks other than the one that is trained on, before and after."""
    shown = [a for a in arms(table.study) if a in table.arms]
    if not shown:
        return []
    first = next(iter(table.arms[shown[0]].values()))
    names = [name for name in first["iterations"][-1]["tests"] if name != table.name]
    if not names:
        return []

    def mean(record: Record, n: int, name: str, which: int) -> float:
        return fmean(counts[which] / counts[0] for counts in record["iterations"][n]["tests"][name]["levels"].values())

    def cell(runs: Sequence[Record], n: int, name: str) -> str:
        steps, answers = ([mean(r, n, name, which) for r in runs] for which in (1, 2))
        return f"{spread(steps)} ({average(answers)})"

    rows = [["initial model", *(cell(list(table.arms[shown[0]].values()), 0, name) for name in names)]]
    rows += [[table.named(arm), *(cell(list(table.arms[arm].values()), -1, name) for name in names)] for arm in shown]
    note = "Greedy accuracy, every step right, %, mean over levels (in brackets: right answers). " + chance(table)
    return [note, "", *markdown(("arm", *names), rows)]


SECTIONS: tuple[tuple[str, Callable[[Table], list[str]]], ...] = (
    ("Contrasts", contrasts),
    ("Differences", differences),
    ("Effects", effects),
    ("Narrowing", narrowing),
    ("Guidance", guidance),
    ("Economy", economy),
    ("Rivals", rivals),
    ("Held-out sets", held_out),
    ("Solved, then lost", lost),
    ("Breadth", breadth),
    ("Tested again", again),
)
OF_MODELS = (breadth, again)
BESIDE = (rivals,)  # of a file beside the results
