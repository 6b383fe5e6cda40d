"""The stages of one iteration. Each reads and writes the run folder only, and can be redone alone."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gsi import advice, build, controls, metrics, mixing, tracker
from gsi.allocation import Fixed
from gsi.allocation import build as build_allocation
from gsi.config import Config
from gsi.curate import Curated, Dropped, curate, reference_examples
from gsi.guidance.state_reset import StateReset
from gsi.ledger import Ledger
from gsi.progress import Reporter, sampling_figures
from gsi.prompts import Renderer
from gsi.runfolder import RunFolder, json_line, read_json, write_text
from gsi.sampling import RecordingTeacher, Sampler, Stats
from gsi.seeds import seed_of
from gsi.strategies import STRATEGIES
from gsi.types import Engine, Example, GsiError, NothingAccepted, Query, Rollout, Sampling, Teacher, TrainJob


@dataclass
class Context:
    """A run at work: its folder, data and parts."""

    folder: RunFolder
    data: build.Data
    base: str  # the base model
    tokenizer: Any
    renderer: Renderer
    teacher: Teacher | None
    reporter: Reporter
    clock: dict[str, float] = field(default_factory=dict)  # seconds by phase, of this process
    _engine: tuple[int, Engine] | None = None

    @property
    def config(self) -> Config:
        return self.folder.config

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.clock[phase] = self.clock.get(phase, 0.0) + time.perf_counter() - started

    def engine(self, n: int) -> Engine:
        """The engine of the iter_n model; one start serves every stage that uses this model."""
        if self._engine is None or self._engine[0] != n:
            self.close_engine()
            with self.timed("engine_start"):
                engine = build.make_engine(self.config, self.folder.model(n), self.tokenizer)
            self._engine = (n, engine)
            self.folder.state["parameters"] = getattr(engine, "parameters", 0)
            self.folder.state["stop_ids"] = sorted(getattr(engine, "stop_ids", ()))
            self.folder.state["engine_starts"] = self.folder.state.get("engine_starts", 0) + 1
            self.folder.save()
        return self._engine[1]

    def engine_of(self) -> int | None:
        """Iteration whose model the running engine has; None = no engine runs."""
        return self._engine[0] if self._engine else None

    def close_engine(self) -> None:
        if self._engine is not None:
            self._engine[1].close()
            self._engine = None


# --------------------------------------------------------------------------------------- drawing from a model


def _draw(
    ctx: Context, n: int, name: str, queries: Sequence[Query], engine: Engine | None = None, ledger: Ledger | None = None, **settings: Any
) -> tuple[Stats, dict[str, float]]:
    """Runs a sampler over the iter_n model's engine with progress and clock; its figures and what the engine counted.

    `engine`, `ledger`: others than the run's own, to try out a model that is not part of the run.
    """
    engine = engine or ctx.engine(n)
    since, before = time.monotonic(), dict(getattr(engine, "stats", {}))
    with ctx.reporter.stage(name, len(queries)) as update:
        sampler = Sampler(
            queries,
            iteration=n,
            renderer=ctx.renderer,
            grader=ctx.data.grader,
            ledger=ledger or ctx.folder.ledger,
            seed=ctx.config.seed,
            model=ctx.folder.state["models"].get(str(n), ""),
            accept=ctx.config.accept,
            on_progress=lambda stats: update(stats.finished, sampling_figures(stats, since)),
            **settings,
        )
        with ctx.timed("engine_run"), sampler:
            engine.run(sampler)
        update(len(queries), sampling_figures(sampler.stats, since))
    spent = {key: value - before.get(key, 0) for key, value in getattr(engine, "stats", {}).items()}
    counters = ctx.folder.state.setdefault("engine", {})
    for key, value in spent.items():
        counters[key] = counters.get(key, 0) + value
    return sampler.stats, spent


def sample(ctx: Context, n: int) -> None:
    """Draws with the iter_{n-1} model until every training query has what its allocation wants."""
    c, started = ctx.config, time.perf_counter()
    teacher = RecordingTeacher(ctx.teacher, ctx.folder.ledger) if ctx.teacher else None
    s = Sampling(c.sample.temperature, c.sample.top_p, c.sample.max_new_tokens, c.sample.stop, c.sample.repetition_stop)
    stats, spent = _draw(
        ctx,
        n - 1,
        f"iteration {n}: sample ({c.strategy})",
        ctx.data.train,
        allocation=build_allocation(c),
        guidance=build.make_guidance(c, ctx.renderer, teacher, ctx.data.train),
        sampling=lambda attempt: s,
        strategy=c.strategy,
        shuffle=[t.name for t in c.tasks if t.shuffle_options],
        hint_workers=c.teacher.concurrency if c.teacher and teacher else 0,
    )
    if stats.resumed:
        ctx.reporter.say(f"iteration {n}: {stats.resumed} rollouts were already in the ledger, {stats.rollouts} drawn now")
    figures: dict[str, float] = {f"engine/{k}": v for k, v in spent.items()}
    if stats.all_tokens:
        figures["sample/waste"] = stats.wasted / stats.all_tokens
    if spent.get("seconds"):
        figures["engine/busy_share"] = 1 - spent.get("idle_seconds", 0.0) / spent["seconds"]
    for warning in advice.after_sampling(ctx.folder.ledger, n - 1, c):
        ctx.reporter.say(f"iteration {n}: {warning}")
    marks = {f"figure/{k}": v for k, v in figures.items()}
    ctx.folder.mark(n, "sample", **{"seconds": time.perf_counter() - started, "rollouts": stats.rollouts, "resumed": stats.resumed} | marks)


def evaluate(ctx: Context, n: int) -> None:
    """The iter_n model on the validation split; on a stage of its own, so that no test set steers the loop."""
    started = time.perf_counter()
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
        _evaluate(ctx, n, "test", ctx.data.test)
    ctx.folder.state["stages"]["test"] = {"state": "done", "final": final, "chosen": chosen}
    ctx.folder.save()


def _evaluate(ctx: Context, n: int, split: str, queries: Sequence[Query]) -> None:
    c = ctx.config
    if queries:
        draws, mean = max(c.evaluate.pass_at_k, default=1), c.evaluate.avg_at_k
        limit = c.evaluate.max_new_tokens or c.sample.max_new_tokens
        greedy = Sampling(0.0, 1.0, limit, c.sample.stop, c.sample.repetition_stop)
        sampled = Sampling(c.sample.temperature or 0.7, c.sample.top_p, limit, c.sample.stop, c.sample.repetition_stop)
        _draw(
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
    rows = list(ctx.folder.ledger.rows(n, split))
    results[split] = {
        t: metrics.evaluation([r for r in rows if r.task == t], c.evaluate.pass_at_k, c.accept, c.evaluate.avg_at_k)
        for t in sorted({r.task for r in rows})
    }
    if split == "test":
        for task, result in results[split].items():
            result |= overlap_figures(ctx, task)
    path.parent.mkdir(exist_ok=True)
    write_text(path, json.dumps(results, indent=1))


def overlap_figures(ctx: Context, task: str) -> dict[str, int]:
    """How many test questions of a task are also training questions, by how it was found, and how many were left out for it."""
    kinds = Counter(o.kind for o in ctx.data.overlap if o.query.task == task)
    out = kinds.total() if ctx.config.evaluate.overlap == "leave_out" else 0
    return {"overlap/exact": kinds["exact"], "overlap/ngram": kinds["ngram"], "overlap/left_out": out}


def report_overlap(ctx: Context) -> None:
    """Says what was found and writes overlap.jsonl, one line per test question: its id, the training question's, the measure, the share."""
    for task in sorted({o.query.task for o in ctx.data.overlap}):
        f = overlap_figures(ctx, task)
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
        engine = build.make_engine(c, str(model), ctx.tokenizer)
    with tempfile.TemporaryDirectory() as scratch:
        ledger = Ledger(Path(scratch) / "ledger.sqlite")
        try:
            _draw(
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


def curate_rows(ctx: Context, n: int) -> None:
    """Writes iter_n/train.parquet and dropped.parquet. Raises NothingAccepted when there is nothing to train on."""
    c, started = ctx.config, time.perf_counter()
    queries = {q.id: q for q in ctx.data.train}
    drawn = ctx.folder.ledger.rows() if c.train.data == "accumulate" else ctx.folder.ledger.rows(n - 1)
    rows: Iterable[Rollout] = (r for r in drawn if r.iteration < n)
    result = curate(
        rows if c.curate.verdicts else controls.whatever_verdict(rows, c.accept, c.seed),
        queries,
        ctx.renderer,
        accept=c.accept,
        control=c.control,
        cap=c.curate.cap,
        floor=c.curate.floor,
        distinct=c.curate.distinct,
        max_length=c.train.max_length,
        on_given=c.train.on_given,
        stop_ids=frozenset(ctx.folder.state.get("stop_ids", ())),
        seed=c.seed,
    )
    if c.curate.rows_of:
        result = Curated(_rows_of(Path(c.curate.rows_of), queries), [])
    result = _match(ctx, n, _references(ctx, n, result))
    if c.curate.tokens:
        result = Curated(controls.up_to_tokens(result.examples, c.curate.tokens, c.seed), result.dropped)
    if not result.examples:
        raise NothingAccepted(_nothing_accepted(ctx, n, result))
    result = replace(result, examples=result.examples + mixing.replay(ctx.folder, n, result.examples, c.train.replay, c.seed))
    _write_rows(ctx, n, result)
    (ctx.folder.iter(n) / "perplexity.json").unlink(missing_ok=True)  # of the rows before
    ctx.folder.mark(n, "curate", seconds=time.perf_counter() - started, rows=len(result.examples), dropped=len(result.dropped))


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
    rows = [Example(**row | {"source": row["source"] or run.name}) for row in pq.read_table(found[-1]).to_pylist()]
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


def train(ctx: Context, n: int) -> None:
    """Trains iter_n/model in a process of its own, from the base or the last model."""
    c, started = ctx.config, time.perf_counter()
    ctx.close_engine()  # its memory is needed
    start = ctx.base if n == 0 or c.train.from_ == "base" else ctx.folder.model(n - 1)
    folder = ctx.folder.iter(n)
    part = folder / "model.part"
    shutil.rmtree(part, ignore_errors=True)
    settings = c.train.model_dump(mode="json", by_alias=True) | {"tracking": tracker.where(ctx, n)}
    if n == 0 and c.warm_start:
        settings |= {"epochs": c.warm_start.epochs, "learning_rate": c.warm_start.learning_rate}
    job = TrainJob(str(folder / "train.parquet"), start, ctx.base, str(part), str(folder / "work"), seed_of(c.seed, "train", n), settings)
    with ctx.reporter.stage(f"iteration {n}: train", 1) as update:
        figures = build.make_trainer(c).train(job, lambda step, steps: update(step, total=steps), ctx.reporter.say)
    if n > 0 and (mix := c.train.interpolate):
        other = ctx.base if mix.with_ == "base" else ctx.folder.model(n - 1)
        figures |= mixing.interpolate(part, other, mix.weight, lambda model: _try_out(ctx, n, model))
    ctx.clock["train_run"] = ctx.clock.get("train_run", 0.0) + figures.get("seconds_training", 0.0)
    ctx.clock["train_start"] = ctx.clock.get("train_start", 0.0) + figures.get("seconds", 0.0) - figures.get("seconds_training", 0.0)
    shutil.rmtree(folder / "model", ignore_errors=True)
    part.rename(folder / "model")
    shutil.rmtree(folder / "work", ignore_errors=True)
    ctx.folder.set_model(n, f"iter_{n}/model")
    ctx.folder.mark(n, "train", **{"seconds": time.perf_counter() - started} | {f"figure/{k}": v for k, v in figures.items()})


def warm_start(ctx: Context) -> None:
    """Trains the iter_0 model on reference rationales."""
    result = reference_examples(
        build.warm_start_queries(ctx.config, ctx.data.train), ctx.renderer, "warm_start", ctx.config.train.max_length
    )
    if not result.examples:
        raise NothingAccepted(
            f"warm_start: all {len(result.dropped)} rationales are longer than train.max_length {ctx.config.train.max_length}; raise it"
        )
    _write_rows(ctx, 0, result)
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


def _nothing_accepted(ctx: Context, n: int, result: Curated) -> str:
    counts = Counter(dict(ctx.folder.ledger.query("SELECT status, count(*) FROM rollouts WHERE iteration = ? GROUP BY status", (n - 1,))))
    seen = ", ".join(f"{count} {status}" for status, count in counts.most_common())
    dropped = Counter(d.reason for d in result.dropped)
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


# --------------------------------------------------------------------------------------- files of an iteration


_ROW = pa.schema(
    [
        ("prompt", pa.string()), ("completion", pa.string()), ("input_ids", pa.list_(pa.int32())), ("loss_mask", pa.list_(pa.int8())),
        ("query_id", pa.string()), ("iteration", pa.int32()), ("attempt", pa.int32()), ("guidance", pa.string()), ("weight", pa.float32()), ("source", pa.string()),
    ]
)  # fmt: skip


def _write_rows(ctx: Context, n: int, result: Curated) -> None:
    """train.parquet and dropped.parquet, and with early stopping the rows of held-out queries in validation.parquet."""
    folder, stopping = ctx.folder.iter(n), ctx.config.train.early_stopping
    (folder / "validation.parquet").unlink(missing_ok=True)
    if stopping:
        kept, held = mixing.hold_out(result.examples, stopping.share, seed_of(ctx.config.seed, "early_stopping", n))
        if held:
            folder.mkdir(exist_ok=True)
            _write_parquet(folder / "validation.parquet", [dict(vars(e)) for e in held], _ROW)
            result = replace(result, examples=kept)
        else:
            ctx.reporter.say(f"iteration {n}: rows of a single query, so none is held out and training does not stop early")
    _write(folder, result)


def _write(folder: Path, result: Curated) -> None:
    folder.mkdir(exist_ok=True)
    _write_parquet(folder / "train.parquet", [dict(vars(e)) for e in result.examples], _ROW)
    _write_parquet(folder / "dropped.parquet", [_dropped(d) for d in result.dropped], _ROW.append(pa.field("reason", pa.string())))


def _dropped(d: Dropped) -> dict[str, Any]:
    return vars(d.example) | {"reason": d.reason}


def _write_parquet(path: Path, rows: list[dict[str, Any]], schema: pa.Schema) -> None:
    part = path.with_name(path.name + ".part")
    with part.open("wb") as f:
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), f)
        f.flush()
        os.fsync(f.fileno())
    part.replace(path)


