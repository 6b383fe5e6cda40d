"""metrics.jsonl: one line per iteration, made from the run folder alone and rewritten whole."""

from __future__ import annotations

from collections import Counter

from gsi import metrics, parquet
from gsi.context import Context
from gsi.files import json_line, read_json, write_text


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
        line |= metrics.hint_line(folder.ledger, n - 1, c.accept)
        line |= {key[7:]: value for key, value in folder.info(n, "sample").items() if key.startswith("figure/")}
    if (folder.done(n, "curate") or n == 0) and (folder.iter(n) / "train.parquet").exists():
        rows, tokens, dropped = Counter[str](), 0, Counter[str]()
        for batch in parquet.columns(folder.iter(n) / "train.parquet", ["query_id", "loss_mask"]):
            rows.update(batch["query_id"].to_pylist())
            tokens += int(parquet.sums(batch["loss_mask"]).sum())
        for batch in parquet.columns(folder.iter(n) / "dropped.parquet", ["reason"]):
            dropped.update(batch["reason"].to_pylist())
        line |= metrics.train_line(rows, tokens, dropped, queries, ctx.data.hard)
    line |= {key[7:]: value for key, value in folder.info(n, "curate").items() if key.startswith("figure/")}
    if folder.done(n, "curate") and (folder.iter(n) / "perplexity.json").exists():
        read = line.get("score/tokens", 0)  # by the gate
        line |= read_json(folder.iter(n) / "perplexity.json")
        line["score/tokens"] = line.get("score/tokens", 0) + read
    if folder.done(n, "curate") and (folder.iter(n) / "monitor.json").exists():
        figures = read_json(folder.iter(n) / "monitor.json")
        line |= {f"monitor/{name}": f["z"] for name, f in figures.items()}
        line["monitor/alarms"] = sum(f["alarm"] for f in figures.values())
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
    prefilled, generated = prefilled + line.get("given/scored_tokens", 0), line.get("sample/tokens", 0)
    line["cost/flops"] = metrics.flops(parameters, prefilled, generated, int(line.get("train/tokens", 0)))
    if c.teacher:  # a server's size is only known where the config names it
        size = parameters if c.teacher.kind == "self" else c.teacher.parameters or 0
        line["cost/flops"] += metrics.flops(size, line.get("teacher/prompt_tokens", 0), line.get("teacher/tokens", 0), 0)
    return {"iteration": n} | line
