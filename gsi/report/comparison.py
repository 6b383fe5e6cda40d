"""Several runs side by side: a table, paired differences, and curves at equal tokens."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gsi.report import plots
from gsi.report.paired import Difference, by_questions, by_seeds
from gsi.report.parts import NONE, Cell, Figure, Section, Table, number, percent, short, with_interval
from gsi.report.plots import tip
from gsi.report.read import RunView, dig, finite
from gsi.report.tally import Tally
from gsi.report.words import accuracy, hard_accuracy

Answers = dict[tuple[str, str], tuple[int | None, float]]


@dataclass(frozen=True)
class Side:
    """What a comparison needs of one run."""

    name: str
    run: RunView
    split: str  # test where there is one, else validation
    answers: Answers  # of the final model
    curve: Sequence[tuple[int, int, int, int]]  # (iteration, tokens so far, covered, ever covered)
    queries: int | None
    price: Sequence[tuple[Any, ...]] = ()  # (level, rollouts, accepted, tokens) over the run
    sampled: bool = False  # its accuracies are means over samples (evaluate.avg_at_k), and not greedy


def side(name: str, run: RunView, tally: Tally | None) -> Side:
    n = int(run.final().get("iteration") or 0)
    tested = max((m for m, found in run.evals.items() if found.get("test")), default=None)
    split = "test" if tested is not None else "validation"
    sampled = bool(finite(dig(run.config, "evaluate", "avg_at_k")))
    answers = tally.answers(split, n if tested is None else tested, sampled) if tally else {}
    asked = (tally.queries() if tally else None) or next(
        (line["sample/queries"] for line in reversed(run.metrics) if finite(line.get("sample/queries"))), None
    )
    return Side(name, run, split, answers, tally.curve(60) if tally else [], asked, tally.price_by_level() if tally else (), sampled)


def names_of(runs: Sequence[RunView]) -> list[str]:
    """Folder names, with as much of the path as makes them differ."""
    names = [run.path.resolve().name for run in runs]
    for depth in (2, 3):
        names = [
            "/".join(run.path.resolve().parts[-depth:]) if names.count(name) > 1 else name for run, name in zip(runs, names, strict=True)
        ]
    return [name if names.count(name) == 1 else f"{name} ({names[: i + 1].count(name)})" for i, name in enumerate(names)]


def section(sides: Sequence[Side]) -> Section:
    made = [side_by_side(sides), *_forest(sides), _tokens_accuracy(sides), _tokens_coverage(sides), _price(sides), _hard(sides)]
    parts: list[Figure | Table] = [part for part in made if part is not None]
    lead = f"{sides[0].name} is the baseline: differences are the others minus it." if len(sides) > 1 else ""
    if len(sides) > 1 and not seed_differences(sides):
        lead += " One run of each is no evidence for a strategy: the intervals count questions, and another seed would train another model."
    return Section("compare", "Comparison", parts, lead)


def headline(sides: Sequence[Side]) -> str:
    """The comparison in one sentence: accuracy on the same questions, against the first run."""
    found = [(name, d) for name, what, d in differences(sides) if what == "all"]
    if not found:
        return "These runs share no evaluated questions, so their accuracies cannot be paired."
    said = [f"{name} {100 * d.value:+.1f} points (95 %: {100 * (d.low or 0):+.1f} to {100 * (d.high or 0):+.1f})" for name, d in found]
    return f"{sides[0].split.capitalize()} accuracy on the same {found[0][1].n:,} questions, against {sides[0].name}: {'; '.join(said)}."


def side_by_side(sides: Sequence[Side]) -> Table:
    splits = [x for x in ("validation", "test") if any(accuracy(s.run, s.run.final().get("iteration", 0), x) for s in sides)]
    head = "|".join(
        ["run|strategy|iteration", *(f"{x} (95 %)" for x in splits), "hard accuracy|hard share|coverage (95 %)|tokens|accepted|FLOPs"]
    )
    rows: list[list[Any]] = []
    for s in sides:
        run, final = s.run, s.run.final()
        n = final.get("iteration", 0)
        row: list[Any] = [s.name, run.strategy, f"{final.get('iteration', NONE)} of {run.config.get('iterations', '?')}"]
        row += [Cell(f"{a.rate:.1%} ({a.interval})", a.rate) if (a := accuracy(run, n, split)) else Cell(NONE) for split in splits]
        row += [
            percent(hard_accuracy(run, n)),
            percent(final.get("tail/hard_share")),
            with_interval(final.get("tail/coverage"), final.get("sample/queries")),
        ]
        flops = (run.measured("cost/flops") or None) if run.state.get("parameters") else None
        rows.append([*row, number(run.measured("sample/tokens")), number(run.measured("sample/accepted")), number(flops, "{:.3g}")])
    return Table("Runs side by side, each at its last iteration; tokens, accepted rollouts and FLOPs over the whole run", head, rows)


def differences(sides: Sequence[Side]) -> list[tuple[str, str, Difference]]:
    """(run, on what, difference to the first run) on shared questions: all, and the hard ones where levels are declared hard."""
    base, found = sides[0], []
    hard = base.run.hard_levels
    for other in sides[1:]:
        if other.split != base.split:
            continue
        for what, keep in (("all", lambda task, level: True), ("hard", lambda task, level: level in (hard.get(task) or ()))):
            a, b = ({q: good for q, (level, good) in s.answers.items() if keep(q[0], level)} for s in (base, other))
            if d := by_questions(a, b):
                found.append((other.name, what, d))
    return found


def arms(sides: Sequence[Side]) -> dict[str, dict[str, Side]]:
    """Runs whose configs differ by seed (and output_dir) only, by seed; named after the arm's first run."""
    groups: dict[str, dict[str, Side]] = {}
    firsts: dict[str, str] = {}
    for s in sides:
        same = json.dumps({k: v for k, v in s.run.config.items() if k not in ("seed", "output_dir")}, sort_keys=True, default=str)
        groups.setdefault(firsts.setdefault(same, s.name), {}).setdefault(str(s.run.config.get("seed")), s)
    return groups


