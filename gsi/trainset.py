"""The stage that makes a training set: from the ledger to iter_N/train.parquet and dropped.parquet."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq

from gsi import controls, distinct, gate, given, mixing, parquet, reliance
from gsi.context import Context
from gsi.curate import Curated, Dropped, curate_each, reference_examples, short_enough, together
from gsi.guidance.state_reset import StateReset
from gsi.seeds import seed_of
from gsi.strategies import STRATEGIES
from gsi.types import Example, GsiError, NothingAccepted, Query, Rollout

BATCH = 1024  # rows whose given tokens are measured in one call


def curate_rows(ctx: Context, n: int) -> None:
    """Writes iter_n/train.parquet and dropped.parquet, query by query. Raises NothingAccepted when there is nothing to train on."""
    c, started = ctx.config, time.perf_counter()
    queries = {q.id: q for q in ctx.data.train}
    reliance.score(ctx, n)  # nothing to do where sampling has done it
    figures = Counter[str]()
    parts = _other_rows(Path(c.curate.rows_of), queries, c.train.max_length) if c.curate.rows_of else _chosen(ctx, n, queries, figures)
    parts = itertools.chain(parts, _references(ctx, n))
    if c.curate.match or c.curate.tokens or c.train.replay:
        parts = iter([_as_a_whole(ctx, n, together(parts))])
    kept, reasons = write_rows(ctx, n, parts)
    if not kept:
        raise NothingAccepted(_nothing_accepted(ctx, n, reasons))
    if not ctx.folder.done(n, "train"):  # else these are the rows that were trained on, chosen again after a repair
        for name in ("perplexity.json", "monitor.json"):  # of the rows before
            (ctx.folder.iter(n) / name).unlink(missing_ok=True)
    ctx.folder.mark(n, "curate", seconds=time.perf_counter() - started, rows=kept, dropped=reasons.total(), **figures)


def _chosen(ctx: Context, n: int, queries: Mapping[str, Query], figures: Counter[str]) -> Iterator[Curated]:
    """What the filters choose of the attempts that iteration n may train on, a query or a few at a time. `figures` gets what that cost."""
    c = ctx.config
    ledger = ctx.folder.ledger
    rolled_back = [m - 1 for m in range(1, n) if "rolled_back_to" in ctx.folder.info(m, "train")]
    parts = curate_each(
        ledger.rows(n - 1) if c.train.data == "replace" else ledger.before(n, rolled_back),
        queries,
        ctx.renderer,
        accept=c.accept,
        control=c.control,
        cap=c.curate.cap,
        floor=c.curate.floor,
        distinct=distinct.measure(c.curate.distinct),
        judge=_judge(ctx, queries),
        among=None if c.curate.verdicts else lambda rows: controls.whatever_verdict(rows, c.accept, c.seed),
        max_length=c.train.max_length,
        on_given=c.train.on_given is True,
        stop_ids=frozenset(ctx.folder.state.get("stop_ids", ())),
        seed=c.seed,
    )
    return _uncertain_given(ctx, n, parts, queries, figures) if c.train.on_given == "entropy" else parts


def _judge(ctx: Context, queries: Mapping[str, Query]) -> Callable[[list[Rollout], list[Rollout]], gate.Judgement] | None:
    """What the gate says of the attempts at one query; None = the settings want nothing judged."""
    c = ctx.config.curate
    gated = c.gate.reliance != "none" or bool(c.gate.leaks)
    if not gated and not c.upweight:
        return None

    def judge(rows: list[Rollout], passed: list[Rollout]) -> gate.Judgement:
        scores = ctx.folder.ledger.scores(rows[0].query_id) if c.scored else {}
        found = gate.Judgement()
        if gated:
            found = gate.judge((r for r in passed if r.guided and r.accepted(ctx.config.accept)), queries, scores, c.gate)
        if c.upweight:
            weights = gate.upweight(rows, scores, c.upweight, ctx.config.accept)
            found.weights = {key: weights.get(key, 1.0) * found.weights.get(key, 1.0) for key in weights.keys() | found.weights.keys()}
        return found

    return judge


def _uncertain_given(
    ctx: Context, n: int, parts: Iterable[Curated], queries: Mapping[str, Query], figures: Counter[str]
) -> Iterator[Curated]:
    """The rows with the most uncertain of their given tokens trained, measured by the model that drew the last samples; and what that cost."""
    measure = ctx.engine(n - 1).entropies  # type: ignore[attr-defined]
    for some in _batches(parts):
        examples, read = given.unmask(
            some.examples, lambda query_id: len(ctx.renderer.prompt(queries[query_id]).ids or ()), ctx.config.train.given_share, measure
        )
        figures["figure/given/scored_tokens"] += read
        yield Curated(examples, some.dropped)


def _batches(parts: Iterable[Curated]) -> Iterator[Curated]:
    """The same rows in larger parts."""
    examples: list[Example] = []
    dropped: list[Dropped] = []
    for part in parts:
        examples += part.examples
        dropped += part.dropped
        if len(examples) >= BATCH:
            yield Curated(examples, dropped)
            examples, dropped = [], []
    yield Curated(examples, dropped)


def _references(ctx: Context, n: int) -> Iterator[Curated]:
    """What a control arm takes from the references (`curate.references`), after its other rows."""
    c, kind = ctx.config, ctx.config.curate.references
    if kind in (None, "none"):
        return
    queries = ctx.data.train
    if kind != "all":
        queries = controls.under_quota(ctx.folder.ledger.rows(n - 1), queries, c.sample.wanted, c.accept)
    guidance = StateReset(ctx.renderer, c.guidance.mode)
    for query in queries:
        if kind == "prefixes":
            yield short_enough(controls.openings([query], guidance, ctx.renderer, STRATEGIES["state_reset"].max_extra), c.train.max_length)
        else:
            yield reference_examples([query], ctx.renderer, "reference", c.train.max_length)


def _other_rows(run: Path, queries: Mapping[str, Query], max_length: int) -> Iterator[Curated]:
    """The last training rows of another run, with its name as their source."""
    found = sorted(run.glob("iter_*/train.parquet"), key=lambda p: int(p.parent.name[5:]))
    if not found:
        raise GsiError(f"curate.rows_of: {run} holds no iter_N/train.parquet; name the folder of a run that has trained")
    for rows in parquet.stream(found[-1]):
        if strange := next((r.query_id for r in rows if r.query_id not in queries), None):
            raise GsiError(f"curate.rows_of: {found[-1]} has the query {strange!r}, which this run does not have; both need the same tasks")
        yield short_enough((replace(row, source=row.source or run.name) for row in rows), max_length)


def _as_a_whole(ctx: Context, n: int, result: Curated) -> Curated:
    """What looks at all rows together, which are in memory for it: control arms matched to another run, a bound on tokens, replay."""
    c = ctx.config
    result = _match(ctx, n, result)
    if c.curate.tokens:
        result = Curated(controls.up_to_tokens(result.examples, c.curate.tokens, c.seed), result.dropped)
    return replace(result, examples=result.examples + mixing.replay(ctx.folder, n, result.examples, c.train.replay, c.seed))


def _match(ctx: Context, n: int, result: Curated) -> Curated:
    """Brings a control arm's rows to those of the run it is matched to (`curate.match`, `curate.like`)."""
    c = ctx.config
    if not c.curate.match:
        return result
    path = Path(c.curate.like or "") / f"iter_{n}" / "train.parquet"
    if not path.exists():
        raise GsiError(f"curate.like: {path} does not exist; run {c.curate.like} up to iteration {n} first")
    ids = pq.read_table(path, columns=["query_id"])["query_id"].to_pylist()
    levels = {q.id: q.level for q in ctx.data.train}
    if strange := next((i for i in ids if i not in levels), None):
        raise GsiError(
            f"curate.like: {path} has the query {strange!r}, which this run does not train on; both need the same tasks, seed and split"
        )
    if c.curate.match == "rows":
        if len(result.examples) < len(ids):
            ctx.reporter.say(
                f"iteration {n}: curate.match: {len(result.examples)} rows where {c.curate.like} has {len(ids)}; all are taken, the number is not matched"
            )
        return Curated(controls.match_rows(result.examples, len(ids), c.seed), result.dropped)
    return Curated(controls.match_levels(result.examples, Counter(levels[i] for i in ids), levels.__getitem__, c.seed), result.dropped)


