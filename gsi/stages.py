"""The stages of one iteration. Each reads and writes the run folder only, and can be redone alone."""

from __future__ import annotations

import functools
import json
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gsi import advice, build, metrics, mixing, reliance, tracker, trainset
from gsi.allocation import Bayes, Fixed
from gsi.allocation import build as build_allocation
from gsi.config import Config
from gsi.context import Context, draw
from gsi.curate import Dropped, reference_examples
from gsi.files import json_line, read_json, write_text
from gsi.ledger import Ledger
from gsi.metrics_file import write_metrics
from gsi.queries import warm_start_queries
from gsi.recording import RecordingTeacher
from gsi.runfolder.folder import RunFolder
from gsi.seeds import seed_of
from gsi.types import GsiError, NothingAccepted, Query, Sampling, TrainJob


def sample(ctx: Context, n: int) -> None:
    """Draws with the iter_{n-1} model until every training query has what its allocation wants."""
    c, started = ctx.config, time.perf_counter()
    itself = build.make_self_teacher(c, ctx.renderer, ctx.folder.state["models"].get(str(n - 1), ""))
    asked = ctx.teacher or itself
    teacher = RecordingTeacher(asked, ctx.folder.ledger) if asked else None
    past = functools.cache(lambda: ctx.folder.ledger.past(n - 1, c.accept))
    s = Sampling(c.sample.temperature, c.sample.top_p, c.sample.max_new_tokens, c.sample.stop, c.sample.repetition_stop)
    allocation = build_allocation(c, past, ctx.data.train, n - 1)
    if isinstance(allocation, Bayes):
        ctx.folder.iter(n).mkdir(exist_ok=True)
        write_text(ctx.folder.iter(n) / "allocation.json", json.dumps(allocation.record(ctx.data.train), indent=1))
    stats, spent = draw(
        ctx,
        n - 1,
        f"iteration {n}: sample ({c.strategy})",
        ctx.data.train,
        allocation=allocation,
        guidance=build.make_guidance(
            c, ctx.renderer, teacher, ctx.data.train, past, lambda query_id: ctx.folder.ledger.earlier(query_id, n - 1)
        ),
        sampling=lambda attempt: s,
        strategy=c.strategy,
        shuffle=[t.name for t in c.tasks if t.shuffle_options],
        hint_workers=build.SELF_WORKERS if itself else c.teacher.concurrency if c.teacher and teacher else 0,
        itself=itself,
    )
    reliance.score(ctx, n)
    if stats.resumed:
        ctx.reporter.say(f"iteration {n}: {stats.resumed} rollouts were already in the ledger, {stats.rollouts} drawn now")
    figures: dict[str, float] = {f"engine/{k}": v for k, v in spent.items()}
    if stats.all_tokens:
        figures["sample/waste"] = stats.wasted / stats.all_tokens
    if spent.get("seconds") and "idle_seconds" in spent:
        figures["engine/busy_share"] = 1 - spent["idle_seconds"] / spent["seconds"]
    for line in advice.spent_lines(metrics.spent(ctx.folder.ledger, n - 1, c.accept), spent):
        ctx.reporter.say(f"iteration {n}: {line}")
    for warning in advice.after_sampling(ctx.folder.ledger, n - 1, c):
        ctx.reporter.say(f"iteration {n}: {warning}")
    marks = {f"figure/{k}": v for k, v in figures.items()}
    ctx.folder.mark(n, "sample", **{"seconds": time.perf_counter() - started, "rollouts": stats.rollouts, "resumed": stats.resumed} | marks)


def evaluate(ctx: Context, n: int) -> None:
    """The iter_n model on the validation split; on a stage of its own, so that no test set steers the loop."""
    started = time.perf_counter()
    (ctx.folder.iter(n) / "eval.json").unlink(missing_ok=True)  # of a stage that was begun, or forgotten
    _evaluate(ctx, n, "validation", ctx.data.validation)
    if ctx.config.evaluate.trajectory:
        _evaluate(ctx, n, "test", ctx.data.test)
    ctx.folder.mark(n, "evaluate", seconds=time.perf_counter() - started)


def test(ctx: Context) -> None:
    """The final and the chosen iteration on the test sets, and the model the run began with beside them.

    Chosen = best on validation, never on test.
    """
    chosen, final = choose(ctx), ctx.config.iterations
    for n in sorted({0, chosen, final}):
        try:
            ctx.folder.model(n)
        except GsiError:
            if n != chosen:
                continue
            ctx.reporter.say(
                f"iter_{n} was best on validation, but its model is not kept (keep_models: {ctx.config.keep_models}); only the final one is tested"
            )
            continue
        ctx.folder.unseal(n, "evaluate")
        _evaluate(ctx, n, "test", ctx.data.test)
        ctx.folder.seal(n, "evaluate")
    rows = {str(n): ctx.folder.ledger.count(n, "test") for n in range(final + 1)}
    ctx.folder.state["stages"]["test"] = {"state": "done", "final": final, "chosen": chosen, "ledger_rows": rows}
    ctx.folder.save()


