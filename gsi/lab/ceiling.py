"""`python -m gsi.lab.ceiling`: how much room a pool of questions leaves between the arms of a study on `dag`.

Trains one base (seed 2) on perfect rows for the pool's questions, four solutions each: in the base's own words, which is the best that any sampling could
bring, and in the references'. Prints greedy accuracy on fresh questions by level, every step right. Five minutes on one core.
"""

from __future__ import annotations

import random
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
from gsi.lab.command import end
from gsi.lab.greedy import right
from gsi.types import Query, TrainJob

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
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(folder, use_safetensors=True).eval()
    fresh = {level: dag.queries(SEED + 1_000_000, FRESH, [level]) for level in dag.HARD_LEVELS}
    return {level: right(model, tokenizer, queries, dag_check.check, 128) / len(queries) for level, queries in fresh.items()}


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
    end(main)
