"""What it cost: tokens, FLOPs and time, by level, kind of guidance, outcome and stage."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from gsi.report import plots
from gsi.report.overview import status_table
from gsi.report.parts import NONE, Figure, Section, Table, filled, number, percent, ratio, seconds, short
from gsi.report.plots import tip
from gsi.report.read import STAGES, RunView, finite, mapping, results
from gsi.report.tally import Tally

OUTCOMES = {"accepted": plots.COLOURS[0], "right, wrong steps": plots.COLOURS[5], "wrong": plots.COLOURS[1], "no answer": plots.COLOURS[4], "cut off": plots.COLOURS[3], "not graded in time": plots.COLOURS[2], "error": plots.GREY}  # fmt: skip


def section(run: RunView, tally: Tally | None) -> Section:
    counts = tally.counts() if tally else []
    made: list[Figure | Table | None] = []
    if tally:
        made += [_price(tally), _curve(run, tally), _outcomes(counts)]
    made += [_time(run), _tokens(run, tally), _phases(run)]
    statuses = [(n, s, c) for n, s, _, c, _ in counts] or _statuses(run)
    return Section("cost", "Cost", [part for part in [*made, status_table(statuses)] if part is not None])


def _statuses(run: RunView) -> list[tuple[int, str, int]]:
    """Without a ledger: the finished iterations are in the metrics too."""
    prefix = "sample/status/"
    return [
        (line["iteration"], key[len(prefix) :], int(value))
        for line in run.metrics
        for key, value in line.items()
        if key.startswith(prefix) and finite(value) is not None
    ]


def _price(tally: Tally) -> Figure | Table | None:
    found = tally.price()
    if not found:
        return None
    kinds = sorted({kind for _, kind, *_ in found}, key=lambda k: (k.split(", ")[-1] != "plain", k))[:6]
    series = {kind: plots.COLOURS[i] for i, kind in enumerate(kinds)}
    levels = sorted({level for level, *_ in found if level is not None})
    cells = {(level, kind): (drawn, good, tokens) for level, kind, drawn, good, tokens in found}
    totals = {kind: [sum(row[i] or 0 for row in found if row[1] == kind) for i in (2, 3, 4)] for kind in kinds}
    body: list[list[Any]] = []
    for level in [*levels, *([None] if any(row[0] is None for row in found) else [])]:
        row: list[Any] = ["no level" if level is None else f"level {level}"]
        for kind in kinds:
            drawn, good, tokens = cells.get((level, kind), (0, 0, 0))
            row += [number(drawn), number(good), ratio(tokens, good)]
        body.append(row)
    body.append(
        [
            "all",
            *(
                cell
                for kind in kinds
                for cell in (number(totals[kind][0]), number(totals[kind][1]), ratio(totals[kind][2], totals[kind][1]))
            ),
        ]
    )
    head = "|".join(["", *(f"{kind}: {what}" for kind in kinds for what in ("rollouts", "accepted", "tokens per accepted"))])
    table = Table("Tokens per accepted rollout, by level and kind of guidance, over the run", head, body, "A dash where none was accepted.")
    says = "; ".join(
        f"{kind}: {totals[kind][2] / totals[kind][1]:,.0f} tokens per accepted rollout" if totals[kind][1] else f"{kind}: none accepted"
        for kind in kinds
    )
    if not any(good for _, good, _ in totals.values()):
        return table
    tips = [
        tip("x", "level", "ordinal"),
        tip("s", "guidance", "nominal"),
        tip("y", "tokens per accepted", format=",.0f"),
        tip("accepted", "accepted", format=","),
    ]
    if levels:
        rows = [
            {"x": x, "y": tokens / good, "s": kind, "accepted": good}
            for (x, kind), (_, good, tokens) in cells.items()
            if x is not None and good and tokens and kind in series
        ]
        rows.sort(key=lambda r: (r["s"], r["x"]))
        spec = plots.lines(
            rows, plots.axis("level", integer=levels), plots.axis("tokens per accepted rollout (log)", log=True), series, tips=tips
        )
    else:
        rows = [{"x": kind, "y": t[2] / t[1], "s": kind, "accepted": t[1]} for kind, t in totals.items() if t[1]]
        spec = plots.bars(rows, "guidance", plots.axis("tokens per accepted rollout", zero=True), series, tips=tips[1:])
    return Figure("price", "Tokens per accepted rollout", says + ".", spec, table, list(series.items()))


def _curve(run: RunView, tally: Tally) -> Figure | None:
    curve = tally.curve()
    asked = tally.queries() or next((line["sample/queries"] for line in reversed(run.metrics) if finite(line.get("sample/queries"))), None)
    if not curve or not asked:
        return None
    iterations = sorted({n for n, *_ in curve})
    ends = {n: max(t for m, t, *_ in curve if m == n) for n in iterations}
    colours = plots.of_iterations(iterations)
    series = {f"iteration {n}": c for n, c in colours.items()}
    rows = [{"x": t - ends.get(n - 1, 0), "y": covered / asked, "s": f"iteration {n}"} for n, t, covered, _ in curve if n in colours]
    rows = [{"x": 0, "y": 0, "s": s} for s in series] + rows
    body: list[list[Any]] = []
    for n in iterations:
        mine = [(t - ends.get(n - 1, 0), covered / asked) for m, t, covered, _ in curve if m == n]
        half = next((t for t, y in mine if y >= mine[-1][1] / 2), 0)
        most = next((t for t, y in mine if y >= 0.95 * mine[-1][1]), 0)
        body.append([f"iteration {n}", percent(mine[-1][1]), number(mine[-1][0]), number(half), number(most)])
    n, *_ = iterations[-1:]
    says = f"Iteration {n} covers {body[-1][1].text} of the questions with {short(body[-1][2].value)} tokens"
    says += f", half of that after {short(body[-1][3].value)}." if body[-1][1].value else "."
    spec = plots.lines(rows, plots.axis("tokens generated in the iteration"), plots.axis("questions covered", percent=True, zero=True), series, points=False, tips=[tip("x", "tokens", format=","), tip("s", "", "nominal"), tip("y", "covered", format=".1%")])  # fmt: skip
    head = "|covered|tokens|tokens for half of it|tokens for 95 % of it"
    note = "In the order in which rollouts were graded: earlier questions are finished first, so a straight line means no question is dearer than another."
    return Figure(
        "coverage-tokens", "Coverage against tokens", says, spec, Table("Coverage against tokens", head, body, note), list(series.items())
    )


def _outcome(status: str, good: int) -> str:
    if good:
        return "accepted"
    return {
        "correct": "right, wrong steps", "wrong": "wrong", "no_answer": "no answer", "truncated": "cut off", "too_long": "cut off",
        "timeout": "not graded in time",
    }.get(status, "error")  # fmt: skip


def _outcomes(counts: Sequence[tuple[Any, ...]]) -> Figure | None:
    spent: dict[int, dict[str, int]] = defaultdict(lambda: dict.fromkeys(OUTCOMES, 0))
    for n, status, good, _, tokens in counts:
        spent[n][_outcome(status, good)] += tokens or 0
    if not any(sum(of.values()) for of in spent.values()):
        return None
    series = {o: c for o, c in OUTCOMES.items() if any(of[o] for of in spent.values())}
    order = {o: i for i, o in enumerate(series)}
    rows = [
        {"x": n, "y": of[o], "s": o, "o": order[o], "share": of[o] / max(1, sum(of.values()))}
        for n, of in sorted(spent.items())
        for o in series
    ]
    total = {o: sum(of[o] for of in spent.values()) for o in series}
    says = (
        f"Of {short(sum(total.values()))} generated tokens, "
        + ", ".join(f"{v / sum(total.values()):.0%} went to {o}" for o, v in total.items())
        + "."
    )
    body = [
        [f"iteration {n}", *(number(of[o]) for o in series), percent(1 - of["accepted"] / max(1, sum(of.values())))]
        for n, of in sorted(spent.items())
    ]
    spec = plots.bars(rows, "iteration", plots.axis("tokens", zero=True), series, stacked=True, tips=[tip("x", "iteration", "ordinal"), tip("s", "went to", "nominal"), tip("y", "tokens", format=","), tip("share", "share", format=".1%")])  # fmt: skip
    return Figure(
        "outcomes",
        "What the tokens bought",
        says,
        spec,
        Table("Generated tokens by outcome", "|".join(["", *series, "not accepted"]), body),
        list(series.items()),
    )


def _time(run: RunView) -> Figure | None:
    colours = dict(zip(STAGES, (plots.COLOURS[0], plots.COLOURS[4], plots.COLOURS[1], plots.COLOURS[2]), strict=True))
    body = filled([[f"iteration {x['iteration']}", *(seconds(x.get(f"time/{s}")) for s in STAGES)] for x in run.metrics])
    rows = [
        {"x": x["iteration"], "y": v, "s": s, "o": i}
        for x in run.metrics
        for i, s in enumerate(STAGES)
        if (v := finite(x.get(f"time/{s}"))) is not None
    ]
    if not any(row["y"] for row in rows):
        return None
    totals = {s: sum(row["y"] for row in rows if row["s"] == s) for s in STAGES}
    whole = sum(totals.values()) or 1
    says = ", ".join(f"{s} {v:,.0f} s ({v / whole:.0%})" for s, v in totals.items())
    spec = plots.bars(rows, "iteration", plots.axis("seconds", zero=True), colours, stacked=True, tips=[tip("x", "iteration", "ordinal"), tip("s", "stage", "nominal"), tip("y", "seconds", format=",.1f")])  # fmt: skip
    return Figure(
        "time",
        "Time by stage",
        f"Over all iterations: {says}.",
        spec,
        Table("Seconds by stage", "|".join(["", *STAGES]), body),
        list(colours.items()),
    )


def _tokens(run: RunView, tally: Tally | None) -> Table:
    keys = [*(f"sample/{x}" for x in ("rollouts", "accepted", "tokens", "prompt_tokens", "given_tokens")), "train/tokens"]
    known = bool(run.state.get("parameters"))
    rows: list[list[Any]] = []
    for line in run.metrics:
        flops = number((line.get("cost/flops") or None) if known else None, "{:.3g}")
        rows.append([f"iteration {line['iteration']}", *(number(line.get(key), "{:,.0f}") for key in keys), ratio(line.get("sample/tokens"), line.get("sample/accepted")), flops])  # fmt: skip
    if rows := filled(rows):
        sums = [run.measured(key) for key in keys]
        rows.append(
            [
                "whole run",
                *(number(x, "{:,.0f}") for x in sums),
                ratio(sums[2], sums[1]),
                number((run.measured("cost/flops") or None) if known else None, "{:.3g}"),
            ]
        )
    evaluated = sum(finite(r.get("tokens")) or 0 for *_, r in results(run))
    note = f"FLOPs of sampling and training{'' if known else ': not known, the engine names no model size'}. Apart from this, evaluation generated {evaluated:,.0f} tokens"
    calls, read, written = tally.teacher() if tally else (0, 0, 0)
    if calls:
        note += f"; a teacher was asked {calls:,} times ({read:,} tokens read, {written:,} written)"
        teacher = mapping(run.config.get("teacher"))
        counted = teacher.get("kind") == "self" or teacher.get("parameters")
        note += "" if counted else ", not in the FLOPs, since `teacher.parameters` does not name its size"
    head = "|rollouts|accepted|tokens|prompt tokens|given tokens|trained tokens|tokens per accepted rollout|FLOPs"
    return Table("Tokens and FLOPs by iteration", head, rows, note + ".")


def _phases(run: RunView) -> Table:
    clock = {phase: s for phase, s in (run.state.get("clock") or {}).items() if finite(s) is not None}
    wall = clock.get("wall")
    order = sorted(clock, key=lambda phase: (phase == "wall", phase))
    rows: list[list[Any]] = [
        [phase.replace("_", " "), seconds(clock[phase]), percent(clock[phase] / wall if wall else None)] for phase in order
    ]
    wasted = [
        f"iteration {line['iteration']} {line['sample/waste']:.1%}" for line in run.metrics if finite(line.get("sample/waste")) is not None
    ]
    note = f"Tokens of attempts that a scheduler drawing one by one would not have launched: {', '.join(wasted)}." if wasted else ""
    busy = [
        f"iteration {line['iteration']} {line['engine/busy_share']:.1%}"
        for line in run.metrics
        if finite(line.get("engine/busy_share")) is not None
    ]
    note += f" The engine was busy: {', '.join(busy)}." if busy else ""
    return Table(
        "Seconds by phase, over every process of this run that has ended",
        "phase|seconds|share of wall",
        rows,
        note.strip() or ("" if rows else NONE),
    )