def _evaluate(ctx: Context, n: int, split: str, queries: Sequence[Query]) -> None:
    c = ctx.config
    if queries:
        draws, mean = max(c.evaluate.pass_at_k, default=1), c.evaluate.avg_at_k
        limit = c.evaluate.max_new_tokens or c.sample.max_new_tokens
        greedy = Sampling(0.0, 1.0, limit, c.sample.stop, c.sample.repetition_stop)
        sampled = Sampling(c.sample.temperature or 0.7, c.sample.top_p, limit, c.sample.stop, c.sample.repetition_stop)
        draw(
            ctx,
            n,
            f"iteration {n}: evaluate ({split})",
            queries,
            allocation=Fixed(max(mean, draws) if mean else 1 + draws if draws > 1 else 1),
            guidance=None,
            sampling=lambda attempt: greedy if attempt == 0 and not mean else sampled,
            strategy="evaluate",
            split=split,
        )
    path = ctx.folder.iter(n) / "eval.json"
    results = read_json(path) if path.exists() else {"iteration": n, "model": ctx.folder.state["models"][str(n)]}
    results[split] = results_of(ctx.folder.ledger, c, n, split, _overlap(ctx))
    path.parent.mkdir(exist_ok=True)
    write_text(path, json.dumps(results, indent=1))


def _overlap(ctx: Context) -> Counter[tuple[str, str]]:
    """Test questions that are also training questions, by task and how that was found."""
    return Counter((o.query.task, o.kind) for o in ctx.data.overlap)


def overlap_figures(c: Config, found: Counter[tuple[str, str]], task: str) -> dict[str, int]:
    """How many test questions of a task are also training questions, by how it was found, and how many were left out for it."""
    exact, ngram = found[task, "exact"], found[task, "ngram"]
    return {"overlap/exact": exact, "overlap/ngram": ngram, "overlap/left_out": exact + ngram if c.evaluate.overlap == "leave_out" else 0}


def report_overlap(ctx: Context) -> None:
    """Says what was found and writes overlap.jsonl, one line per test question: its id, the training question's, the measure, the share."""
    found = _overlap(ctx)
    for task in sorted({task for task, _ in found}):
        f = overlap_figures(ctx.config, found, task)
        what = "left out of the evaluation" if f["overlap/left_out"] else "kept (evaluate.overlap: count)"
        ctx.reporter.say(
            f"test set {task}: {f['overlap/exact'] + f['overlap/ngram']} questions are also training questions ({f['overlap/exact']} the same text, "
            f"{f['overlap/ngram']} nearly): {what}; overlap.jsonl lists them"
        )
    lines = [
        json_line({"test": o.query.id, "task": o.query.task, "train": o.train.id, "kind": o.kind, "share": o.share})
        for o in ctx.data.overlap
    ]
    if ctx.data.overlap or (ctx.folder.path / "overlap.jsonl").exists():
        write_text(ctx.folder.path / "overlap.jsonl", "".join(line + "\n" for line in lines))


def results_of(ledger: Ledger, c: Config, n: int, split: str, overlap: Counter[tuple[str, str]]) -> dict[str, Any]:
    """What eval.json says of a split, from the ledger and what overlap.jsonl lists, counted by task and kind."""
    rows, e, results = list(ledger.rows(n, split)), c.evaluate, {}
    for t in sorted({r.task for r in rows}):
        results[t] = metrics.evaluation([r for r in rows if r.task == t], e.pass_at_k, c.accept, e.avg_at_k)
        figures = overlap_figures(c, overlap, t) if split == "test" else {}
        results[t] |= figures if any(figures.values()) else {}
    return results


def choose(ctx: Context) -> int:
    """The iteration with the best validation accuracy (mean over levels, then tasks); the earliest of equals."""
    scores = {n: score for n in range(ctx.config.iterations + 1) if (score := validation_score(ctx.folder, n)) is not None}
    return max(scores, key=lambda n: (scores[n], -n)) if scores else ctx.config.iterations


def validation_score(folder: RunFolder, n: int) -> float | None:
    path = folder.iter(n) / "eval.json"
    return _accuracy(read_json(path).get("validation", {})) if path.exists() else None


def _accuracy(results: dict[str, Any]) -> float | None:
    values = [r["mean_over_levels"] if r["mean_over_levels"] is not None else r["pass@1"] for r in results.values()]
    return sum(values) / len(values) if values else None


