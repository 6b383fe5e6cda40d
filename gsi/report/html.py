"""`gsi report`: one self-contained HTML file, written from the run folders alone. It runs no script and loads nothing.

Every figure is prepared here as text with its exact value beside it (`<data value>`); `report.html` only lays it out.
"""

from __future__ import annotations

import re
import shlex
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from heapq import nsmallest
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

import gsi
from gsi.ledger import Ledger
from gsi.metrics import PLAIN, wilson
from gsi.report.read import STAGES, RunView, dig, finite, read_run
from gsi.report.terminal import accuracy, hard_accuracy, sentence
from gsi.seeds import seed_of
from gsi.types import SHUFFLE, STATUSES, GsiError

SAMPLES = 30  # rollouts shown per run
LONGEST = 4000  # characters of one text, the rest is cut out of its middle
NONE = "–"
# C0 and C1 controls, marks that reorder text (bidi), lone surrogates: none of them may reach the page
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")


@dataclass(frozen=True)
class Cell:
    """A figure as shown, its exact value, and how strongly it is coloured (0 to 1, None = not)."""

    text: str
    value: float | None = None
    heat: float | None = None


@dataclass(frozen=True)
class Table:
    caption: str
    head: str  # of the columns, with | between
    rows: Sequence[Sequence[Any]]  # the first cell of a row is its heading
    note: str = ""


