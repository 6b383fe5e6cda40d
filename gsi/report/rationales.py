"""The rationales themselves: how long, how likely and how different they are (the paper's figures of length and perplexity)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from gsi.report import plots
from gsi.report.parts import Figure, Table, number, percent
from gsi.report.plots import tip
from gsi.report.read import RunView, by_level, finite
from gsi.report.tally import Tally


def lengths(tally: Tally) -> Iterable[Figure | None]:
    """The paper's length figure: distribution and mean, in characters."""
    means = tally.mean_lengths()
    if not means:
        return
    longest = max(value or 0 for _, *values in means for value in values)
    width = max(1, round(longest * 2.5 / 30))
    last = max(n for n, *_ in means)
    bins: dict[str, dict[int, int]] = {"references": defaultdict(int), "sampled": defaultdict(int), "kept": defaultdict(int)}
    for b, count in tally.reference_lengths(width):
        bins["references"][min(int(b), 40)] += count
    for n, good, b, count in tally.lengths(width):
        if n == last:
            bins["sampled"][min(int(b), 40)] += count
            bins["kept"][min(int(b), 40)] += count * good
    named = {name: of for name, of in bins.items() if sum(of.values())}
    if not named:
        return
    colours = {"references": plots.GREY, "sampled": plots.COLOURS[1], "kept": plots.COLOURS[0]}
    series = {name: colours[name] for name in named}
    top = max(b for of in named.values() for b in of)
    rows = [
        {"x": b * width, "y": of.get(b, 0) / sum(of.values()), "s": name, "to": (b + 1) * width}
        for name, of in named.items()
        for b in range(top + 2)
    ]
    body = [[f"{b * width} to {(b + 1) * width - 1}" if b < 40 else f"{b * width} and more", *(percent(of.get(b, 0) / sum(of.values())) for of in named.values())] for b in range(top + 1)]  # fmt: skip
    mean_all, mean_kept = next((a, b) for n, a, b in means if n == last)
    says = (
        f"Iteration {last}: responses are {mean_all or 0:,.0f} characters long on average, accepted ones {mean_kept or 0:,.0f}."
        if mean_kept
        else f"Iteration {last}: responses are {mean_all or 0:,.0f} characters long on average; none was accepted."
    )
    spec = plots.lines(rows, plots.axis("characters"), plots.axis("share", percent=True, zero=True), series, points=False, step=True, tips=[tip("x", "from", format=","), tip("to", "below", format=","), tip("s", "of", "nominal"), tip("y", "share", format=".1%")])  # fmt: skip
    note = "" if "references" in named else "The ledger of this run holds no reference rationales to compare with."
    yield Figure(
        "lengths",
        f"Length of solutions (iteration {last})",
        says,
        spec,
        Table("Share of solutions by length in characters", "|".join(["characters", *named]), body, note),
        list(series.items()),
    )
    if len(means) > 1:
        lines = {"sampled": plots.COLOURS[1], "kept": plots.COLOURS[0]}
        rows = [{"x": n, "y": v, "s": s} for n, a, b in means for s, v in (("sampled", a), ("kept", b)) if v is not None]
        body = [[f"iteration {n}", number(a, "{:,.1f}"), number(b, "{:,.1f}")] for n, a, b in means]
        says = f"Accepted solutions: {means[0][2] or 0:,.1f} characters in iteration {means[0][0]}, {means[-1][2] or 0:,.1f} in iteration {means[-1][0]}."
        spec = plots.lines(rows, plots.axis("iteration", integer=[n for n, *_ in means]), plots.axis("characters, mean"), lines, tips=[tip("x", "iteration"), tip("s", "of", "nominal"), tip("y", "characters", format=",.1f")])  # fmt: skip
        yield Figure(
            "mean-length",
            "Mean length by iteration",
            says,
            spec,
            Table("Mean length in characters", "|sampled|kept", body),
            list(lines.items()),
        )


def perplexity(run: RunView) -> Iterable[Figure]:
    """Of references and of what is kept, where the run measured it (keys tail/perplexity/...)."""
    prefix = "tail/perplexity/"
    names = sorted({key[len(prefix) :].split("/")[0] for line in run.metrics for key in line if key.startswith(prefix)} - {""})
    names = [x for x in names if not x.startswith(("level_", "from_"))][:6]
    colours = {"reference": plots.GREY, "kept": plots.COLOURS[0]} | {
        n: plots.COLOURS[1 + i % 5] for i, n in enumerate(x for x in names if x not in ("reference", "kept"))
    }
    lines = [(line["iteration"], {name: finite(line.get(prefix + name)) for name in names}) for line in run.metrics]
    lines = [(n, values) for n, values in lines if any(v is not None for v in values.values())]
    if lines:
        series = {name: colours[name] for name in names}
        rows = [{"x": n, "y": v, "s": name} for n, values in lines for name, v in values.items() if v is not None]
        body = [[f"iteration {n}", *(number(values[name], "{:,.3f}") for name in names)] for n, values in lines]
        says = "; ".join(
            f"{name}: {mine[0]:.2f}" + (f" -> {mine[-1]:.2f}" if len(mine) > 1 else "")
            for name in names
            if (mine := [v[name] for _, v in lines if v[name] is not None])
        )
        spec = plots.lines(rows, plots.axis("iteration", integer=[n for n, _ in lines]), plots.axis("perplexity"), series, tips=[tip("x", "iteration"), tip("s", "of", "nominal"), tip("y", "perplexity", format=".3f")])  # fmt: skip
        yield Figure(
            "perplexity",
            "Perplexity under the base model",
            f"Mean perplexity, first to last iteration: {says}.",
            spec,
            Table("Perplexity", "|".join(["", *names]), body),
            list(series.items()),
        )
    levelled = [(line["iteration"], {name: by_level(prefix + name, line) for name in names}) for line in run.metrics]
    levelled = [(n, of) for n, of in levelled if any(of.values())]
    if levelled:
        n, of = levelled[-1]
        levels = sorted({x for values in of.values() for x in values})
        series = {name: colours[name] for name in names if of[name]}
        rows = [{"x": x, "y": of[name][x], "s": name} for name in series for x in levels if x in of[name]]
        body = [[x, *(number(of[name].get(x), "{:,.3f}") for name in series)] for x in levels]
        spec = plots.lines(rows, plots.axis("level", integer=levels), plots.axis("perplexity"), series, tips=[tip("x", "level"), tip("s", "of", "nominal"), tip("y", "perplexity", format=".3f")])  # fmt: skip
        yield Figure("perplexity-levels", f"Perplexity by level (iteration {n})", f"Perplexity of {' and '.join(series)} at levels {levels[0]} to {levels[-1]}.", spec, Table("Perplexity by level", "|".join(["level", *series]), body), list(series.items()))  # fmt: skip


