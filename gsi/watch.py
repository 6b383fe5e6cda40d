"""The tail monitor at work: after an iteration's rows are chosen and before they are trained on. See gsi/monitor.py.

Figures go to iter_N/monitor.json and from there to metrics.jsonl; alarms also to run.json, the log, `gsi status` and the report.
"""

from __future__ import annotations

import itertools
import json
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import pyarrow.parquet as pq

from gsi import monitor, parquet
from gsi.context import Context
from gsi.distinct import steps
from gsi.files import read_json, write_text
from gsi.metrics import PLAIN, accepted_sql
from gsi.monitor import FIGURES, Change, Iteration, Seen
from gsi.stages import validation_score
from gsi.types import GsiError


class Narrowing(GsiError):
    """The tail narrows and the config says `monitor.on_alarm: stop`."""


def check(ctx: Context, n: int) -> bool:
    """Compares iteration n with the first one and the one before. True = it was rolled back, so nothing is to be trained.

    Raises Narrowing with `on_alarm: stop`; then the same command stops again until the setting, or the rows, are changed.
    """
    c = ctx.config.monitor
    if n < 2 or c.on_alarm == "off":
        return False
    earlier = [m for m in range(1, n) if (ctx.folder.iter(m) / "train.parquet").exists()]
    if not earlier:
        return False
    hard = {q.id for q in ctx.data.train if q.level in ctx.data.hard.get(q.task, ())}
    now = seen(ctx, n)
    history = [monitor.changes(seen(ctx, m), now, hard, _perplexity(ctx, m, n)) for m in sorted({earlier[0], earlier[-1]})]
    worst = monitor.worst(history)
    alarms = [change for change in worst.values() if change.alarm(c.threshold, c.least)]
    figures = {name: asdict(change) | {"alarm": change in alarms} for name, change in sorted(worst.items())}
    write_text(ctx.folder.iter(n) / "monitor.json", json.dumps(figures, indent=1))
    state: dict[str, Any] = ctx.folder.state
    state["alarms"] = {k: v for k, v in state.get("alarms", {}).items() if int(k) < n} | (
        {str(n): [say(n, a) for a in alarms]} if alarms else {}
    )
    ctx.folder.save()
    for a in alarms:
        ctx.reporter.say(say(n, a), alarm=a.figure, iteration=n, was=a.was, now=a.now, z=a.z)
    if alarms and c.on_alarm == "stop":
        raise Narrowing(
            f"iteration {n} is not trained (monitor.on_alarm: stop): {'; '.join(say(n, a) for a in alarms)}\n"
            "Everything drawn is kept. Go on with monitor.on_alarm=warn, or change what the alarm names and --fork NAME"
        )
    return bool(alarms) and c.on_alarm == "rollback" and _roll_back(ctx, n)


def say(n: int, c: Change) -> str:
    """An alarm in words: the figure, the size, what to change."""
    what, change = FIGURES[c.figure]
    form = "{:.1%} to {:.1%}" if c.figure in ("hard_coverage", "hard_share", "gap", "distinct") else "{:,.1f} to {:,.1f}"
    size = f"{c.now:,.0f}, expected by chance {c.was:,.1f}" if c.figure == "lost" else "from " + form.format(c.was, c.now)
    return f"ALARM, iteration {n}: {what}: {size} (z = {c.z:.1f}). What may help: {change}."