def write_report(runs: list[Path], output: Path) -> Path:
    """Writes the report of one run or several to `output` and returns its path.

    Raises GsiError where a path is no run folder, or `output` cannot be written. What a run folder lacks is named in the report.
    """
    if not runs:
        raise GsiError("report: name at least one run folder")
    views = [read_run(Path(path)) for path in runs]
    # a template of our own filled with text of strangers: everything is escaped, and `_shown` sees every value before that
    env = Environment(loader=PackageLoader("gsi", "report"), autoescape=True, finalize=_shown, undefined=StrictUndefined, trim_blocks=True)
    page = env.get_template("report.html").render(
        runs=[_run(view) for view in views],
        comparison=_comparison(views) if len(views) > 1 else None,
        gsi=gsi.__version__,
        now=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    part = output.with_name(output.name + ".part")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(page, encoding="utf-8")
        part.replace(output)
    except OSError as e:
        raise GsiError(f"report: {output} cannot be written: {e.strerror}; choose another --output") from e
    return output


# --------------------------------------------------------------------------------------- what is shown, and how


def _shown(value: Any) -> Any:
    """Last stop of every value before it is escaped: nothing is "None", and no character steers terminal, browser or encoder."""
    if value is None:
        return NONE
    return _UNPRINTABLE.sub(lambda m: f"\\x{ord(m[0]):02x}", value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _cut(text: Any, longest: int = LONGEST) -> str:
    text = NONE if text is None else str(text)
    half = longest // 2
    return text if len(text) <= longest else f"{text[:half]}\n[… {len(text) - 2 * half:,} characters left out …]\n{text[-half:]}"


def _number(value: Any, pattern: str = "{:,}", heat: float | None = None) -> Cell:
    value = finite(value)
    return Cell(NONE) if value is None else Cell(pattern.format(value), value, heat)


def _percent(value: Any, heat: float | None = None) -> Cell:
    return _number(value, "{:.1%}", heat)


def _seconds(value: Any) -> Cell:
    return _number(value, "{:,.1f}")


def _ratio(a: Any, b: Any) -> Cell:
    return _number(a / b if finite(a) is not None and b else None, "{:,.1f}")


def _interval(rate: Any, n: Any) -> str:
    """95 % Wilson interval of a rate over n trials."""
    if finite(rate) is None or not n:
        return NONE
    low, high = wilson(round(rate * n), n)
    return f"{low:.1%} to {high:.1%}"


def _with_interval(rate: Any, n: Any) -> Cell:
    return Cell(f"{rate:.1%} ({_interval(rate, n)})", rate) if finite(rate) is not None and n else _percent(rate)


def _total(run: RunView, key: str) -> float | None:
    """None where no iteration has the figure: not measured is not zero."""
    return run.total(key) if any(line.get(key) is not None for line in run.metrics) else None


def _flops(run: RunView) -> Cell:
    return _number(
        (_total(run, "cost/flops") or None) if run.state.get("parameters") else None, "{:.3g}"
    )  # without the model's size there is no such figure


# --------------------------------------------------------------------------------------- reading what may be broken


def _progress(run: RunView) -> str:
    order, left = run.stages()
    if not run.config or not left:
        return "Finished." if run.config else ""
    return f"{len(order) - len(left)} of {len(order)} stages are done; left: {', '.join(left[:8])}{', …' if len(left) > 8 else ''}."


# --------------------------------------------------------------------------------------- the sections


def _comparison(runs: Sequence[RunView]) -> Table:
    head = "run|strategy|iteration|validation (95 %)|test (95 %)|hard accuracy|hard share|coverage (95 %)|tokens|accepted|FLOPs"
    rows: list[list[Any]] = []
    for run in runs:
        final = run.final()
        n = final.get("iteration", 0)
        tests = list(run.evals.get(n, {}).get("test", {}).values())
        asked = sum(r["n"] for r in tests)
        row: list[Any] = [_name(run), run.strategy, f"{final.get('iteration', NONE)} of {run.config.get('iterations', '?')}"]
        row += [_with_interval(*(accuracy(run, n) or (None, 0)))]
        row += [_with_interval(sum(r["pass@1"] * r["n"] for r in tests) / asked if asked else None, asked)]
        row += [_percent(hard_accuracy(run, n)), _percent(final.get("tail/hard_share"))]
        row += [_with_interval(final.get("tail/coverage"), final.get("sample/queries"))]
        rows.append([*row, _number(_total(run, "sample/tokens")), _number(_total(run, "sample/accepted")), _flops(run)])
    return Table("Runs side by side, each at its last iteration; tokens, accepted rollouts and FLOPs over the whole run", head, rows)


def _name(run: RunView) -> str:
    return run.path.resolve().name


def _run(run: RunView) -> dict[str, Any]:
    """Everything the template needs of one run."""
    missing, counts, labels, teacher, samples = list(run.missing), None, None, None, []
    try:
        ledger = Ledger(run.path / "ledger.sqlite", read_only=True)
        try:
            good = "(correct AND steps_ok IS 1)" if run.config.get("accept") == "steps" else "correct"
            counts = ledger.query("SELECT iteration + 1, status, count(*) FROM rollouts GROUP BY iteration, status")
            labels = ledger.query(f"SELECT guidance, count(*), sum({good}), sum(generated_tokens) FROM rollouts GROUP BY guidance")
            teacher = ledger.query("SELECT count(*), sum(prompt_tokens), sum(generated_tokens) FROM teacher_calls")[0]
            samples = _samples(ledger, good, run.state.get("seed") or 0)
        finally:
            ledger.close()
    except (GsiError, sqlite3.Error) as e:
        missing.append(f"ledger.sqlite: {e}")
    if counts is None:  # the finished iterations are in the metrics too
        counts = [
            (line["iteration"], key[14:], value) for line in run.metrics for key, value in line.items() if key.startswith("sample/status/")
        ]
    drawn = sum(count for _, _, count in counts)
    more = "" if drawn == (_total(run, "sample/rollouts") or 0) else f"; the ledger holds {drawn:,} rollouts so far"
    what = f"{run.strategy} on {run.config.get('model', '?')}"
    return {
        "name": _name(run),
        "sentence": f"{what}: {sentence(run) if run.metrics else 'no iteration has figures yet'}{more}.",
        "progress": _progress(run),
        "missing": missing,
        "facts": {
            "strategy": run.strategy,
            "model": run.config.get("model"),
            "tasks": ", ".join(str(dig(t, "name")) for t in run.config.get("tasks") or []) or NONE,
            "accepted are": {"steps": "right answers with right steps", "answer": "right answers"}.get(str(run.config.get("accept")), NONE),
            "iterations": run.config.get("iterations"),
            "seed": run.state.get("seed"),
            "started": run.state.get("created_at"),
            "forked from": run.state.get("forked_from"),
            "programs": {"True": "run isolated", "False": "run WITHOUT isolation, as the config allows"}.get(
                str(run.state.get("programs_isolated"))
            ),
        },
        "accuracy": [_accuracy(run), _accuracy_by_level(run)],
        "tail": [*_tail(run)],
        "cost": [*_cost(run, counts, teacher)],
        "guidance": [_guidance(labels or [])],
        "samples": samples,
        "command": f"gsi run {shlex.quote(str(run.path / 'config.yaml'))} output_dir=NEW",
        "config": yaml.safe_dump(run.config, sort_keys=False, allow_unicode=True),
        "versions": {key: run.state.get(key) for key in ("gsi", "git_sha", "seed")} | (dig(run.state, "versions") or {}),
    }


def _results(run: RunView) -> Iterable[tuple[int, str, str, dict[str, Any]]]:
    for n, splits in run.evals.items():
        for split, results in splits.items():
            for task, result in sorted(results.items()):
                yield n, split, task, result


def _accuracy(run: RunView) -> Table:
    ks = sorted({k for *_, r in _results(run) for k in r if k.startswith("pass@") and k != "pass@1"}, key=lambda k: (len(k), k))
    rows: list[list[Any]] = []
    for n, split, task, r in _results(run):
        rate = r["pass@1"]
        row = [n, split, task, _number(r["n"]), _percent(rate, rate), _interval(rate, r["n"]), _percent(r.get("mean_over_levels"))]
        rows.append(row + [_percent(r.get(k)) for k in ks])
    note = "Accuracy: greedy decoding. The interval counts questions only; it knows nothing of how another seed would train."
    head = "|".join(["iteration|split|task|questions|accuracy|95 % interval|mean over levels", *ks])
    return Table("Accuracy by iteration and task", head, rows, note)


def _accuracy_by_level(run: RunView) -> Table:
    levels = sorted({int(level) for *_, r in _results(run) for level in r["levels"]})
    rows: list[list[Any]] = []
    for n, split, task, r in _results(run):
        found = [r["levels"].get(str(level)) for level in levels]
        cells = [Cell(f"{c['right']}/{c['n']}", c["right"] / c["n"], c["right"] / c["n"]) if c else Cell(NONE) for c in found]
        rows += [[n, split, task, *cells]] if r["levels"] else []
    return Table("Accuracy by level: right of asked", "iteration|split|task" + _level_head(levels), rows)


def _level_head(levels: Iterable[int]) -> str:
    return "".join(f"|level {x}" for x in levels)


def _by_level(name: str, line: dict[str, Any]) -> dict[int, float]:
    prefix = f"tail/{name}/level_"
    return {int(key[len(prefix) :]): value for key, value in line.items() if key.startswith(prefix) and value is not None}


def _tail(run: RunView) -> Iterable[Table]:
    trained = [line for line in run.metrics if _by_level("query_share", line)]
    share_N = [_by_level("share", line) for line in trained]
    queries = _by_level("query_share", trained[-1]) if trained else {}
    levels = sorted(set(queries).union(*share_N))
    top = max((x for shares in (queries, *share_N) for x in shares.values()), default=0) or 1
    asked = next((line["sample/queries"] for line in reversed(run.metrics) if line.get("sample/queries")), None)

    def cells(shares: dict[int, float]) -> list[Cell]:  # a level without a row has no key: its share is 0
        return [_percent(shares.get(x, 0.0), shares.get(x, 0.0) / top) for x in levels]

    rows: list[list[Any]] = (
        [["the queries", *cells(queries), _percent(trained[-1].get("tail/query_hard_share")), _number(asked), Cell(NONE)]]
        if trained
        else []
    )
    for line, shares in zip(trained, share_N, strict=True):
        last = (_percent(line.get("tail/hard_share")), _number(line.get("train/rows")))
        rows.append([f"iteration {line['iteration']}", *cells(shares), *last, _number(line.get("tail/effective_queries"), "{:,.1f}")])
    note = "Where the high levels have less than the queries' own share, the tail narrows. "
    note += "Effective queries: how many equally frequent queries the rows are worth."
    head = f"training set{_level_head(levels)}|hard|rows|effective queries"
    yield Table("Share of the training set by level, beside the queries' own", head, rows, note)

    levels = sorted({x for line in run.metrics for x in _by_level("coverage", line)})
    rows = []
    for line in run.metrics:
        coverage = _by_level("coverage", line)
        row = [_percent(coverage.get(x), coverage.get(x)) for x in levels]
        row += [_percent(line.get("tail/hard_coverage")), _percent(line.get("tail/coverage"))]
        rows.append([f"iteration {line['iteration']}", *row])
    yield Table("Coverage: training queries with an accepted rollout, by level", f"{_level_head(levels)}|hard|all", _filled(rows))


def _filled(rows: list[list[Any]]) -> list[list[Any]]:
    """Without the rows that have no figure (iteration 0 samples nothing)."""
    return [row for row in rows if any(cell.value is not None for cell in row[1:])]


def _cost(run: RunView, counts: Sequence[tuple[int, str, int]], teacher: tuple[Any, ...] | None) -> Iterable[Table]:
    keys = [*(f"sample/{x}" for x in ("rollouts", "accepted", "tokens", "prompt_tokens", "given_tokens")), "train/tokens"]
    known = bool(run.state.get("parameters"))
    rows: list[list[Any]] = []
    for line in run.metrics:
        flops = _number((line.get("cost/flops") or None) if known else None, "{:.3g}")
        figures = [_number(line.get(key), "{:,.0f}") for key in keys]
        rows.append([f"iteration {line['iteration']}", *figures, _ratio(line.get("sample/tokens"), line.get("sample/accepted")), flops])
    if rows := _filled(rows):
        sums = [_total(run, key) for key in keys]
        rows.append(["whole run", *(_number(x, "{:,.0f}") for x in sums), _ratio(sums[2], sums[1]), _flops(run)])
    note = f"FLOPs of sampling and training{'' if known else ': not known, the engine names no model size'}. "
    note += f"Apart from this, evaluation generated {sum(r.get('tokens') or 0 for *_, r in _results(run)):,} tokens"
    note += (
        f"; a teacher was asked {teacher[0]:,} times ({teacher[1]:,} tokens read, {teacher[2]:,} written)" if teacher and teacher[0] else ""
    )
    head = "|rollouts|accepted|tokens|prompt tokens|given tokens|trained tokens|tokens per accepted rollout|FLOPs"
    yield Table("Tokens and FLOPs by iteration", head, rows, note + ".")

    kinds = {m[1] for line in run.metrics for key in line if (m := re.fullmatch(r"sample/(.+)/rollouts", key))}
    rows = []
    for kind in sorted(kinds, key=lambda k: (k != "plain", k)):
        drawn, accepted, tokens = (_total(run, f"sample/{kind}/{what}") for what in ("rollouts", "accepted", "tokens"))
        rows.append([kind, _number(drawn), _number(accepted), _number(tokens), _ratio(tokens, accepted)])
    yield Table("Tokens per accepted rollout by kind of guidance", "guidance|rollouts|accepted|tokens|tokens per accepted rollout", rows)

    table: dict[int, Counter[str]] = defaultdict(Counter)
    for n, status, count in counts:
        table[n][status] += count
    statuses = [*STATUSES, *sorted({s for c in table.values() for s in c} - set(STATUSES))]
    rows = [[f"iteration {n}", *(_number(c[s]) for s in statuses)] for n, c in sorted(table.items())]
    yield Table("Rollouts by status, the iteration at work included", "|".join(["", *statuses]), rows)

    prefix = "train/dropped/"
    curated = [line for line in run.metrics if line.get("train/rows") is not None]
    reasons = sorted({key[len(prefix) :] for line in curated for key in line if key.startswith(prefix)})
    rows = [[f"iteration {x['iteration']}", _number(x["train/rows"]), *(_number(x.get(prefix + r) or 0) for r in reasons)] for x in curated]
    note = "" if reasons or not rows else "None was dropped."
    yield Table("Training rows, and accepted rollouts dropped by reason", "|".join(["", "rows", *reasons]), rows, note)

    rows = [[f"iteration {x['iteration']}", *(_seconds(x.get(f"time/{s}")) for s in STAGES)] for x in run.metrics]
    yield Table("Seconds by stage", "|".join(["", *STAGES]), _filled(rows))
    clock = {phase: s for phase, s in (run.state.get("clock") or {}).items() if finite(s) is not None}
    wall = clock.get("wall")
    order = sorted(clock, key=lambda phase: (phase == "wall", phase))
    rows = [[phase.replace("_", " "), _seconds(clock[phase]), _percent(clock[phase] / wall if wall else None)] for phase in order]
    yield Table("Seconds by phase, over every process of this run that has ended", "phase|seconds|share of wall", rows)


def _guidance(labels: Sequence[tuple[Any, ...]]) -> Table:
    """Success by label of the column `guidance`; sizes that are a fraction are put together in fifths."""
    groups: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0, 0])
    for label, *counts in labels:
        kind, _, size = ("plain:options in other orders" if str(label).startswith(SHUFFLE) else label or "plain").partition(":")
        if re.fullmatch(r"0?\.\d{1,6}|1\.0*", size):
            fifth = min(4, int(float(size) * 5 + 1e-9))
            size = f"{fifth / 5:.1f} to {(fifth + 1) / 5:.1f}"
        groups[kind, size or NONE] = [a + (b or 0) for a, b in zip(groups[kind, size or NONE], counts, strict=True)]
    rows: list[list[Any]] = []
    for (kind, size), (n, good, tokens) in sorted(groups.items(), key=lambda g: (g[0][0] != "plain", g[0])):
        row = [_cut(kind, 80), _cut(size, 80), _number(n), _number(good), _percent(good / n, good / n), _interval(good / n, n)]
        rows.append([*row, _ratio(tokens, good)])
    note = "Guided rollouts mostly go to questions that plain ones failed, so the two rates are no comparison of like with like."
    note = note * (len(rows) > 1) + f" {len(rows) - 100} more labels are left out." * (len(rows) > 100)
    head = "kind|size|rollouts|accepted|success|95 % interval|tokens per accepted rollout"
    return Table("Success by guidance, the whole run", head, rows[:100], note)