def perplexity_shares(run: RunView) -> Figure | None:
    """The paper's perplexity figure: how the responses are spread, in the last iteration that measured it (keys tail/perplexity/NAME/from_P)."""
    for line in reversed(run.metrics):
        found: dict[str, dict[float, float]] = defaultdict(dict)
        for key, value in line.items():
            name, _, low = key.removeprefix("tail/perplexity/").partition("/from_")
            if key.startswith("tail/perplexity/") and finite(value) is not None and _float(low) is not None:
                found[name][float(low)] = value
        if found:
            break
    else:
        return None
    colours = {"reference": plots.GREY, "kept": plots.COLOURS[0]}
    series = {name: colours.get(name, plots.COLOURS[1]) for name in sorted(found)[:4]}
    lows = sorted({low for of in found.values() for low in of})
    rows = [{"x": low, "y": found[name].get(low, 0.0), "s": name} for name in series for low in (*lows, lows[-1] * 2**0.25)]
    spec = plots.lines(rows, plots.axis("perplexity"), plots.axis("share", percent=True, zero=True), series, points=False, step=True, tips=[tip("x", "from", format=".2f"), tip("s", "of", "nominal"), tip("y", "share", format=".1%")])  # fmt: skip
    most = {name: max(found[name], key=lambda low: found[name][low]) for name in series}
    says = "Most responses lie from " + ", ".join(f"{low:.2f} ({name})" for name, low in most.items()) + "."
    body = [[f"{low:.2f}", *(percent(found[name].get(low, 0.0)) for name in series)] for low in lows]
    title = f"How perplexities are spread (iteration {line['iteration']})"
    return Figure("perplexity-shares", title, says, spec, Table("Share of responses by perplexity", "|".join(["from", *series]), body), list(series.items()))  # fmt: skip


def _float(text: str) -> float | None:
    try:
        return finite(float(text))
    except ValueError:
        return None


def distinct(tally: Tally) -> Figure | None:
    found = [row for row in tally.distinct() if row[4]]
    if not found:
        return None
    groups: dict[int, list[Sequence[Any]]] = defaultdict(list)
    for row in found:
        groups[row[0]].append(row)
    levels = sorted({row[1] for row in found if row[1] is not None})
    totals = {n: (sum(r[2] for r in rows), sum(r[3] for r in rows), sum(r[4] for r in rows)) for n, rows in groups.items()}
    body = []
    for n, rows in sorted(groups.items()):
        per = {r[1]: r[3] / r[4] for r in rows}
        body.append(
            [
                f"iteration {n}",
                *(number(per.get(x), "{:.2f}") for x in levels),
                number(totals[n][1] / totals[n][2], "{:.2f}"),
                number(totals[n][0] / totals[n][2], "{:.2f}"),
            ]
        )
    last = max(totals)
    says = f"Iteration {last}: a covered question has {totals[last][0] / totals[last][2]:.1f} accepted rationales, {totals[last][1] / totals[last][2]:.1f} of them distinct."
    tips = [tip("x", "level"), tip("s", "in", "nominal"), tip("y", "distinct per covered question", format=".2f")]
    if levels:
        colours = plots.of_iterations(list(groups))
        series = {f"iteration {n}": c for n, c in colours.items()}
        data = [{"x": r[1], "y": r[3] / r[4], "s": f"iteration {n}"} for n in colours for r in groups[n] if r[1] is not None]
        spec = plots.lines(data, plots.axis("level", integer=levels), plots.axis("distinct rationales", zero=True), series, tips=tips)
    else:
        series = {"distinct": plots.COLOURS[0], "accepted": plots.GREY}
        data = [{"x": n, "y": v, "s": s} for n, (a, d, q) in sorted(totals.items()) for s, v in (("distinct", d / q), ("accepted", a / q))]
        tips[0] = tip("x", "iteration")
        spec = plots.lines(data, plots.axis("iteration", integer=sorted(totals)), plots.axis("rationales", zero=True), series, tips=tips)
    head = "|".join(["", *(f"level {x}" for x in levels), "all", "accepted, not only distinct"])
    return Figure(
        "distinct",
        "Distinct rationales per covered question",
        says,
        spec,
        Table("Distinct accepted rationales per covered question (white space aside)", head, body),
        list(series.items()),
    )