def _nothing_accepted(ctx: Context, n: int, dropped: Counter[str]) -> str:
    counts = Counter(dict(ctx.folder.ledger.query("SELECT status, count(*) FROM rollouts WHERE iteration = ? GROUP BY status", (n - 1,))))
    seen = ", ".join(f"{count} {status}" for status, count in counts.most_common())
    why = f"; of the correct ones dropped: {', '.join(f'{c} {r}' for r, c in dropped.items())}" if dropped else ""
    fixes = ["a stronger model or a warm start (`warm_start: {}` trains on the reference rationales first)"]
    if counts["no_answer"] > 0.5 * counts.total():
        fixes.append("a prompt that makes the model end with `The answer is ...` (prompt.instruction): most responses commit to no answer")
    if counts["truncated"] > 0.2 * counts.total():
        fixes.append(f"a larger sample.max_new_tokens (now {ctx.config.sample.max_new_tokens}) or sample.stop: many responses were cut off")
    if ctx.config.accept == "steps":
        fixes.append("accept: answer")
    if ctx.config.guidance.kind == "none":
        fixes.append("a guided strategy such as state_reset, which needs references, or answer_driven")
    return (
        f"iteration {n}: no rollout was accepted, so there is nothing to train on ({counts.total()} rollouts: {seen}{why}).\n"
        "Everything drawn is kept in the ledger. What may help: " + "; ".join(fixes) + "."
    )