# --------------------------------------------------------------------------------------- rollouts to read


_READ = ("query_id", "task", "level", "iteration", "attempt", "guidance", "prompt", "given", "response", "prompt_tokens", "given_tokens",
         "generated_tokens", "finish_reason", "seed", "model", "status", "extracted", "detail")  # fmt: skip


def _samples(ledger: Ledger, good: str, seed: int) -> list[dict[str, Any]]:
    """Up to SAMPLES rollouts, in turn from every stratum: accepted or not, third of the levels, plain or guided.

    Chosen by a hash of what a rollout is (query, iteration, attempt), so the choice does not depend on the order in the file.
    """
    found = ledger.query(f"SELECT rowid, query_id, iteration, attempt, level, {PLAIN}, {good} FROM rollouts")
    levels = sorted({row[4] for row in found if row[4] is not None})
    third = {None: 0} | {level: 3 * i // len(levels) for i, level in enumerate(levels)}
    strata: dict[tuple[int, int, int], list[tuple[int, int]]] = defaultdict(list)
    for rowid, query, iteration, attempt, level, plain, accepted in found:
        strata[accepted, third[level], plain].append((seed_of(seed, "report", query, iteration, attempt), rowid))
    queues = [(key[0], nsmallest(SAMPLES, strata[key])) for key in sorted(strata)]
    turns = [(accepted, queue[i][1]) for i in range(SAMPLES) for accepted, queue in queues if i < len(queue)][:SAMPLES]
    read = f"SELECT {', '.join(_READ)} FROM rollouts WHERE rowid = ?"
    samples = [_sample(bool(accepted), **dict(zip(_READ, ledger.query(read, (rowid,))[0], strict=True))) for accepted, rowid in turns]
    return sorted(samples, key=lambda s: s["order"])


def _sample(accepted: bool, prompt: str, given: str, response: str, level: int | None, iteration: int, **r: Any) -> dict[str, Any]:
    apart = response.startswith(given)
    return {
        "order": (not accepted, -1 if level is None else level, r["query_id"], iteration, r["attempt"]),
        "accepted": accepted,
        "title": f"{_cut(r['task'], 80)}, {'no level' if level is None else f'level {level}'}, {_cut(r['guidance'] or 'plain', 80)}",
        "status": _cut(r["status"], 80),
        "prompt": _cut(prompt),
        "given": _cut(given) if apart and given else "",
        "generated": _cut(response[len(given) :] if apart else response),
        "facts": {
            "extracted answer": _cut(r["extracted"], 400),
            "detail": _cut(r["detail"] or None, 400),
            "query": _cut(r["query_id"], 400),
            "iteration, attempt": f"{iteration + 1} (drawn by the iter_{iteration} model), {r['attempt']}",
            "model": _cut(r["model"], 400),
            "seed": str(r["seed"]),
            "tokens": f"{r['prompt_tokens']:,} prompt, {r['given_tokens']:,} given, {r['generated_tokens']:,} generated",
            "ended by": _cut(r["finish_reason"], 80),
            "given": None if apart else "the response does not begin with it",
        },
    }
