"""`gsi import`: samples that are already paid for, graded and kept as a run folder.

The new folder is a run whose first iteration is sampled and nothing more: `gsi report`, `compare`, `audit` and `export` read
it, and with a model (`--model DIR`) `gsi run RUN/config.yaml` goes on from its samples. What the file does not tell is not
made up: no token ids, no hint that was given; prompts are those that this run would draw with.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gsi import build, stages, tasks
from gsi.config import load_config
from gsi.data_commands import task_of
from gsi.files import write_text
from gsi.progress import Reporter
from gsi.prompts import Renderer
from gsi.queries import Data
from gsi.runfolder.folder import RunFolder
from gsi.runfolder.opening import open_folder
from gsi.sample_files import NAMES, Sample, Samples, read_samples
from gsi.strategies import STRATEGIES
from gsi.types import GsiError, Query, Rollout, Text, Verdict
from gsi.verify import CHECKERS, make_grader, with_programs

UNKNOWN = "imported"  # the model of samples that name none
_BATCH = 512  # rows of one transaction


def import_samples(
    path: str, output: Path, *, task: str | None = None, questions: str | None = None, columns: str | None = None, model: str | None = None,
    strategy: str = "vanilla", plain: int = 0, programs: bool = False, workers: int = 2,
) -> dict[str, int]:  # fmt: skip
    """Reads samples, grades them and writes the run folder; returns how many queries, samples, accepted, left out and repeated.

    Args:
        path: the samples (see `sample_files`).
        output: a folder that does not exist yet.
        task: how answers are checked; None = as the paper's ids tell, else `auto`.
        questions: data with the answers, where the samples have none.
        columns: `question=...,response=...,answer=...` where the columns are none of the usual ones.
        model: directory, hub id or lab name of the model that drew them; its tokenizer then renders prompts and counts tokens.
        plain: with a guided `strategy`: attempts from this number on count as guided by it; 0 = all are plain.

    Raises GsiError for a file that cannot be read as samples, and for a folder that exists.
    """
    if task is not None and task not in CHECKERS:
        raise GsiError(f"--task: unknown task {task!r}; there are {', '.join(CHECKERS)}")
    if strategy not in STRATEGIES:
        raise GsiError(f"--strategy: unknown {strategy!r}; there are {', '.join(STRATEGIES)}")
    if output.exists():
        raise GsiError(f"{output} exists; samples are imported into a folder of their own: choose another one")
    pool = tasks.load(task_of(questions, task or "auto")).queries if questions else []
    found = read_samples(path, task, _mapping(columns), pool)
    names = sorted({q.task for q in found.queries})
    programs = programs or found.programs
    most = max(map(len, found.drawn.values()))
    entries = [{"name": t, "path": str(output / "questions" / f"{t}.jsonl"), "programs": programs} for t in names]
    config = load_config(
        {
            "model": model or UNKNOWN, "output_dir": str(output), "iterations": 1, "strategy": strategy, "tasks": entries,
            "sample": {"k": plain or most}, "evaluate": {"validation": 0},
            **({"teacher": {"url": "http://127.0.0.1/v1", "model": "unknown"}} if strategy == "interactive" else {}),
        }
    )  # fmt: skip
    base = build.resolve_model(config) if model else UNKNOWN  # of `lab:NAME` its folder, as a run has it
    tokenizer = build.load_tokenizer(config, base) if model else None
    renderer = build.make_renderer(config, tokenizer)
    answers = make_grader(dict.fromkeys(names), workers, config.grading.timeout)
    grader = with_programs(answers, names if programs else (), workers, config.grading.timeout)
    try:
        kept, bad = tasks.check_golds(found.queries, answers, (), names if programs else ())
        prints = {
            f"{i}:{t}": tasks.from_queries([q for q in kept if q.task == t], config.tasks[i]).fingerprint for i, t in enumerate(names)
        }
        hard = {t: tasks.TASKS[t].hard_levels for t in names if t in tasks.TASKS}
        with open_folder(config, prints) as folder:
            (output / "questions").mkdir()
            for t in names:
                lines = [json.dumps(asdict(q), ensure_ascii=False) + "\n" for q in kept if q.task == t]
                write_text(output / "questions" / f"{t}.jsonl", "".join(lines))
            folder.ledger.set_queries({"train": kept})
            folder.state |= {"hard_levels": hard, "imported": {"file": path, "tokens": "counted" if tokenizer else "characters / 4"}}
            folder.set_model(0, base)
            folder.mark(0, "train", skipped=True)
            label = STRATEGIES[strategy].guidance if plain and STRATEGIES[strategy].guidance != "none" else None
            counts = _grade(folder, kept, found, renderer, grader, strategy, label, plain, base)
            folder.mark(1, "sample", seconds=0.0, rollouts=counts["samples"], resumed=0)
            data = Data(kept, [], [], hard, [*found.problems, *bad], prints, grader)
            stages.write_metrics(stages.Context(folder, data, base, tokenizer, renderer, None, Reporter("quiet")))
        write_text(output / "left_out.jsonl", "".join(json.dumps(vars(p), ensure_ascii=False) + "\n" for p in (*found.problems, *bad)))
    finally:
        grader.close()
    return {"queries": len(kept), **counts, "left out": len(found.problems) + len(bad), "repeated": found.repeated}


def _mapping(columns: str | None) -> dict[str, str]:
    pairs = dict(pair.split("=", 1) for pair in (columns or "").split(",") if "=" in pair)
    if unknown := [name for name in pairs if name not in NAMES]:
        raise GsiError(f"--columns: {unknown[0]!r} is no field; there are {', '.join(NAMES)}")
    return pairs


def _grade(
    folder: RunFolder, queries: list[Query], found: Samples, renderer: Renderer, grader: Any, strategy: str, label: str | None, plain: int,
    model: str,
) -> dict[str, int]:  # fmt: skip
    waiting: deque[tuple[Query, int, Sample, Text, Future[Verdict]]] = deque()
    rows: list[Rollout] = []
    total = accepted = 0
    now = datetime.now(UTC).isoformat(timespec="seconds")

    def store(down_to: int) -> None:
        nonlocal total, accepted
        while len(waiting) > down_to:
            query, attempt, sample, prompt, future = waiting.popleft()
            row = _rollout(
                query, attempt, sample, prompt, future.result(), renderer, strategy, label if attempt >= plain else None, model, now
            )
            rows.append(row)
            total, accepted = total + 1, accepted + row.correct
        if len(rows) >= _BATCH or not down_to:
            folder.ledger.add(rows)
            rows.clear()

    for query in queries:
        prompt = renderer.prompt(query)
        for attempt, sample in enumerate(found.drawn[query.id]):
            waiting.append((query, attempt, sample, prompt, grader.submit(query, sample.text)))
            store(256)
    store(0)
    return {"samples": total, "accepted": accepted}


def _rollout(
    query: Query, attempt: int, sample: Sample, prompt: Text, verdict: Verdict, renderer: Renderer, strategy: str, label: str | None,
    model: str, now: str,
) -> Rollout:  # fmt: skip
    def count(text: str) -> int:
        return len(renderer.encode(text)) if renderer.tokenizer is not None else (len(text) + 3) // 4

    status = "truncated" if sample.finish_reason == "length" else verdict.status
    return Rollout(
        query_id=query.id, task=query.task, level=query.level, iteration=0, attempt=attempt, strategy=strategy, guidance=label, prompt=prompt.text,
        given="", response=sample.text, completion=sample.text, prompt_ids=None, response_ids=None, prompt_tokens=count(prompt.text), given_tokens=0,
        generated_tokens=count(sample.text) if sample.tokens is None else sample.tokens, finish_reason=sample.finish_reason, seed=0,
        model=sample.model or model, status=status, correct=status == "correct", steps_ok=verdict.steps_ok, extracted=verdict.extracted,
        detail=verdict.detail, created_at=now,
    )  # fmt: skip


def show(counts: Mapping[str, int], output: Path) -> str:
    share = counts["accepted"] / counts["samples"] if counts["samples"] else 0.0
    text = f"{counts['samples']} samples of {counts['queries']} questions graded into {output}: {counts['accepted']} right ({share:.1%})"
    if counts["left out"]:
        text += f"; {counts['left out']} rows left out, listed in {output / 'left_out.jsonl'}"
    return text + (f"; {counts['repeated']} items that stood there twice were read once" if counts["repeated"] else "")