def _roll_back(ctx: Context, n: int) -> bool:
    """Makes the best earlier model that no alarm speaks against the iter_n model; the rows it would have been trained on are dropped.

    The next iteration draws with that model and seeds of its own. False (and the iteration trains) where there is no such model.
    """
    state = ctx.folder.state
    # the model that drew iteration n is what the alarm is about; iter_m's own draws are those of iteration m + 1
    candidates = [m for m in range(n - 1) if str(m + 1) not in state["alarms"] and str(m) in state["models"]]
    scores = {m: score for m in candidates if (score := validation_score(ctx.folder, m)) is not None}
    if not scores:
        ctx.reporter.say(f"iteration {n}: no earlier model without an alarm to roll back to; it is trained as it is")
        return False
    best = max(scores, key=lambda m: (scores[m], -m))
    shutil.rmtree(ctx.folder.iter(n) / "model", ignore_errors=True)
    ctx.close_engine()
    ctx.folder.set_model(n, state["models"][str(best)])
    ctx.folder.mark(n, "train", seconds=0.0, rolled_back_to=best)
    settle(ctx, n)
    ctx.reporter.say(f"iteration {n}: rolled back; iter_{n} is the iter_{best} model again", iteration=n, rolled_back_to=best)
    return True


def settle(ctx: Context, n: int) -> None:
    """Moves the rows that a roll-back took from training to dropped.parquet, also where a kill came between, or a repair chose them again."""
    if "rolled_back_to" not in ctx.folder.info(n, "train"):
        return
    folder = ctx.folder.iter(n)
    taken = [path for name in ("train.parquet", "validation.parquet") if (path := folder / name).exists()]
    if taken:
        ctx.folder.unseal(n, "curate")
        reasons = pq.read_table(folder / "dropped.parquet", columns=["reason"])["reason"].to_pylist()
        other = [(e, r) for e, r in zip(parquet.read(folder / "dropped.parquet"), reasons, strict=True) if r != "rolled_back"]
        rows = [e for path in taken for e in parquet.read(path)]
        parquet.write(folder / "dropped.parquet", [e for e, _ in other] + rows, [r for _, r in other] + ["rolled_back"] * len(rows))
        for path in reversed(taken):
            path.unlink()
    if "files" not in ctx.folder.info(n, "curate"):
        ctx.folder.seal(n, "curate")


def seen(ctx: Context, n: int) -> Iteration:
    """What iteration n saw of every query that it asked, from the ledger and iter_n/train.parquet."""
    ledger, good = ctx.folder.ledger, accepted_sql(ctx.config.accept)
    found: dict[str, Seen] = {}
    sql = (
        f"SELECT query_id, task, level, sum({PLAIN}), sum({PLAIN} AND {good}), sum(NOT {PLAIN}), sum(NOT {PLAIN} AND {good}) "
        "FROM rollouts WHERE iteration = ? GROUP BY query_id"
    )
    for query_id, task, level, *counts in ledger.query(sql, (n - 1,)):
        found[query_id] = Seen(f"{task} {level}", *map(int, counts))
    sql = f"SELECT query_id, completion FROM rollouts WHERE iteration = ? AND {good} ORDER BY iteration, query_id, attempt"
    for query_id, own in itertools.groupby(ledger.stream(sql, (n - 1,)), key=lambda row: row[0]):
        paths = Counter(steps(completion) for _, completion in own)
        found[query_id] = replace(found[query_id], differ=monitor.differ(paths.values()))
    rows, tokens = Counter[str](), Counter[str]()
    for batch in parquet.columns(ctx.folder.iter(n) / "train.parquet", ["query_id", "loss_mask"]):
        for query_id, trained in zip(batch["query_id"].to_pylist(), parquet.sums(batch["loss_mask"]).tolist(), strict=True):
            rows[query_id] += 1
            tokens[query_id] += trained
    return {q: replace(s, rows=rows[q], tokens=tokens[q]) for q, s in found.items()}


def _perplexity(ctx: Context, m: int, n: int) -> tuple[Sequence[float], Sequence[float]] | None:
    both = []
    for i in (m, n):
        path = ctx.folder.iter(i) / "perplexity.json"
        figures = read_json(path) if path.exists() else {}
        if "perplexity/kept_rows" not in figures:
            return None
        both.append([figures["perplexity/kept_nll"], figures["perplexity/kept_sd"], figures["perplexity/kept_rows"]])
    return both[0], both[1]
