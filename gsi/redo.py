"""One stage of a run, done again: `gsi sample|curate|train|evaluate RUN --iteration N`."""

from __future__ import annotations

from collections.abc import Callable

from gsi import stages, strata, trainset
from gsi.config import Config
from gsi.context import Context
from gsi.loop import open_run, train
from gsi.metrics_file import write_metrics
from gsi.progress import Reporter
from gsi.runfolder.models import reads
from gsi.types import GsiError

STAGES: dict[str, Callable[[Context, int], None]] = {
    "sample": stages.sample,
    "curate": trainset.curate_rows,
    "train": train,
    "evaluate": stages.evaluate,
}


def stage(config: Config, name: str, n: int, reporter: Reporter | None = None) -> None:
    """One stage of one iteration: `sample` completes what is missing, the others are redone; later stages become stale."""
    with open_run(config, reporter=reporter) as ctx:
        folder = ctx.folder
        before = {"sample": (n - 1, "train"), "curate": (n, "sample"), "train": (n, "curate"), "evaluate": (n, "train")}[name]
        if not 0 <= n <= config.iterations or (n == 0 and (name in ("sample", "curate") or (name == "train" and not config.warm_start))):
            raise GsiError(f"{name} --iteration {n}: this run has no such stage; its iterations are 1 to {config.iterations}")
        if n > 0 and not folder.done(*before):
            raise GsiError(f"{name} --iteration {n}: stage {before[1]} of iteration {before[0]} is not done; run it first, or `gsi run`")
        if not (name == "sample" and folder.done(n, name)):
            if (m := reads(config, name, n)) is not None:
                folder.model(m)  # before anything is given up
            if (name, n) != ("train", 0):
                strata.measure(ctx)  # as the loop does once the iter_0 model is there: the stage's rows have their levels
            folder.invalidate(n, name)
            STAGES[name](ctx, n)
        write_metrics(ctx)
