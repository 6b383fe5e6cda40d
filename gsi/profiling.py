"""`gsi profile`: how often a model solves each question of a data set. Samples only; the run folder makes it resumable."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import mean

from rich.table import Table

from gsi import stages, tasks
from gsi.config import load_config
from gsi.loop import open_run
from gsi.metrics_file import write_metrics
from gsi.progress import table_console
from gsi.types import Rollout


def profile(model: str, data: str, output: str, task: str | None = None, overrides: Sequence[str] = ()) -> Path:
    """Draws sample.k attempts per question, prints a table and writes `profile.jsonl` (the data with a `pass_rate` column)."""
    local = Path(data).exists() or data.endswith((".jsonl", ".gz", ".json"))
    name = task or (data if data in tasks.TASKS else "auto")
    entry = {"name": name} | ({"path": data} if local else {} if data in tasks.TASKS else {"hub": data})
    config = load_config(
        {"model": model, "output_dir": output, "iterations": 1, "tasks": [entry], "evaluate": {"validation": 0}}, overrides
    )
    with open_run(config) as ctx:
        if not ctx.folder.done(0, "train"):
            ctx.folder.set_model(0, ctx.base)
            ctx.folder.mark(0, "train", skipped=True)
        if not ctx.folder.done(1, "sample"):
            stages.sample(ctx, 1)
        write_metrics(ctx)
        rows: dict[str, list[Rollout]] = defaultdict(list)
        for r in ctx.folder.ledger.rows(0):
            rows[r.query_id].append(r)
        out = ctx.folder.path / "profile.jsonl"
        part = out.with_suffix(".part")
        with part.open("w", encoding="utf-8") as f:
            for q in ctx.data.train:
                solved = sum(r.correct for r in rows[q.id])
                row = asdict(q) | {"pass_rate": solved / len(rows[q.id]), "correct": solved, "attempts": len(rows[q.id])}
                f.write(json.dumps(row, ensure_ascii=False) + "\n")
        part.replace(out)
    _print(rows)
    print(f"per question: {out}")
    return out


def _print(rows: dict[str, list[Rollout]]) -> None:
    groups: dict[str, list[list[Rollout]]] = {"all": list(rows.values())}
    for attempts in rows.values():
        if attempts[0].level is not None:
            groups.setdefault(f"level {attempts[0].level}", []).append(attempts)
    table = Table("", "questions", "pass rate", "never solved", "always solved", "no answer", "truncated", "tokens, mean", title="profile")
    for name, members in sorted(groups.items(), key=lambda kv: (len(kv[0]), kv[0])):
        flat = [r for attempts in members for r in attempts]
        solved = [sum(r.correct for r in attempts) / len(attempts) for attempts in members]
        table.add_row(
            name,
            str(len(members)),
            f"{mean(solved):.3f}",
            f"{mean(s == 0 for s in solved):.1%}",
            f"{mean(s == 1 for s in solved):.1%}",
            f"{mean(r.status == 'no_answer' for r in flat):.1%}",
            f"{mean(r.status == 'truncated' for r in flat):.1%}",
            f"{mean(r.generated_tokens for r in flat):.0f}",
        )
    table_console().print(table)
