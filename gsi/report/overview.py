"""What ran and what came of it: tiles, warnings, accuracy."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gsi.report import plots
from gsi.report.parts import NONE, Cell, Figure, Section, Table, duration, number, percent, short
from gsi.report.plots import tip
from gsi.report.read import RunView, dig, finite, results
from gsi.report.words import accuracy, of_task, samples
from gsi.types import STATUSES


def section(run: RunView) -> Section:
    parts: list[Figure | Table] = [f for f in (_accuracy(run), _levels(run)) if f is not None]
    if not parts:
        parts = [Table("Accuracy by iteration and task", "iteration", [], "")]
    return Section("overview", "Accuracy", parts)


def tiles(run: RunView) -> list[dict[str, str]]:
    """Name, value and what it stands beside, of the few figures that sum a run up."""
    found: list[dict[str, str]] = []
    for split in ("test", "validation"):
        measured = [hit for n in sorted(run.evals) if (hit := accuracy(run, n, split))]
        if measured:
            last = measured[-1]
            before = f"{measured[0].rate:.1%} before; " if len(measured) > 1 else ""
            found.append({"name": f"{split} accuracy", "value": f"{last.rate:.1%}", "note": f"{before}95 %: {last.interval}"})
            break
    lines = [line for line in run.metrics if finite(line.get("tail/coverage")) is not None]
    if lines:
        found.append({"name": "questions covered", "value": f"{lines[-1]['tail/coverage']:.1%}", "note": f"iteration {lines[-1]['iteration']}; {lines[0]['tail/coverage']:.1%} in iteration {lines[0]['iteration']}"})  # fmt: skip
    lines = [line for line in run.metrics if finite(line.get("tail/hard_share")) is not None]
    if lines:
        own = finite(lines[-1].get("tail/query_hard_share"))
        found.append({"name": "hard share of training rows", "value": f"{lines[-1]['tail/hard_share']:.1%}", "note": f"{lines[0]['tail/hard_share']:.1%} in iteration {lines[0]['iteration']}" + (f"; of the questions {own:.1%}" if own is not None else "")})  # fmt: skip
    tokens, accepted = run.total("sample/tokens"), run.total("sample/accepted")
    if tokens:
        found.append(
            {
                "name": "tokens generated",
                "value": short(tokens),
                "note": f"{tokens / accepted:,.1f} per accepted rollout" if accepted else "none was accepted",
            }
        )
    wall = finite((run.state.get("clock") or {}).get("wall"))
    if wall:
        flops = run.total("cost/flops")
        found.append(
            {
                "name": "time",
                "value": duration(wall),
                "note": f"{flops:.2g} FLOPs" if flops else "all processes of this run that have ended",
            }
        )
    return found


def warnings(run: RunView) -> list[str]:
    """What a reader should know before believing the figures."""
    found: list[str] = alarms(run)
    for split in ("test", "validation"):
        first, last = accuracy(run, 0, split), accuracy(run, run.final().get("iteration", 0), split)
        if first and last and run.final().get("iteration", 0):
            if last.high < first.rate:
                found.append(
                    f"The model got worse: {split} accuracy fell from {first.rate:.1%} to {last.rate:.1%} (95 % interval {last.interval})."
                )
            if last.rate == 0:
                found.append(f"The last model solves none of the {last.asked} {split} questions.")
    shares = [(line["iteration"], line["tail/hard_share"], finite(line.get("tail/query_hard_share"))) for line in run.metrics if finite(line.get("tail/hard_share")) is not None]  # fmt: skip
    if len(shares) > 1 and shares[-1][1] < 0.9 * shares[0][1]:
        found.append(f"The tail narrows: hard questions are {shares[-1][1]:.1%} of the training rows of iteration {shares[-1][0]}, after {shares[0][1]:.1%} in iteration {shares[0][0]}.")  # fmt: skip
    drawn = run.total("sample/rollouts")
    if drawn:
        for status, why in {"truncated": "cut off by sample.max_new_tokens", "no_answer": "without an answer that can be read", "error": "failed requests or checks", "timeout": "not graded in time"}.items():  # fmt: skip
            count = run.total(f"sample/status/{status}")
            if count > {"truncated": 0.1, "no_answer": 0.1}.get(status, 0.001) * drawn:
                found.append(f"{count / drawn:.1%} of the rollouts are {why} ({status}).")
        lucky, accepted = run.total("sample/lucky"), run.total("sample/accepted")
        if lucky > 0.05 * (run.total("sample/correct") or 1):
            what = (
                "they are not accepted" if run.config.get("accept") == "steps" else "they are accepted, as the config says (accept: answer)"
            )
            found.append(f"{lucky / run.total('sample/correct'):.1%} of the right answers stand on a wrong step; {what}.")
        if not accepted:
            found.append("No rollout was accepted, so nothing could be trained on.")
    for line in run.metrics:
        if (finite(line.get("sample/waste")) or 0) > 0.1:
            found.append(
                f"{line['sample/waste']:.1%} of iteration {line['iteration']}'s tokens went to attempts that were launched before it was known that they were not needed."
            )
    if run.state.get("programs_isolated") is False:
        found.append("Programs written by the model ran WITHOUT isolation, as the config allows.")
    return found


def alarms(run: RunView) -> list[str]:
    """What the tail monitor said, iteration by iteration."""
    kept = dig(run.state, "alarms")
    return [str(text) for _, texts in sorted(kept.items()) if isinstance(texts, list) for text in texts] if isinstance(kept, dict) else []


def _accuracy(run: RunView) -> Figure | None:
    rows_: list[dict[str, Any]] = []
    rows: list[list[Any]] = []
    found = list(results(run))
    sampled = {k: k.partition("@") for *_, r in found for k in r if k.startswith(("pass@", "maj@")) and k != "pass@1"}
    ks = sorted((k for k, (_, _, n) in sampled.items() if n.isdigit()), key=lambda k: (int(sampled[k][2]), sampled[k][0]))
    tasks = {task for _, _, task, _ in found}
    for n, split, task, r in found:
        name = f"{task}, {split}" if len(tasks) > 1 else split
        a = of_task(r)
        rows_.append({"x": n, "y": a.rate, "low": a.low, "high": a.high, "s": name, "n": a.asked})
        cells = [
            n,
            split,
            task,
            number(a.asked),
            percent(a.rate, a.rate),
            a.interval if a.asked else NONE,
            percent(r.get("mean_over_levels")),
        ]
        rows.append(cells + [percent(r.get(k)) for k in ks])
    if not rows_:
        return None
    head = "|".join(["iteration|split|task|questions|accuracy|95 % interval|mean over levels", *ks])
    how = " and ".join(map(str, sorted({samples(r) for *_, r in found} - {0})))
    note = f"Mean over {how} samples per question (evaluate.avg_at_k)." if how else "Greedy decoding."
    note += " The interval counts questions only; it knows nothing of how another seed would train. Iteration 0 is the model the run began with."
    names = list(dict.fromkeys(row["s"] for row in rows_))[:6]
    series = {name: plots.COLOURS[i] for i, name in enumerate(names)}
    iterations = sorted({row["x"] for row in rows_})
    says = "; ".join(
        f"{s}: {a['y']:.1%} in iteration {a['x']}, {b['y']:.1%} in iteration {b['x']}" for s in names for a, b in [_ends(rows_, s)]
    )
    spec = plots.lines(
        [row for row in rows_ if row["s"] in series], plots.axis("iteration", integer=iterations), plots.axis("accuracy", percent=True), series, band=True,
        tips=[tip("s", "results", "nominal"), tip("x", "iteration"), tip("y", "accuracy", format=".1%"), tip("low", "95 % from", format=".1%"), tip("high", "to", format=".1%"), tip("n", "questions")],
    )  # fmt: skip
    return Figure(
        "accuracy",
        "Accuracy by iteration",
        says + ".",
        spec,
        Table("Accuracy by iteration and task", head, rows, note),
        list(series.items()),
    )


def _ends(rows: list[dict[str, Any]], s: str) -> tuple[dict[str, Any], dict[str, Any]]:
    mine = [row for row in rows if row["s"] == s]
    return mine[0], mine[-1]


def _levels(run: RunView) -> Figure | None:
    found = list(results(run))
    split = "test" if any(s == "test" and r["levels"] for _, s, _, r in found) else "validation"
    cells: dict[tuple[int, int], list[int]] = {}
    table_rows: list[list[Any]] = []
    levels = sorted({int(level) for *_, r in found for level in r["levels"]})
    for n, s, task, r in found:
        got = [r["levels"].get(str(level)) for level in levels]
        if r["levels"]:
            rates = [(c["right"] / c["n"], f"{round(c['right'], 2)}/{c['n']}") if c else None for c in got]
            table_rows.append([n, s, task, *[Cell(hit[1], hit[0], hit[0]) if hit else Cell(NONE) for hit in rates]])
        for level, c in zip(levels, got, strict=True):
            if c and s == split:
                pair = cells.setdefault((n, level), [0, 0])
                pair[0], pair[1] = pair[0] + c["right"], pair[1] + c["n"]
    if not cells:
        return None
    rows = [
        {"x": level, "y": n, "v": a / b, "label": f"{100 * a / b:.0f}", "right": a, "n": b} for (n, level), (a, b) in sorted(cells.items())
    ]
    last = max(n for n, _ in cells)
    failed = [level for (n, level), (a, _) in sorted(cells.items()) if n == last and not a]
    says = f"{split.capitalize()} accuracy of iteration {last} by level, from {_at(cells, last, levels[0])} at level {levels[0]} to {_at(cells, last, levels[-1])} at level {levels[-1]}"
    says += f"; nothing is solved at level {', '.join(map(str, failed))}." if failed else "."
    spec = plots.heat(rows, "level", "iteration", [tip("y", "iteration", "ordinal"), tip("x", "level", "ordinal"), tip("v", "accuracy", format=".1%"), tip("right", "right"), tip("n", "of")])  # fmt: skip
    head = "|".join(["iteration|split|task", *(f"level {x}" for x in levels)])
    return Figure(
        "accuracy-levels", f"Accuracy by level, % ({split})", says, spec, Table("Accuracy by level: right of asked", head, table_rows)
    )


def _at(cells: dict[tuple[int, int], list[int]], n: int, level: int) -> str:
    a, b = cells.get((n, level), (0, 0))
    return f"{a / b:.0%}" if b else NONE


def status_table(counts: Iterable[tuple[int, str, int]]) -> Table:
    """Rollouts by iteration and status, from (iteration, status, rollouts)."""
    table: dict[int, dict[str, int]] = {}
    for n, status, count in counts:
        of = table.setdefault(n, {})
        of[status] = of.get(status, 0) + count
    statuses = [*STATUSES, *sorted({s for c in table.values() for s in c} - set(STATUSES))]
    rows = [[f"iteration {n}", *(number(c.get(s, 0)) for s in statuses)] for n, c in sorted(table.items())]
    return Table("Rollouts by status, the iteration at work included", "|".join(["", *statuses]), rows)