def seed_differences(sides: Sequence[Side]) -> list[tuple[str, str, Difference]]:
    """(arm, figure, difference to the first arm) over seeds that both have; nothing below two shared seeds."""
    (base_name, base), *others = arms(sides).items()
    found = []
    for name, arm in others:
        shared = [seed for seed in base if seed in arm]
        if len(shared) < 2:
            continue
        for figure, value in (("accuracy", lambda s: _rate(s)), ("hard accuracy", lambda s: hard_accuracy(s.run, s.run.final().get("iteration", 0))), ("coverage", lambda s: finite(s.run.final().get("tail/coverage")))):  # fmt: skip
            pairs = [(value(base[seed]), value(arm[seed])) for seed in shared]
            if d := by_seeds([b - a for a, b in pairs if a is not None and b is not None]):
                found.append((f"{name} - {base_name}", figure, d))
    return found


def _rate(s: Side) -> float | None:
    measured = accuracy(s.run, s.run.final().get("iteration", 0), s.split)
    return measured.rate if measured else None


@dataclass(frozen=True)
class AtEqualTokens:
    """What each run had reached when the most tokens that every run has spent were generated."""

    tokens: int
    split: str | None  # the one on which all these models were evaluated; None = there is none
    runs: list[
        tuple[Side, float | None, int, float | None]
    ]  # (run, share of questions ever covered, iteration trained by then, its accuracy)


def at_equal_tokens(sides: Sequence[Side]) -> AtEqualTokens | None:
    spent = [s.curve[-1][1] for s in sides if s.curve]
    if len(spent) < 2:
        return None
    budget = min(spent)
    reached: list[tuple[Side, float | None, int]] = []
    for s in sides:
        ever = max((e for _, tokens, _, e in s.curve if tokens <= budget), default=0)
        ends = {n: max(t for m, t, *_ in s.curve if m == n) for n in {m for m, *_ in s.curve}}
        trained = [n for n, end in ends.items() if end <= budget and f"iter_{n}/train" in (s.run.state.get("stages") or {})]
        reached.append((s, ever / s.queries if s.queries else None, max(trained, default=0)))
    # test sets are read at the end only, so what a run was in between is mostly known from its validation split
    split = next((x for x in ("test", "validation") if all(accuracy(s.run, n, x) for s, _, n in reached)), None)
    shown = [(s, ever, n, accuracy(s.run, n, split) if split else None) for s, ever, n in reached]
    return AtEqualTokens(budget, split, [(s, ever, n, measured.rate if measured else None) for s, ever, n, measured in shown])


def _colours(sides: Sequence[Side]) -> dict[str, str]:
    return {s.name: plots.COLOURS[i % 6] for i, s in enumerate(sides[:6])}