def _try_out(ctx: Context, n: int, model: Path) -> tuple[float, int]:
    """(validation accuracy, tokens generated) of a model that is not part of the run: greedy, into a ledger that is thrown away."""
    c = ctx.config
    greedy = Sampling(0.0, 1.0, c.evaluate.max_new_tokens or c.sample.max_new_tokens, c.sample.stop, c.sample.repetition_stop)
    with ctx.timed("engine_start"):
        engine = build.make_engine(c, str(model), ctx.tokenizer, ctx.reporter.say)
    with tempfile.TemporaryDirectory() as scratch:
        ledger = Ledger(Path(scratch) / "ledger.sqlite")
        try:
            draw(
                ctx, n, f"iteration {n}: try {model.name}", ctx.data.validation, engine, ledger,
                allocation=Fixed(1), guidance=None, sampling=lambda attempt: greedy, strategy="evaluate", split="validation",
            )  # fmt: skip
            rows = list(ledger.rows(n, "validation"))
        finally:
            ledger.close()
            engine.close()
    tasks = {t: metrics.evaluation([r for r in rows if r.task == t], (1,), c.accept) for t in sorted({r.task for r in rows})}
    return _accuracy(tasks) or 0.0, sum(r.generated_tokens for r in rows)


# --------------------------------------------------------------------------------------- training


def train(ctx: Context, n: int) -> None:
    """Trains iter_n/model in a process of its own, from the base or the last model."""
    c, started = ctx.config, time.perf_counter()
    ctx.close_engine()  # its memory is needed
    start = ctx.base if n == 0 or c.train.from_ == "base" else ctx.folder.model(n - 1)
    if start == ctx.base:
        ctx.folder.same_base(ctx.base)
    if n > 0:
        ctx.folder.whole(n, "curate")
        if c.train.from_ == "last":
            ctx.folder.whole(n - 1, "train")
    mix = c.train.interpolate if n > 0 else None
    other = ctx.base if mix is None or mix.with_ == "base" else ctx.folder.model(n - 1)
    if mix:
        mixing.check(start, other)
    folder = ctx.folder.iter(n)
    part = folder / "model.part"
    shutil.rmtree(part, ignore_errors=True)
    settings = c.train.model_dump(mode="json", by_alias=True) | {"tracking": tracker.where(ctx, n)}
    if n == 0 and c.warm_start:
        settings |= {"epochs": c.warm_start.epochs, "learning_rate": c.warm_start.learning_rate}
    job = TrainJob(str(folder / "train.parquet"), start, ctx.base, str(part), str(folder / "work"), seed_of(c.seed, "train", n), settings)
    with ctx.reporter.stage(f"iteration {n}: train", 1) as update:
        began = time.perf_counter()
        figures = build.make_trainer(c).train(job, lambda step, steps: update(step, total=steps), ctx.reporter.say)
        took = time.perf_counter() - began
    if mix:
        figures |= mixing.interpolate(part, other, mix.weight, lambda model: _try_out(ctx, n, model))
    training = figures.get("seconds_training", took)  # a trainer that does not tell them apart has no start of its own
    ctx.clock["train_run"] = ctx.clock.get("train_run", 0.0) + training
    ctx.clock["train_start"] = ctx.clock.get("train_start", 0.0) + took - training
    shutil.rmtree(folder / "model", ignore_errors=True)
    part.rename(folder / "model")
    shutil.rmtree(folder / "work", ignore_errors=True)
    ctx.folder.set_model(n, f"iter_{n}/model")
    ctx.folder.mark(n, "train", **{"seconds": time.perf_counter() - started} | {f"figure/{k}": v for k, v in figures.items()})


def warm_start(ctx: Context) -> None:
    """Trains the iter_0 model on reference rationales."""
    queries, aside = warm_start_queries(ctx.config, ctx.data.train, ctx.data.validation)
    result, left_out = (reference_examples(given, ctx.renderer, "warm_start", ctx.config.train.max_length) for given in (queries, aside))
    if not result.examples:
        raise NothingAccepted(
            f"warm_start: all {len(result.dropped)} rationales are longer than train.max_length {ctx.config.train.max_length}; raise it"
        )
    if aside:
        ctx.reporter.say(f"warm start: {len(aside)} of its questions are also validation questions: left out")
        result.dropped.extend(Dropped(row, "in_validation") for row in left_out.examples)
    trainset.write_rows(ctx, 0, [result])
    train(ctx, 0)


def finish(ctx: Context, n: int) -> None:
    """Ends an iteration: models that are not kept go, metrics are written, the tracker gets the loop's figures."""
    prune(ctx, n)
    tracker.log_iteration(ctx, n, write_metrics(ctx))


def prune(ctx: Context, n: int) -> None:
    """Removes the models that `keep_models` does not keep, once the iter_n model is there."""
    keep = {"all": set(range(n + 1)), "last": {n}, "best+last": {n}}[ctx.config.keep_models]
    if ctx.config.keep_models == "best+last":
        scores = {m: s for m in range(n + 1) if (s := validation_score(ctx.folder, m)) is not None}
        keep |= {max(scores, key=lambda m: (scores[m], -m))} if scores else set()
    models = ctx.folder.state["models"]
    for m in range(n):
        path = ctx.folder.iter(m) / "model"
        if m not in keep and path.exists():
            models.pop(str(m), None)  # first the record, then the files
            ctx.folder.save()
            shutil.rmtree(path)
