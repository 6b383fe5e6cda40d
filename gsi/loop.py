"""The loop, read top to bottom.

    config model -> (warm start) = iter_0 model
    for n = 1..T: sample with the iter_{n-1} model, guiding the hard queries -> curate -> train = iter_n model -> evaluate it
    test sets, report

Every stage is skipped when the run folder says it is done, so the same call resumes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gsi import build, checksums, perplexity, stages, strata, trainset, watch
from gsi.config import Config, load_config
from gsi.context import Context
from gsi.faults import explained
from gsi.metrics_file import write_metrics
from gsi.progress import Reporter
from gsi.queries import load_data
from gsi.runfolder.opening import open_folder
from gsi.types import Query
from gsi.verify.references import refuse_while_importing


@dataclass(frozen=True)
class Result:
    """What a run leaves behind: its folder and the lines of metrics.jsonl, one per iteration."""

    path: Path
    metrics: list[dict[str, Any]]


def run(
    config: Config | str | Path | Mapping[str, Any],
    queries: Sequence[Query] | None = None,
    check: Callable[..., Any] | None = None,
    *,
    fork: str | None = None,
    reporter: Reporter | None = None,
) -> Result:
    """Runs guided self-improvement, or resumes it.

    Args:
        config: a Config, a YAML file, or a mapping of config keys.
        queries: own questions, instead of those the config's task names.
        check: own checker for them, `(response, query) -> bool | Verdict`; runs in killable workers.
            They import its file: where that is the script that calls this, the call stands under a main guard.
        fork: start a new run of this name from what a changed config leaves valid.

    Raises GsiError (its message names what, where and the fix); NothingAccepted when an iteration has nothing to train on.
    """
    refuse_while_importing()
    config = config if isinstance(config, Config) else load_config(config)
    with open_run(config, queries, check, fork=fork, reporter=reporter) as ctx:
        return Result(ctx.folder.path, loop(ctx))


def loop(ctx: Context) -> list[dict[str, Any]]:
    folder, last = ctx.folder, ctx.config.iterations

    if not folder.done(last, "train"):
        build.check_trainable(ctx.config, ctx.base)
    if not folder.done(0, "train"):
        if ctx.config.warm_start:
            stages.warm_start(ctx)
        else:
            folder.set_model(0, ctx.base)
            folder.mark(0, "train", skipped=True)
    strata.measure(ctx)

    for n in range(last + 1):
        if n > 0:
            if not folder.done(n, "sample"):
                stages.sample(ctx, n)
            if not folder.done(n, "curate"):
                write_metrics(ctx)  # what was sampled is worth reading even if nothing can be trained on
                trainset.curate_rows(ctx, n)
            if not folder.done(n, "train"):
                train(ctx, n)
            watch.settle(ctx, n)
        if not folder.done(n, "evaluate"):
            stages.evaluate(ctx, n)
        stages.finish(ctx, n)

    if ctx.data.test and folder.state["stages"].get("test", {}).get("final") != last:
        stages.test(ctx)
    return write_metrics(ctx)


def train(ctx: Context, n: int) -> None:
    if n == 0:
        return stages.warm_start(ctx)
    perplexity.measure(ctx, n)  # of the rows, under the base model
    return None if watch.check(ctx, n) else stages.train(ctx, n)


@contextmanager
def open_run(
    config: Config,
    queries: Sequence[Query] | None = None,
    check: Callable[..., Any] | None = None,
    *,
    fork: str | None = None,
    reporter: Reporter | None = None,
) -> Iterator[Context]:
    """Loads data and model, opens the run folder, and closes everything again."""
    started, reporter = time.perf_counter(), reporter or Reporter()
    data = load_data(config, queries, check)
    with explained(Path(config.output_dir)), closing(data.grader):
        for problem in data.problems[:10]:
            reporter.say(f"left out: {problem}")
        if len(data.problems) > 10:
            reporter.say(f"left out: {len(data.problems) - 10} more; `gsi tasks check` lists them all")
        loading = time.perf_counter()
        with reporter.stage("base model", 1) as update:
            base = build.resolve_model(config, lambda done, total: update(done, total=total))
        tokenizer = build.load_tokenizer(config, base)
        loading = time.perf_counter() - loading
        renderer = build.make_renderer(config, tokenizer)
        teacher = build.make_teacher(config)
        with open_folder(config, data.fingerprints, fork) as folder:
            folder.same_base(base, checksums.SMALL)
            folder.state["hard_levels"] = data.hard
            folder.ledger.set_queries({"train": data.train, "validation": data.validation, "test": data.test})
            folder.state["programs_isolated"] = getattr(data.grader, "isolated", None)  # None = the run has no programs
            ctx = Context(folder, data, base, tokenizer, renderer, teacher, reporter, clock={"load": loading})
            stages.report_overlap(ctx)
            strata.apply(ctx)
            try:
                yield ctx
            finally:
                ctx.close_engine()
                clock = folder.state["clock"]
                for phase, seconds in (ctx.clock | {"wall": time.perf_counter() - started}).items():
                    clock[phase] = clock.get(phase, 0.0) + seconds
