"""The stage that makes a training set: from the ledger to iter_N/train.parquet and dropped.parquet."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq

from gsi import controls, distinct, gate, given, mixing, parquet, reliance
from gsi.config import Config
from gsi.context import Context
from gsi.curate import Curated, curate_each, reference_examples, together
from gsi.guidance.state_reset import StateReset
from gsi.seeds import seed_of
from gsi.strategies import STRATEGIES
from gsi.types import Example, GsiError, NothingAccepted, Query, Rollout


def curate_rows(ctx: Context, n: int) -> None:
    """Writes iter_n/train.parquet and dropped.parquet. Raises NothingAccepted when there is nothing to train on."""
    c, started = ctx.config, time.perf_counter()
    queries = {q.id: q for q in ctx.data.train}
    reliance.score(ctx, n)  # nothing to do where sampling has done it
    rows: Iterable[Rollout] = _drawn(ctx, n)
    judged = _judged(ctx, n, queries)
    if not c.curate.verdicts:
        rows = sorted(controls.whatever_verdict(rows, c.accept, c.seed), key=lambda r: (r.query_id, r.iteration, r.attempt))
    chosen = curate_each(
        rows,
        queries,
        ctx.renderer,
        accept=c.accept,
        control=c.control,
        cap=c.curate.cap,
        floor=c.curate.floor,
        distinct=distinct.SAME["text" if c.curate.distinct is True else c.curate.distinct] if c.curate.distinct else None,
        reject=judged.reject,
        weigh=judged.weigh,
        max_length=c.train.max_length,
        on_given=c.train.on_given is True,
        stop_ids=frozenset(ctx.folder.state.get("stop_ids", ())),
        seed=c.seed,
    )
    figures: dict[str, float] = {}
    if _needs_all(c):
        result = together(chosen)
        result, figures = _as_a_whole(ctx, n, result, queries)
        if not result.examples:
            raise NothingAccepted(_nothing_accepted(ctx, n, Counter(d.reason for d in result.dropped)))
        result = replace(result, examples=result.examples + mixing.replay(ctx.folder, n, result.examples, c.train.replay, c.seed))
        write_rows(ctx, n, result)
        kept, dropped = len(result.examples), len(result.dropped)
    else:
        kept, reasons = _stream(ctx, n, chosen)
        dropped = reasons.total()
        if not kept:
            raise NothingAccepted(_nothing_accepted(ctx, n, reasons))
    if not ctx.folder.done(n, "train"):  # else these are the rows that were trained on, chosen again after a repair
        for name in ("perplexity.json", "monitor.json"):  # of the rows before
            (ctx.folder.iter(n) / name).unlink(missing_ok=True)
    ctx.folder.mark(n, "curate", seconds=time.perf_counter() - started, rows=kept, dropped=dropped, **figures)


def _needs_all(c: Config) -> bool:
    """Whether a later choice looks at all rows of the iteration together; else they go to disk query by query."""
    return bool(
        c.train.on_given == "entropy" or c.curate.rows_of or c.curate.references not in (None, "none") or c.curate.match or c.curate.tokens
        or c.train.replay or c.train.early_stopping
    )  # fmt: skip


def _stream(ctx: Context, n: int, chosen: Iterable[Curated]) -> tuple[int, Counter[str]]:
    """Writes the rows as they are chosen; how many, and how many were dropped by reason. Without any row nothing is written."""
    folder, reasons = ctx.folder.iter(n), Counter[str]()
    folder.mkdir(exist_ok=True)
    with parquet.Writer(folder / "train.parquet") as rows, parquet.Writer(folder / "dropped.parquet", reasons=True) as others:
        for part in chosen:
            rows.add(part.examples)
            others.add([d.example for d in part.dropped], [d.reason for d in part.dropped])
            reasons.update(d.reason for d in part.dropped)
        if rows.count:
            (folder / "validation.parquet").unlink(missing_ok=True)
            rows.finish()
            others.finish()
    return rows.count, reasons


def _as_a_whole(ctx: Context, n: int, result: Curated, queries: Mapping[str, Query]) -> tuple[Curated, dict[str, float]]:
    """What looks at all rows together: uncertain given tokens, control arms, a bound on tokens."""
    c, figures = ctx.config, dict[str, float]()
    if c.train.on_given == "entropy":
        result, figures = _uncertain_given(ctx, n, result)
    if c.curate.rows_of:
        result = Curated(_rows_of(Path(c.curate.rows_of), queries), [])
    result = _match(ctx, n, _references(ctx, n, result))
    if c.curate.tokens:
        result = Curated(controls.up_to_tokens(result.examples, c.curate.tokens, c.seed), result.dropped)
    return result, figures


def _uncertain_given(ctx: Context, n: int, result: Curated) -> tuple[Curated, dict[str, float]]:
    """The rows with the most uncertain of their given tokens trained, measured by the model that drew the last samples; and what that cost."""
    queries = {q.id: q for q in ctx.data.train}
    measure = ctx.engine(n - 1).entropies  # type: ignore[attr-defined]
    examples, read = given.unmask(
        result.examples, lambda query_id: len(ctx.renderer.prompt(queries[query_id]).ids or ()), ctx.config.train.given_share, measure
    )
    return replace(result, examples=examples), {"figure/given/scored_tokens": float(read)}


def _drawn(ctx: Context, n: int) -> Iterator[Rollout]:
    """The attempts that iteration n chooses from, streamed, those of a query together."""
    return ctx.folder.ledger.rows(n - 1) if ctx.config.train.data == "replace" else ctx.folder.ledger.before(n)


def _judged(ctx: Context, n: int, queries: Mapping[str, Query]) -> gate.Judgement:
    """What the gate says of iteration n's attempts; streams them once more, and only where something is to be judged."""
    c = ctx.config.curate
    scores = ctx.folder.ledger.scores() if reliance.wanted(ctx.config) else {}
    found = gate.Judgement()
    if c.gate.reliance != "none" or c.gate.leaks:
        found = gate.judge((r for r in _drawn(ctx, n) if r.guided and r.accepted(ctx.config.accept)), queries, scores, c.gate)
    if c.upweight:
        weights = gate.upweight(_drawn(ctx, n), scores, c.upweight, ctx.config.accept)
        found.weights = {key: weights.get(key, 1.0) * found.weights.get(key, 1.0) for key in weights.keys() | found.weights.keys()}
    return found