def write_metrics(ctx: Context) -> list[metrics.Line]:
    """Rewrites metrics.jsonl from the folder: one line per iteration that has begun."""
    lines = [line for n in range(ctx.config.iterations + 1) if (line := _line(ctx, n))]
    write_text(ctx.folder.path / "metrics.jsonl", "".join(json_line(line) + "\n" for line in lines))
    return lines


def _line(ctx: Context, n: int) -> metrics.Line:
    folder, c, queries = ctx.folder, ctx.config, {q.id: q for q in ctx.data.train}
    line: metrics.Line = {}
    if n > 0 and folder.done(n, "sample"):
        line |= metrics.sample_line(folder.ledger, n - 1, ctx.data.train, c.accept, ctx.data.hard)
        line |= {key[7:]: value for key, value in folder.info(n, "sample").items() if key.startswith("figure/")}
    if (folder.done(n, "curate") or n == 0) and (folder.iter(n) / "train.parquet").exists():
        table = pq.read_table(folder.iter(n) / "train.parquet", columns=["query_id", "loss_mask"])
        rows = [(q, sum(mask)) for q, mask in zip(table["query_id"].to_pylist(), table["loss_mask"].to_pylist(), strict=True)]
        dropped = Counter(pq.read_table(folder.iter(n) / "dropped.parquet", columns=["reason"])["reason"].to_pylist())
        line |= metrics.train_line(rows, dropped, queries, ctx.data.hard)
    if folder.done(n, "curate") and (folder.iter(n) / "perplexity.json").exists():
        line |= read_json(folder.iter(n) / "perplexity.json")
    for key, value in folder.info(n, "train").items():
        if key.startswith("figure/"):
            line[f"train/{key[7:]}"] = value
    results = read_json(folder.iter(n) / "eval.json") if (folder.iter(n) / "eval.json").exists() else {}
    for split, prefix in (("validation", "eval"), ("test", "test")):
        for task, result in results.get(split, {}).items():
            for key, value in result.items():
                if key == "levels":
                    line |= {f"{prefix}/{task}/level_{level}": v["right"] / v["n"] for level, v in value.items()}
                elif isinstance(value, int | float):
                    line[f"{prefix}/{task}/{key}"] = value
    if not line:
        return line
    line |= {
        f"time/{stage}": round(s, 3)
        for stage in ("sample", "curate", "train", "evaluate")
        if (s := folder.info(n, stage).get("seconds")) is not None
    }
    parameters = folder.state.get("parameters", 0)
    prefilled = line.get("sample/prompt_tokens", 0) + line.get("sample/given_tokens", 0) + line.get("score/tokens", 0)
    line["cost/flops"] = metrics.flops(parameters, prefilled, line.get("sample/tokens", 0), int(line.get("train/tokens", 0)))
    return {"iteration": n} | line
