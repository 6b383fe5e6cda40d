"""`python -m gsi.lab.ceiling`: how much room a pool of questions leaves between the arms of a study on `dag`.

Trains one base (seed 2) on perfect rows for the pool's questions, four solutions each: in the base's own words, which is the best that any sampling could
bring, and in the references'. Prints greedy accuracy on fresh questions by level, every step right. Five minutes on one core.
"""

from __future__ import annotations

import random
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gsi.config.training import Train
from gsi.lab import dag, dag_check, trainer
from gsi.lab.base import resolve
from gsi.types import GsiError, Query, TrainJob

SEED, COPIES, FRESH = 2, 4, 120
SETTINGS = {"epochs": 3, "learning_rate": 1e-3, "batch_size": 16, "micro_batch_size": 16}  # of the studies
WORDS: dict[str, Callable[[dag.Problem, random.Random], str]] = {"own words": dag.own_words, "references": dag.reference}


def rows(queries: Sequence[Query], solve: Callable[[dag.Problem, random.Random], str], tokenizer: Any) -> list[dict[str, Any]]:
    found = []
    for query in queries:
        problem, prompt = dag_check.parse(query), tokenizer(query.question)["input_ids"]
        for copy in range(COPIES):
            ids = [*tokenizer(solve(problem, random.Random(f"{query.id}/{copy}")))["input_ids"], tokenizer.eos_token_id]
            mask = [0] * len(prompt) + [1] * len(ids)
            found.append({"input_ids": prompt + ids, "loss_mask": mask, "weight": 1.0, "query_id": query.id, "attempt": copy})
    return found


def accuracy(folder: Path, tokenizer: Any) -> dict[int, float]:
    """By hard level: share of fresh questions with every step right."""
    import torch
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(folder, use_safetensors=True).eval()
    found = {}
    for level in dag.HARD_LEVELS:
        queries, right = dag.queries(SEED + 1_000_000, FRESH, [level]), 0
        prompts = [tokenizer(q.question)["input_ids"] for q in queries]
        for length in {len(p) for p in prompts}:  # prompts of one length need no padding
            same = [i for i, p in enumerate(prompts) if len(p) == length]
            ids = torch.tensor([prompts[i] for i in same])
            with torch.inference_mode():
                out = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=128)
            texts = tokenizer.batch_decode(out[:, length:], skip_special_tokens=True)
            right += sum(dag_check.check(text, queries[i]).steps_ok is True for i, text in zip(same, texts, strict=True))
        found[level] = right / len(queries)
    return found


def main() -> int:
    import torch
    from transformers import AutoTokenizer

    torch.set_num_threads(1)
    base = resolve(f"lab:dag:{SEED}")
    tokenizer = AutoTokenizer.from_pretrained(base)

    def say(name: str, folder: Path) -> None:
        found = accuracy(folder, tokenizer)
        print(f"{name}: hard {fmean(found.values()):.1%} (" + ", ".join(f"level {k} {v:.0%}" for k, v in found.items()) + ")", flush=True)

    say("base", base)
    easy = dag.queries(SEED, 15, [1, 2, 3]) + dag.queries(SEED, 30, [4, 5])
    settings = Train(**SETTINGS).model_dump(mode="json", by_alias=True)
    for per_level in (70, 200):
        pool = easy + dag.queries(SEED, per_level, dag.HARD_LEVELS)
        for words, solve in WORDS.items():
            with tempfile.TemporaryDirectory() as scratch:
                data, out = Path(scratch) / "train.parquet", Path(scratch) / "model"
                pq.write_table(pa.Table.from_pylist(rows(pool, solve, tokenizer)), data)
                trainer.train(TrainJob(str(data), str(base), str(base), str(out), scratch, 1, settings))
                say(f"{per_level} per hard level, {words}", out)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except GsiError as e:
        sys.exit(f"{e}")
