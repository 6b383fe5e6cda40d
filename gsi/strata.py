"""Difficulty where the data declares none: five strata by how often the initial model solves a query.

The draws behind them are used for nothing else and the strata never change, so no later model moves a query from one to another: strata that are
re-made from what a model solves hide exactly the narrowing that they should show.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from gsi.allocation import Fixed
from gsi.context import Context, draw
from gsi.ledger import STRATA_SPLITS
from gsi.metrics import accepted_sql
from gsi.queries import without_levels
from gsi.seeds import seed_of
from gsi.types import Query, Sampling

STRATA = 5  # the last, the fifth that is solved least often, is the hard one
SPLITS = {"train": STRATA_SPLITS[0], "validation": STRATA_SPLITS[0], "test": STRATA_SPLITS[1]}  # of the table `evaluations`


def measure(ctx: Context) -> None:
    """Draws `strata.draws` attempts of the iter_0 model at every query of a task without levels, once per run; then `apply`."""
    c = ctx.config
    if not c.strata.draws or "strata" in ctx.folder.state:
        return
    chosen = Sampling(c.sample.temperature or 0.7, c.sample.top_p, c.sample.max_new_tokens, c.sample.stop, c.sample.repetition_stop)
    for split in STRATA_SPLITS:
        queries = [q for name, own in without_levels(ctx.data).items() if SPLITS[name] == split for q in own]
        if queries:
            draw(
                ctx, 0, "difficulty of the queries", queries,
                allocation=Fixed(c.strata.draws), guidance=None, sampling=lambda attempt: chosen, strategy="strata", split=split,
            )  # fmt: skip
    rows = sum(ctx.folder.ledger.count(0, split) for split in STRATA_SPLITS)
    ctx.folder.state["strata"] = {"draws": c.strata.draws, "ledger_rows": rows}
    ctx.folder.save()
    apply(ctx)


def apply(ctx: Context) -> None:
    """Gives the queries their strata as levels 1 to 5, of which 5 is hard, where `measure` has been done."""
    if "strata" not in ctx.folder.state:
        return
    found: dict[str, list[Query]] = {}
    for name, own in without_levels(ctx.data).items():
        levels = _levels(own, _rates(ctx, SPLITS[name]), ctx.config.seed)
        found[name] = [replace(q, level=levels.get(q.id, q.level)) for q in getattr(ctx.data, name)]
        ctx.folder.ledger.set_levels(name, levels)
    hard = ctx.data.hard | {q.task: (STRATA,) for own in without_levels(ctx.data).values() for q in own}
    ctx.data = replace(ctx.data, train=found["train"], validation=found["validation"], test=found["test"], hard=hard)
    ctx.folder.state["hard_levels"] = hard


def _rates(ctx: Context, split: str) -> dict[str, int]:
    sql = f"SELECT query_id, sum({accepted_sql(ctx.config.accept)}) FROM evaluations WHERE split = ? AND iteration = 0 GROUP BY query_id"
    return dict(ctx.folder.ledger.query(sql, (split,)))


def _levels(queries: Sequence[Query], right: Mapping[str, int], seed: int) -> dict[str, int]:
    """Fifths of each task by right draws; ties are broken by the seed, never by order in the file."""
    levels: dict[str, int] = {}
    for task in {q.task for q in queries}:
        ordered = sorted((q.id for q in queries if q.task == task), key=lambda i: (-right[i], seed_of(seed, "strata", i)))
        levels |= {query_id: 1 + STRATA * place // len(ordered) for place, query_id in enumerate(ordered)}
    return levels
