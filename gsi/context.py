"""A run at work: its folder, data and parts, and drawing from one of its models."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from gsi import build
from gsi.asking import SelfTeacher
from gsi.config import Config
from gsi.ledger import Ledger
from gsi.progress import Reporter, sampling_figures
from gsi.prompts import Renderer
from gsi.queries import Data
from gsi.runfolder.folder import RunFolder
from gsi.sampling import Sampler, Stats
from gsi.stall import Watched
from gsi.types import Engine, Query, Teacher


@dataclass
class Context:
    """A run at work: its folder, data and parts."""

    folder: RunFolder
    data: Data
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
                model = self.folder.model(n)  # says so where it is not kept any more
                self.folder.whole(n, "train")
                if model == self.base:
                    self.folder.same_base(self.base)
                engine = build.make_engine(self.config, model, self.tokenizer, self.reporter.say)
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


def draw(
    ctx: Context,
    n: int,
    name: str,
    queries: Sequence[Query],
    engine: Engine | None = None,
    ledger: Ledger | None = None,
    itself: SelfTeacher | None = None,
    **settings: Any,
) -> tuple[Stats, dict[str, float]]:
    """Runs a sampler over the iter_n model's engine with progress and clock; its figures and what the engine counted.

    `engine`, `ledger`: others than the run's own, to try out a model that is not part of the run. `itself`: the model as its own teacher.
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
            engine_settings = ctx.config.engine
            try:
                if itself is not None:
                    itself.work = sampler
                with Watched(itself or sampler, engine, engine_settings.kind, engine_settings.stall) as work:
                    engine.run(work)
            finally:
                if itself is not None:
                    itself.close()  # or its hint workers wait for ever
        update(len(queries), sampling_figures(sampler.stats, since))
    spent = {key: value - before.get(key, 0) for key, value in getattr(engine, "stats", {}).items()}
    counters = ctx.folder.state.setdefault("engine", {})
    for key, value in spent.items():
        counters[key] = counters.get(key, 0) + value
    return sampler.stats, spent
