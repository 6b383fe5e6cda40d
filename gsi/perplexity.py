"""Perplexity of references and of self-generated rows under the base model: the paper's third figure of a narrowing tail.

A training set whose perplexity falls from round to round drifts to what the base model finds likely anyway. Scored is a seeded sample
(`evaluate.perplexity_rows`), in batches, by engines that can score; the tokens read are part of the run's cost.
"""

from __future__ import annotations

import heapq
import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from statistics import fmean, pstdev
from typing import Any

from gsi import build, parquet
from gsi.config.engines import TransformersEngine
from gsi.context import Context
from gsi.files import write_text
from gsi.seeds import seed_of
from gsi.types import Completion, Scorer, Text

STEPS = 4  # bins of the distribution per doubling of the perplexity
# level, prompt ids, completion ids (the end token included), which of these count
Row = tuple[int | None, tuple[int, ...], tuple[int, ...], tuple[int, ...]]


def perplexities(levels: Sequence[int | None], scores: Sequence[Sequence[float]], name: str) -> dict[str, float]:
    """`name` and `name/level_N`: exp of the mean over responses of the mean negative log-probability per token.

    That is the geometric mean of the responses' perplexities, so one odd response cannot carry it. `name/from_P`: share of the responses
    whose own perplexity is P or more and below the next of the STEPS per doubling.
    """
    groups: dict[str, list[float]] = defaultdict(list)
    for level, logp in zip(levels, scores, strict=True):
        if logp:
            value = -sum(logp) / len(logp)
            groups[name].append(value)
            if level is not None:
                groups[f"{name}/level_{level}"].append(value)
    figures = {key: math.exp(sum(v) / len(v)) for key, v in sorted(groups.items())}
    bins = Counter(math.floor(STEPS * value / math.log(2)) for value in groups[name])
    return figures | {f"{name}/from_{2 ** (b / STEPS):.3f}": count / bins.total() for b, count in sorted(bins.items())}


def measure(ctx: Context, n: int) -> None:
    """Writes iter_n/perplexity.json: figures of the references (scored once per run) and of the iteration's training rows."""
    c, path = ctx.config, ctx.folder.iter(n) / "perplexity.json"
    rows = c.evaluate.perplexity_rows
    if not rows or path.exists():
        return
    if not isinstance(c.drawing, TransformersEngine):
        if n == 1:
            ctx.reporter.say(
                f"perplexity under the base model is left out: engine {c.drawing.kind} does not score (engine transformers does)"
            )
        return
    stored = ctx.folder.state.get("reference_perplexity", {})
    with ctx.timed("score"):
        engine, close = _base_engine(ctx)
        try:
            if stored.get("rows") != rows:
                stored = {"rows": rows, **_score(engine, _references(ctx, rows), "tail/perplexity/reference")}
                ctx.folder.state["reference_perplexity"] = stored
                ctx.folder.save()
                tokens = stored["score/tokens"]
            else:
                tokens = 0
            kept = _score(engine, _kept(ctx, n, rows), "tail/perplexity/kept")
        finally:
            if close:
                engine.close()
    figures = {k: v for k, v in stored.items() if k.startswith("tail/")} | kept | {"score/tokens": kept["score/tokens"] + tokens}
    write_text(path, json.dumps(figures, indent=1))


def _base_engine(ctx: Context) -> tuple[Any, bool]:
    """An engine of the base model: the running one where it is that, else one of its own, to be closed."""
    if ctx.folder.state["models"].get("0") == ctx.base and (ctx.engine_of() in (None, 0)):
        return ctx.engine(0), False
    ctx.close_engine()  # two models may not fit
    with ctx.timed("engine_start"):
        return build.make_engine(ctx.config, ctx.base, ctx.tokenizer, ctx.reporter.say), True


def _references(ctx: Context, rows: int) -> list[Row]:
    queries = [q for q in ctx.data.train if q.rationale]
    found = []
    for q in sorted(queries, key=lambda q: seed_of(ctx.config.seed, "perplexity", q.id))[:rows]:
        prompt = ctx.renderer.prompt(q)
        ids = ctx.renderer.ending(ctx.renderer.continuation(prompt, q.rationale or "").ids or ())
        found.append((q.level, prompt.ids or (), ids, (1,) * len(ids)))
    return found


def _kept(ctx: Context, n: int, rows: int) -> list[Row]:
    """Trained parts of rows of iter_n/train.parquet."""
    levels = {q.id: q.level for q in ctx.data.train}
    path, names = ctx.folder.iter(n) / "train.parquet", ("query_id", "iteration", "attempt", "source")
    named = (name for batch in parquet.columns(path, names) for name in zip(*(batch[c].to_pylist() for c in names), strict=True))
    chosen = set(heapq.nsmallest(rows, ((seed_of(ctx.config.seed, "perplexity", *name), i) for i, name in enumerate(named))))
    found, start, wanted = [], 0, {i for _, i in chosen}
    for batch in parquet.columns(path, ["query_id", "input_ids", "loss_mask"]):
        for i in sorted(wanted & set(range(start, start + batch.num_rows))):
            query_id, ids, mask = (batch[c][i - start].as_py() for c in ("query_id", "input_ids", "loss_mask"))
            first = mask.index(1)
            found.append((levels.get(query_id), tuple(ids[:first]), tuple(ids[first:]), tuple(mask[first:])))
        start += batch.num_rows
    return found


def _score(engine: Any, rows: Iterable[Row], name: str) -> dict[str, Any]:
    """Figures under `name`, and score/tokens, the tokens that were read. Rows beyond the model's context are left out."""
    scorer: Scorer = engine
    fitting = [r for r in rows if r[1] and len(r[1]) + len(r[2]) <= engine.context]
    scores = scorer.score([(Text("", prompt), Completion("", ids, "stop", len(ids))) for _, prompt, ids, _ in fitting])
    scores = [[x for x, counts in zip(logp, row[3], strict=True) if counts] for logp, row in zip(scores, fitting, strict=True)]
    read = sum(len(prompt) + len(ids) for _, prompt, ids, _ in fitting)
    nll = [-sum(logp) / len(logp) for logp in scores if logp]
    spread = {}
    if name.endswith("/kept") and nll:  # for the tail monitor
        spread = {"perplexity/kept_nll": fmean(nll), "perplexity/kept_sd": pstdev(nll), "perplexity/kept_rows": len(nll)}
    return perplexities([level for level, *_ in fitting], scores, name) | spread | {"score/tokens": read}