def _forest(sides: Sequence[Side]) -> list[Figure | Table]:
    found = differences(sides)
    made: list[Figure | Table] = []
    if found:
        split = sides[0].split
        rows = [{"y": f"{name}, {what}" if any(w == "hard" for _, w, _ in found) else name, "x": d.value, "low": d.low, "high": d.high, "n": d.n, "a": d.only_a, "b": d.only_b} for name, what, d in found]  # fmt: skip
        body = [
            [name, what, number(d.n), number(d.value, "{:+.1%}"), f"{d.low:+.1%} to {d.high:+.1%}", number(d.only_b), number(d.only_a)]
            for name, what, d in found
        ]
        says = f"On the same {split} questions, against {sides[0].name}: " + "; ".join(
            f"{name}{' (hard questions)' if what == 'hard' else ''} {100 * d.value:+.1f} points ({100 * (d.low or 0):+.1f} to {100 * (d.high or 0):+.1f})" for name, what, d in found
        ) + "."  # fmt: skip
        note = "Paired by question. The interval counts questions only; another seed would train another model, so one run of each is no evidence for a strategy."
        heads = ("only this one", "only the baseline", "only it solves|only the baseline")
        if sampled := [s.name for s in sides if s.sampled]:
            heads = ("this one more often", "the baseline more often", "it solves more often|the baseline more often")
            note += " Accuracy is the mean over samples per question (evaluate.avg_at_k)"
            note += "." if len(sampled) == len(sides) else f" of {', '.join(sampled)}, and greedy of the others: two kinds of accuracy."
        x = plots.axis(f"difference in {split} accuracy", percent=True)
        spec = plots.ranges(rows, x, [tip("y", "", "nominal"), tip("x", "difference", format="+.1%"), tip("low", "95 % from", format="+.1%"), tip("high", "to", format="+.1%"), tip("n", "questions"), tip("b", heads[0]), tip("a", heads[1])])  # fmt: skip
        made.append(Figure("differences", f"Paired differences to {sides[0].name}", says, spec, Table(f"Difference in {split} accuracy on the same questions", f"run|questions of|shared|difference|95 % interval|{heads[2]}", body, note)))  # fmt: skip
    if seeds := seed_differences(sides):
        body = [
            [
                name,
                figure,
                number(d.n),
                number(d.value, "{:+.1%}"),
                f"{d.low:+.1%} to {d.high:+.1%}" if d.low is not None else NONE,
                number(d.p, "{:.3f}"),
            ]
            for name, figure, d in seeds
        ]
        made.append(
            Table(
                "Paired by seed",
                "arms|figure|seeds|mean difference|95 % t interval|sign-flip p",
                body,
                "Exact two-sided sign-flip p; with five seeds it cannot be below .06.",
            )
        )
    return made


def _tokens_accuracy(sides: Sequence[Side]) -> Figure | None:
    series = _colours(sides)
    rows = []
    for s in sides[:6]:
        spent = 0.0
        for line in s.run.metrics:
            spent += finite(line.get("sample/tokens")) or 0
            if a := accuracy(s.run, line["iteration"], s.split):
                rows.append({"x": spent, "y": a.rate, "low": a.low, "high": a.high, "s": s.name, "n": line["iteration"], "split": s.split})
    if not rows:
        return None
    equal, splits = at_equal_tokens(sides), sorted({row["split"] for row in rows})
    body = [
        [row["s"], row["n"], row["split"], number(row["x"], "{:,.0f}"), percent(row["y"]), f"{row['low']:.1%} to {row['high']:.1%}"]
        for row in rows
    ]
    says = ""
    if equal and equal.split:
        says = (
            f"At {short(equal.tokens)} tokens, the most that all runs have spent, {equal.split} accuracy: "
            + ", ".join(f"{s.name} {rate:.1%} (iteration {n})" for s, _, n, rate in equal.runs if rate is not None)
            + "."
        )
    spec = plots.lines(rows, plots.axis("tokens generated so far"), plots.axis(f"{' or '.join(splits)} accuracy", percent=True), series, band=True, tips=[tip("s", "run", "nominal"), tip("n", "iteration"), tip("x", "tokens", format=","), tip("y", "accuracy", format=".1%"), tip("low", "95 % from", format=".1%"), tip("high", "to", format=".1%")])  # fmt: skip
    return Figure("equal-tokens-accuracy", "Accuracy against tokens", says or "Accuracy of every evaluated model against the tokens generated until it was trained.", spec, Table("Accuracy against tokens generated so far", "run|iteration|of|tokens|accuracy|95 % interval", body), list(series.items()))  # fmt: skip