def _references(ctx: Context, n: int, result: Curated) -> Curated:
    """Adds what a control arm takes from the references (`curate.references`)."""
    c, kind = ctx.config, ctx.config.curate.references
    if kind in (None, "none"):
        return result
    queries = ctx.data.train
    if kind != "all":
        queries = controls.under_quota(ctx.folder.ledger.rows(n - 1), queries, c.sample.wanted, c.accept)
    if kind == "prefixes":
        guidance = StateReset(ctx.renderer, c.guidance.mode)
        return Curated(
            result.examples + controls.openings(queries, guidance, ctx.renderer, STRATEGIES["state_reset"].max_extra), result.dropped
        )
    added = reference_examples(queries, ctx.renderer, "reference", c.train.max_length)
    return Curated(result.examples + added.examples, result.dropped + added.dropped)


def _rows_of(run: Path, queries: Mapping[str, Query]) -> list[Example]:
    """The last training rows of another run, with its name as their source."""
    found = sorted(run.glob("iter_*/train.parquet"), key=lambda p: int(p.parent.name[5:]))
    if not found:
        raise GsiError(f"curate.rows_of: {run} holds no iter_N/train.parquet; name the folder of a run that has trained")
    rows = [replace(row, source=row.source or run.name) for row in parquet.read(found[-1])]
    if strange := next((r.query_id for r in rows if r.query_id not in queries), None):
        raise GsiError(f"curate.rows_of: {found[-1]} has the query {strange!r}, which this run does not have; both need the same tasks")
    return rows


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


def write_rows(ctx: Context, n: int, result: Curated) -> None:
    """train.parquet and dropped.parquet, and with early stopping the rows of held-out queries in validation.parquet."""
    folder, stopping = ctx.folder.iter(n), ctx.config.train.early_stopping
    (folder / "validation.parquet").unlink(missing_ok=True)
    if stopping:
        kept, held = mixing.hold_out(result.examples, stopping.share, seed_of(ctx.config.seed, "early_stopping", n))
        if held:
            folder.mkdir(exist_ok=True)
            parquet.write(folder / "validation.parquet", held)
            result = replace(result, examples=kept)
        else:
            ctx.reporter.say(f"iteration {n}: rows of a single query, so none is held out and training does not stop early")
    folder.mkdir(exist_ok=True)
    parquet.write(folder / "train.parquet", result.examples)
    parquet.write(folder / "dropped.parquet", [d.example for d in result.dropped], [d.reason for d in result.dropped])
