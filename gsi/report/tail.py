"""The tail: whether hard questions stay in the training data (the paper's figures, and what belongs beside them)."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from gsi.report import plots, rationales, watched
from gsi.report.parts import Figure, Section, Table, cut, filled, number, percent
from gsi.report.plots import tip
from gsi.report.read import RunView, by_level, finite
from gsi.report.tally import Tally

HUMAN, SAMPLED, KEPT = "questions (human data)", "sampled", "kept"
ROLES = {HUMAN: plots.GREY, SAMPLED: plots.COLOURS[1], KEPT: plots.COLOURS[0]}


def section(run: RunView, tally: Tally | None) -> Section:
    made: list[Figure | Table | None] = [_shares(run, tally), _drift(run), _coverage(run)]
    if tally:
        made += [_right(run, tally), *rationales.lengths(tally)]
    made += [*rationales.perplexity(run), rationales.perplexity_shares(run)]
    if tally:
        made += [_gained(tally), _lost(tally)]
    made += [_effective(run), watched.figure(run)]
    if tally:
        made += [rationales.distinct(tally)]
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
    k = min(int((finite(sample.get("k")) if isinstance(sample, dict) else None) or 8), 1000)
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


def _effective(run: RunView) -> Figure | None:
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