def _tokens_coverage(sides: Sequence[Side]) -> Figure | None:
    equal = at_equal_tokens(sides)
    if not equal:
        return None
    series = _colours(sides)
    rows = [{"x": t, "y": ever / s.queries, "s": s.name} for s in sides[:6] if s.queries for _, t, _, ever in s.curve]
    rows = [{"x": 0, "y": 0, "s": s.name} for s in sides[:6] if s.queries] + rows
    body = [
        [s.name, percent(ever), n, percent(rate), number(s.curve[-1][1]), percent(s.curve[-1][3] / s.queries)]
        for s, ever, n, rate in equal.runs
        if s.queries and s.curve
    ]
    says = (
        f"At {short(equal.tokens)} tokens each: "
        + ", ".join(f"{s.name} has covered {ever:.1%}" for s, ever, *_ in equal.runs if ever is not None)
        + " of the questions at least once."
    )
    head = f"run|ever covered|model trained by then: iteration|its {f'{equal.split} accuracy' if equal.split else 'accuracy (not all were evaluated)'}|tokens of the whole run|ever covered by the whole run"
    spec = plots.lines(rows, plots.axis("tokens generated so far"), plots.axis("questions ever covered", percent=True, zero=True), series, points=False, tips=[tip("s", "run", "nominal"), tip("x", "tokens", format=","), tip("y", "covered", format=".1%")])  # fmt: skip
    return Figure(
        "equal-tokens-coverage",
        "Questions ever covered against tokens",
        says,
        spec,
        Table(f"At equal tokens: {equal.tokens:,} generated by each run", head, body),
        list(series.items()),
    )


def _price(sides: Sequence[Side]) -> Figure | None:
    """What an accepted rollout cost at each level, by run and so by strategy."""
    series = {name: colour for name, colour in _colours(sides).items() if any(s.name == name and s.price for s in sides)}
    levels = sorted({level for s in sides for level, *_ in s.price if level is not None})
    totals = {s.name: (sum(p[2] for p in s.price), sum(p[3] or 0 for p in s.price)) for s in sides if s.price}
    if not any(good for good, _ in totals.values()):
        return None
    body: list[list[Any]] = []
    for s in sides:
        if s.name not in totals:
            continue
        per = {level: tokens / good for level, _, good, tokens in s.price if good and tokens}
        good, tokens = totals[s.name]
        body.append(
            [s.name, s.run.strategy, *(number(per.get(x), "{:,.1f}") for x in levels), number(tokens / good if good else None, "{:,.1f}")]
        )
    says = "; ".join(f"{name}: {tokens / good:,.0f} tokens per accepted rollout" if good else f"{name}: none accepted" for name, (good, tokens) in totals.items()) + "."  # fmt: skip
    tips = [tip("s", "run", "nominal"), tip("x", "level", "ordinal"), tip("y", "tokens per accepted", format=",.0f"), tip("n", "accepted", format=",")]  # fmt: skip
    if levels:
        rows = [{"x": level, "y": tokens / good, "s": s.name, "n": good} for s in sides for level, _, good, tokens in s.price if level is not None and good and tokens and s.name in series]  # fmt: skip
        y = plots.axis("tokens per accepted rollout (log)", log=True)
        spec = plots.lines(rows, plots.axis("level", integer=levels), y, series, tips=tips)
    else:
        rows = [{"x": name, "y": totals[name][1] / totals[name][0], "s": name, "n": totals[name][0]} for name in series if totals[name][0]]
        y = plots.axis("tokens per accepted rollout", zero=True)
        spec = plots.bars(rows, "run", y, series, tips=[tips[0], *tips[2:]], apart=False)
    head = "|".join(["run|strategy", *(f"level {x}" for x in levels), "all"])
    table = Table("Tokens per accepted rollout over the run, by level and strategy", head, body, "A dash where none was accepted.")
    return Figure("compare-price", "Tokens per accepted rollout, by level and strategy", says, spec, table, list(series.items()))


def _hard(sides: Sequence[Side]) -> Figure | None:
    rows = [
        {"x": line["iteration"], "y": line["tail/hard_share"], "s": s.name}
        for s in sides[:6]
        for line in s.run.metrics
        if finite(line.get("tail/hard_share")) is not None
    ]
    if not rows:
        return None
    series = _colours(sides)
    own = next((line["tail/query_hard_share"] for s in sides for line in s.run.metrics if finite(line.get("tail/query_hard_share"))), None)
    iterations = sorted({row["x"] for row in rows})
    body = [[s, *(percent(next((r["y"] for r in rows if r["s"] == s and r["x"] == n), None)) for n in iterations)] for s in series]
    says = "; ".join(f"{s}: {mine[0]:.1%} to {mine[-1]:.1%}" for s in series if (mine := [r["y"] for r in rows if r["s"] == s])) + (
        f"; of the questions {own:.1%}." if own else "."
    )
    if own:
        rows += [{"x": n, "y": own, "s": "the questions"} for n in iterations]
        series = {"the questions": plots.GREY} | series
    spec = plots.lines(rows, plots.axis("iteration", integer=iterations), plots.axis("hard share of training rows", percent=True, zero=True), series, tips=[tip("s", "run", "nominal"), tip("x", "iteration"), tip("y", "hard share", format=".1%")])  # fmt: skip
    return Figure(
        "hard-shares",
        "Hard share of the training rows",
        says,
        spec,
        Table("Hard share of the training rows", "|".join(["", *(f"iteration {n}" for n in iterations)]), body),
        list(series.items()),
    )
