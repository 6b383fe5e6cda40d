"""Guidance: what hints achieved, how large they had to be, and what was dropped."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from typing import Any

from gsi.metrics import wilson
from gsi.report import plots
from gsi.report.parts import NONE, Figure, Section, Table, cut, interval, number, percent, ratio
from gsi.report.plots import tip
from gsi.report.read import RunView, finite
from gsi.report.tally import Tally


def section(run: RunView, tally: Tally | None) -> Section:
    made: list[Figure | Table | None] = []
    if tally:
        made += [_success(tally), _sizes(tally), _gap(tally)]
    made.append(_drops(run))
    guided = tally and tally("SELECT count(*) FROM slim WHERE kind <> 'plain'")[0][0]
    lead = "" if guided or tally is None else "Nothing was guided in this run: every rollout answers the plain question."
    return Section("guidance", "Guidance", [part for part in made if part is not None], lead)


def _success(tally: Tally) -> Figure | Table | None:
    """By kind and size; sizes that are a fraction are put together in fifths."""
    groups: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0, 0])
    for kind, size, *counts in tally.hints():
        size = size or ""
        if re.fullmatch(r"0?\.\d{1,6}|1\.0*", size):
            fifth = min(4, int(float(size) * 5 + 1e-9))
            size = f"{fifth / 5:.1f} to {(fifth + 1) / 5:.1f}"
        group = groups[kind, size or NONE]
        groups[kind, size or NONE] = [a + (b or 0) for a, b in zip(group, counts, strict=True)]
    if not groups:
        return None
    ordered = sorted(groups.items(), key=lambda g: (g[0][0] != "plain", g[0]))
    body: list[list[Any]] = []
    rows: list[dict[str, Any]] = []
    for (kind, size), (n, good, tokens) in ordered[:100]:
        body.append(
            [cut(kind, 80), cut(size, 80), number(n), number(good), percent(good / n, good / n), interval(good / n, n), ratio(tokens, good)]
        )
        low, high = wilson(good, n)
        rows.append(
            {
                "x": "plain" if kind == "plain" else size if size != NONE else kind,
                "y": good / n,
                "low": low,
                "high": high,
                "s": kind,
                "n": n,
            }
        )
    note = "Guided rollouts mostly go to questions that plain ones failed, so the two rates are no comparison of like with like." * (
        len(body) > 1
    )
    note += f" {len(ordered) - 100} more labels are left out." * (len(ordered) > 100)
    table = Table(
        "Success by guidance, the whole run", "kind|size|rollouts|accepted|success|95 % interval|tokens per accepted rollout", body, note
    )
    kinds = list(dict.fromkeys(row["s"] for row in rows))
    if kinds == ["plain"]:
        return table
    series = {kind: plots.GREY if kind == "plain" else plots.COLOURS[i % 6] for i, kind in enumerate(kinds[:6])}
    guided = [(sum(g[0] for (k, _), g in ordered if k == kind), sum(g[1] for (k, _), g in ordered if k == kind), kind) for kind in kinds]
    says = "; ".join(f"{kind}: {good / n:.1%} of {n:,} rollouts accepted" for n, good, kind in guided) + "."
    rows = [row for row in rows if row["s"] in series][:40]
    tips = [tip("s", "kind", "nominal"), tip("x", "size", "nominal"), tip("y", "success", format=".1%"), tip("low", "95 % from", format=".1%"), tip("high", "to", format=".1%"), tip("n", "rollouts", format=",")]  # fmt: skip
    if len(kinds) > 2:
        for row in rows:
            row["x"] = row["s"] if row["x"] in (row["s"], "plain") else f"{row['s']} {row['x']}"
    spec = plots.bars(
        rows,
        "kind or size of the hint",
        plots.axis("accepted", percent=True, zero=True),
        series,
        tips=tips,
        order=[row["x"] for row in rows],
        whiskers=True,
        apart=False,
    )
    return Figure("hints", "Success by kind and size of the hint", says, spec, table, list(series.items()))


def _sizes(tally: Tally) -> Figure | None:
    """How hints shrink: sizes that were tried, that were accepted, and the smallest that worked."""
    found = [row for row in tally.hint_sizes() if row[2]]
    if not found:
        return None
    kinds = list(dict.fromkeys(row[0] for row in found))
    names = ("tried", "accepted", "smallest accepted per question")
    body = []
    rows = []
    for kind, n, tried, accepted, smallest, guided, given in found:
        body.append(
            [
                f"{kind}, iteration {n}",
                number(guided),
                number(tried, "{:.3f}"),
                number(accepted, "{:.3f}"),
                number(smallest, "{:.3f}"),
                percent(given),
            ]
        )
        rows += [
            {"x": n, "y": v, "s": name if len(kinds) == 1 else f"{kind}: {name}"}
            for name, v in zip(names, (tried, accepted, smallest), strict=True)
            if v is not None
        ]
    series = {s: plots.COLOURS[i % 6] for i, s in enumerate(list(dict.fromkeys(row["s"] for row in rows))[:6])}
    first, last = found[0], found[-1]
    says = (
        f"Mean size of accepted hints: {first[3]:.2f} in iteration {first[1]}, {last[3]:.2f} in iteration {last[1]}."
        if first[3] and last[3] and first[0] == last[0]
        else "Mean size of hints by iteration."
    )
    if last[6]:
        says += f" Of an accepted guided response of iteration {last[1]}, {last[6]:.0%} of the tokens were given."
    head = "|guided rollouts|mean size tried|mean size accepted|smallest accepted, mean over questions|given share of accepted tokens"
    spec = plots.lines([r for r in rows if r["s"] in series], plots.axis("iteration", integer=sorted({r["x"] for r in rows})), plots.axis("size of the hint", zero=True), series, tips=[tip("x", "iteration"), tip("s", "", "nominal"), tip("y", "size", format=".3f")])  # fmt: skip
    return Figure("hint-sizes", "Size of hints by iteration", says, spec, Table("Size of hints", head, body), list(series.items()))


def _gap(tally: Tally) -> Figure | None:
    """Guided minus plain success on the same questions, pooled over iterations."""
    groups: dict[Any, list[float]] = defaultdict(lambda: [0, 0.0, 0.0, 0.0])
    for _, level, n, p, g, squares in tally.gap():
        for key in (level, "all"):
            at = groups[key]
            groups[key] = [at[0] + n, at[1] + n * p, at[2] + n * g, at[3] + squares]
    if not groups:
        return None
    body = []
    rows = []
    order = sorted((k for k in groups if isinstance(k, int)), key=int) + [k for k in groups if k is None] + ["all"]
    for key in order:
        n, p, g, squares = groups[key]
        mean = (g - p) / n
        half = 1.96 * math.sqrt(max(0.0, squares / n - mean * mean) / n) if n > 1 else math.nan
        name = "all" if key == "all" else "no level" if key is None else f"level {key}"
        body.append(
            [
                name,
                number(int(n)),
                percent(p / n),
                percent(g / n),
                number(mean, "{:+.1%}"),
                f"{mean - half:+.1%} to {mean + half:+.1%}" if half == half else NONE,
            ]
        )
        rows += [{"x": name.removeprefix("level "), "y": v / n, "s": s, "n": n} for s, v in (("plain", p), ("guided", g))]
    series = {"plain": plots.GREY, "guided": plots.COLOURS[1]}
    n, p, g, _ = groups["all"]
    says = f"On the {n:,} questions (counted per iteration) that had both, plain attempts succeed in {p / n:.1%} and guided ones in {g / n:.1%}."
    spec = plots.bars(rows, "level", plots.axis("accepted", percent=True, zero=True), series, tips=[tip("x", "level", "nominal"), tip("s", "", "nominal"), tip("y", "accepted", format=".1%"), tip("n", "questions", format=",")], order=[r["x"] for r in rows[::2]])  # fmt: skip
    note = "Questions are chosen for guidance because plain attempts failed, so plain rates are lower here than they would be drawn again (regression to the mean): part of the gap is that choice."
    return Figure(
        "gap",
        "Guided against plain, on the same questions",
        says,
        spec,
        Table("Guided minus plain success on the same questions", "|questions|plain|guided|difference|95 % interval", body, note),
        list(series.items()),
    )


def _drops(run: RunView) -> Figure | Table | None:
    prefix = "train/dropped/"
    curated = [line for line in run.metrics if finite(line.get("train/rows")) is not None]
    if not curated:
        return None
    reasons = sorted({key[len(prefix) :] for line in curated for key in line if key.startswith(prefix)})
    body = [
        [f"iteration {x['iteration']}", number(x["train/rows"]), *(number(finite(x.get(prefix + r)) or 0) for r in reasons)]
        for x in curated
    ]
    table = Table(
        "Training rows, and right answers dropped by reason", "|".join(["", "rows", *reasons]), body, "" if reasons else "None was dropped."
    )
    if not reasons:
        return table
    series = {"kept": plots.COLOURS[0]} | {r: plots.COLOURS[1 + i % 5] for i, r in enumerate(reasons[:5])}
    rows = [
        {"x": x["iteration"], "y": finite(x.get(prefix + s)) or 0, "s": s, "o": i}
        for x in curated
        for i, s in enumerate(series)
        if s != "kept"
    ]
    rows += [{"x": x["iteration"], "y": x["train/rows"], "s": "kept", "o": -1} for x in curated]
    last = curated[-1]
    says = (
        f"Iteration {last['iteration']} trains on {last['train/rows']:,} rows; dropped: "
        + ", ".join(f"{finite(last.get(prefix + r)) or 0:,.0f} {r}" for r in reasons)
        + "."
    )
    spec = plots.bars(rows, "iteration", plots.axis("right answers", zero=True), series, stacked=True, tips=[tip("x", "iteration", "ordinal"), tip("s", "", "nominal"), tip("y", "rows", format=",")])  # fmt: skip
    return Figure("drops", "Kept and dropped, by reason", says, spec, table, list(series.items()))