def write_rows(ctx: Context, n: int, parts: Iterable[Curated]) -> tuple[int, Counter[str]]:
    """train.parquet and dropped.parquet as the rows come, and with early stopping those of held-out queries in validation.parquet.

    Returns the number of rows, and of dropped ones by reason. Without any row nothing is written.
    """
    folder, stopping, reasons = ctx.folder.iter(n), ctx.config.train.early_stopping, Counter[str]()
    folder.mkdir(exist_ok=True)
    asked: dict[str, None] = {}  # queries with rows
    whole = folder / ("chosen.parquet" if stopping else "train.parquet")
    with parquet.Writer(whole) as rows, parquet.Writer(folder / "dropped.parquet", reasons=True) as others:
        for part in parts:
            rows.add(part.examples)
            others.add([d.example for d in part.dropped], [d.reason for d in part.dropped])
            reasons.update(d.reason for d in part.dropped)
            if stopping:
                asked.update(dict.fromkeys(e.query_id for e in part.examples))
        if rows.count:
            (folder / "validation.parquet").unlink(missing_ok=True)
            rows.finish()
            others.finish()
    if rows.count and stopping:
        _hold_out(ctx, n, whole, mixing.hold_out(asked, stopping.share, seed_of(ctx.config.seed, "early_stopping", n)))
    return rows.count, reasons


def _hold_out(ctx: Context, n: int, whole: Path, held: set[str]) -> None:
    """Cuts the chosen rows into those that are trained on and those of held-out queries."""
    if not held:
        ctx.reporter.say(f"iteration {n}: rows of a single query, so none is held out and training does not stop early")
        whole.replace(whole.with_name("train.parquet"))
        return
    with parquet.Writer(whole.with_name("train.parquet")) as rows, parquet.Writer(whole.with_name("validation.parquet")) as others:
        for part in parquet.stream(whole):
            rows.add([e for e in part if e.query_id not in held])
            others.add([e for e in part if e.query_id in held])
        others.finish()
        rows.finish()
    whole.unlink()
