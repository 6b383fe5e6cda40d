"""The tail: whether hard questions stay in the training data (the paper's figures, and what belongs beside them)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from gsi.report import plots
from gsi.report.parts import Figure, Section, Table, cut, filled, number, percent
from gsi.report.plots import tip
from gsi.report.read import RunView, by_level, finite
from gsi.report.tally import Tally

HUMAN, SAMPLED, KEPT = "questions (human data)", "sampled", "kept"
ROLES = {HUMAN: plots.GREY, SAMPLED: plots.COLOURS[1], KEPT: plots.COLOURS[0]}


def section(run: RunView, tally: Tally | None) -> Section:
    made: list[Figure | Table | None] = [_shares(run, tally), _drift(run), _coverage(run)]
    if tally:
        made += [_right(run, tally), *_lengths(tally)]
    made += list(_perplexity(run))
    if tally:
        made += [_gained(tally), _lost(tally)]
    made += [_effective(run, tally)]
    if tally:
        made += [_distinct(tally)]
    parts = [part for part in made if part is not None]
    lead = (
        ""
        if any(by_level("tail/query_share", line) for line in run.metrics) or not run.metrics
        else "The questions of this run declare no levels (or no iteration has figures by level yet), so nothing can be shown by level."
    )
    return Section("tail", "The tail", parts, lead)


def _trained(run: RunView) -> list[dict[str, Any]]:
    return [line for line in run.metrics if by_level("tail/query_share", line)]


def _shares(run: RunView, tally: Tally | None) -> Figure | None:
    """The paper's first figure: share by level of human data, of what is sampled and of what is kept."""
    trained = _trained(run)
    if not trained:
        return None
    line = trained[-1]
    n, own, kept = line["iteration"], by_level("tail/query_share", line), by_level("tail/share", line)
    drawn = {level: count for m, level, count, _ in (tally.levels() if tally else []) if m == n}
    total = sum(drawn.values())
    levels = sorted({*own, *kept, *drawn})
    named = {HUMAN: own, SAMPLED: {k: v / total for k, v in drawn.items()}, KEPT: kept} if total else {HUMAN: own, KEPT: kept}
    rows = [{"x": x, "y": shares.get(x, 0), "s": name} for name, shares in named.items() for x in levels]
    series = {name: ROLES[name] for name in named}
    hardest = levels[-max(1, len(levels) // 3) :]
    says = f"The hardest third of the levels ({hardest[0]} and up) is {sum(own.get(x, 0) for x in hardest):.1%} of the questions and {sum(kept.get(x, 0) for x in hardest):.1%} of the training rows of iteration {n}."
    spec = plots.bars(
        rows,
        "level",
        plots.axis("share", percent=True, zero=True),
        series,
        tips=[tip("x", "level", "ordinal"), tip("s", "of", "nominal"), tip("y", "share", format=".1%")],
    )
    body = [[x, *(percent(shares.get(x, 0), shares.get(x, 0)) for shares in named.values())] for x in levels]
    table = Table(f"Share by level, iteration {n}", "level|" + "|".join(named), body)
    return Figure("shares", f"Share by level: questions, sampled, kept (iteration {n})", says, spec, table, list(series.items()))


def _drift(run: RunView) -> Figure | None:
    trained = _trained(run)
    if not trained:
        return None
    queries = by_level("tail/query_share", trained[-1])
    shares = {line["iteration"]: by_level("tail/share", line) for line in trained}
    levels = sorted(set(queries).union(*shares.values()))
    top = max((v for share in (queries, *shares.values()) for v in share.values()), default=0) or 1
    asked = next((line["sample/queries"] for line in reversed(run.metrics) if finite(line.get("sample/queries"))), None)

    def cells(share: dict[int, float]) -> list[Any]:  # a level without a row has no key: its share is 0
        return [percent(share.get(x, 0.0), share.get(x, 0.0) / top) for x in levels]

    body: list[list[Any]] = [
        ["the questions", *cells(queries), percent(trained[-1].get("tail/query_hard_share")), number(asked), number(None)]
    ]
    for line in trained:
        last = (percent(line.get("tail/hard_share")), number(line.get("train/rows")), number(line.get("tail/effective_queries"), "{:,.1f}"))
        body.append([f"iteration {line['iteration']}", *cells(shares[line["iteration"]]), *last])
    note = "Where the high levels have less than the questions' own share, the tail narrows. Effective questions: how many equally frequent questions the rows are worth."
    head = "|".join(["training set", *(f"level {x}" for x in levels), "hard", "rows", "effective questions"])
    colours = plots.of_iterations(list(shares))
    series = {"the questions": plots.GREY} | {f"iteration {n}": c for n, c in colours.items()}
    rows = [{"x": x, "y": queries.get(x, 0), "s": "the questions"} for x in levels] + [
        {"x": x, "y": shares[n].get(x, 0), "s": f"iteration {n}"} for n in colours for x in levels
    ]
    hard = [(line["iteration"], line["tail/hard_share"]) for line in trained if finite(line.get("tail/hard_share")) is not None]
    says = (
        f"Hard questions are {hard[0][1]:.1%} of the training rows of iteration {hard[0][0]} and {hard[-1][1]:.1%} of iteration {hard[-1][0]}."
        if hard
        else "Share of the training rows by level, iteration by iteration."
    )
    spec = plots.lines(rows, plots.axis("level", integer=levels), plots.axis("share of training rows", percent=True, zero=True), series, tips=[tip("x", "level"), tip("s", "of", "nominal"), tip("y", "share", format=".1%")])  # fmt: skip
    return Figure(
        "drift",
        "How the training rows drift",
        says,
        spec,
        Table("Share of the training set by level, beside the questions' own", head, body, note),
        list(series.items()),
    )


def _coverage(run: RunView) -> Figure | None:
    levels = sorted({x for line in run.metrics for x in by_level("tail/coverage", line)})
    body: list[list[Any]] = []
    rows = []
    for line in run.metrics:
        coverage = by_level("tail/coverage", line)
        row = [percent(coverage.get(x), coverage.get(x)) for x in levels]
        body.append([f"iteration {line['iteration']}", *row, percent(line.get("tail/hard_coverage")), percent(line.get("tail/coverage"))])
        rows += [{"x": x, "y": line["iteration"], "v": v, "label": f"{100 * v:.0f}"} for x, v in coverage.items()]
    body = filled(body)
    if not body:
        return None
    table = Table(
        "Coverage: training questions with an accepted rollout, by level",
        "|".join(["", *(f"level {x}" for x in levels), "hard", "all"]),
        body,
    )
    covered = [(line["iteration"], line["tail/coverage"]) for line in run.metrics if finite(line.get("tail/coverage")) is not None]
    says = (
        f"Coverage of all questions: {covered[0][1]:.1%} in iteration {covered[0][0]}, {covered[-1][1]:.1%} in iteration {covered[-1][0]}."
        if covered
        else "Coverage by level."
    )
    if not rows:
        rows_ = [{"x": n, "y": v, "s": "all questions"} for n, v in covered]
        series = {"all questions": plots.COLOURS[0]}
        spec = plots.lines(
            rows_,
            plots.axis("iteration", integer=[n for n, _ in covered]),
            plots.axis("covered", percent=True),
            series,
            tips=[tip("x", "iteration"), tip("y", "covered", format=".1%")],
        )
        return Figure("coverage", "Questions covered", says, spec, table, list(series.items()))
    spec = plots.heat(
        rows, "level", "iteration", [tip("y", "iteration", "ordinal"), tip("x", "level", "ordinal"), tip("v", "covered", format=".1%")]
    )
    return Figure("coverage", "Questions covered by level, %", says, spec, table)


def _right(run: RunView, tally: Tally) -> Figure | None:
    sample = run.config.get("sample")
    k = int((finite(sample.get("k")) if isinstance(sample, dict) else None) or 8)
    found = tally.right_of_plain(k)
    if not found:
        return None
    counts: dict[int, dict[int, int]] = defaultdict(dict)
    for n, c, queries in found:
        counts[n][c] = queries
    colours = plots.of_iterations(list(counts))
    series = {f"iteration {n}": colour for n, colour in colours.items()}
    rows = [{"x": c, "y": counts[n].get(c, 0), "s": f"iteration {n}"} for n in colours for c in range(k + 1)]
    first, last = min(counts), max(counts)
    says = f"Never right in {k} plain attempts: {counts[first].get(0, 0):,} questions in iteration {first}, {counts[last].get(0, 0):,} in iteration {last}; always right: {counts[first].get(k, 0):,} and {counts[last].get(k, 0):,}."
    spec = plots.bars(rows, f"accepted of the first {k} plain attempts", plots.axis("questions", zero=True), series, tips=[tip("x", "accepted", "ordinal"), tip("s", "in", "nominal"), tip("y", "questions", format=",")])  # fmt: skip
    body = [[f"iteration {n}", *(number(of.get(c, 0)) for c in range(k + 1))] for n, of in sorted(counts.items())]
    return Figure("right-counts", "How often plain attempts are accepted", says, spec, Table(f"Questions by accepted plain attempts, of the first {k}", "|".join(["", *map(str, range(k + 1))]), body), list(series.items()))  # fmt: skip


def _lengths(tally: Tally) -> Iterable[Figure | None]:
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


def _perplexity(run: RunView) -> Iterable[Figure]:
    """Of references and of what is kept, where the run measured it (keys tail/perplexity/...)."""
    prefix = "tail/perplexity/"
    names = sorted({key[len(prefix) :].split("/")[0] for line in run.metrics for key in line if key.startswith(prefix)} - {""})
    names = [x for x in names if not x.startswith("level_")][:6]
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


def _gained(tally: Tally) -> Figure | None:
    found = tally.gained()
    if not found:
        return None
    series = {"gained": plots.COLOURS[2], "lost": plots.COLOURS[1]}
    rows = [{"x": n, "y": v, "s": s, "count": abs(v)} for n, a, b in found for s, v in (("gained", a), ("lost", -b))]
    says = "; ".join(f"iteration {n}: {a:,} gained, {b:,} lost" for n, a, b in found[-3:])
    spec = plots.bars(rows, "iteration", plots.axis("questions", zero=True), series, stacked=True, tips=[tip("x", "iteration", "ordinal"), tip("s", "questions", "nominal"), tip("count", "count", format=",")])  # fmt: skip
    body = [[f"iteration {n}", number(a), number(b), number(a - b, "{:+,}")] for n, a, b in found]
    return Figure(
        "gained",
        "Questions gained and lost",
        f"Against the iteration before, {says}.",
        spec,
        Table("Questions covered, against the iteration before", "|gained|lost|net", body),
        list(series.items()),
    )


def _lost(tally: Tally) -> Table | None:
    found = tally.lost(15)
    if not found:
        return None
    body = [[cut(q, 120), number(level), number(last)] for q, level, last in found]
    return Table("Once covered, not in the last iteration: the hardest", "question|level|last covered in iteration", body)


def _effective(run: RunView, tally: Tally | None) -> Figure | None:
    lines = [line for line in run.metrics if finite(line.get("tail/effective_queries")) is not None]
    if not lines:
        return None
    asked = next((line["sample/queries"] for line in reversed(run.metrics) if finite(line.get("sample/queries"))), None)
    series: dict[str, str] = {"effective number": plots.COLOURS[0]} | ({"asked": plots.GREY} if asked else {})
    rows = [{"x": line["iteration"], "y": line["tail/effective_queries"], "s": "effective number"} for line in lines]
    rows += [{"x": line["iteration"], "y": asked, "s": "asked"} for line in lines if asked]
    body = [
        [f"iteration {line['iteration']}", number(line["tail/effective_queries"], "{:,.1f}"), number(asked), number(line.get("train/rows"))]
        for line in lines
    ]
    says = (
        f"The training rows of iteration {lines[-1]['iteration']} are worth {lines[-1]['tail/effective_queries']:,.0f} equally frequent questions"
        + (f" of {asked:,}." if asked else ".")
    )
    spec = plots.lines(rows, plots.axis("iteration", integer=[line["iteration"] for line in lines]), plots.axis("questions", zero=True), series, tips=[tip("x", "iteration"), tip("s", "", "nominal"), tip("y", "questions", format=",.1f")])  # fmt: skip
    return Figure(
        "effective",
        "Effective number of questions",
        says,
        spec,
        Table("Effective number of questions in the training rows: exp of the entropy of their counts", "|effective|asked|rows", body),
        list(series.items()),
    )


def _distinct(tally: Tally) -> Figure | None:
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
