"""`python -m gsi.lab.row_order RUN`: the same training rows in two orders, all else equal. Does grouping by length cost the tail?

RUN is a run of the chain task on a lab model (`gsi run configs/lab/chain.yaml`). Its base is trained on iteration 1's rows with batches drawn at random, and with
batches of similar length as `group_by_length` of transformers makes them: stretches of 50 batches, each sorted, longest first. Prints
greedy accuracy on fresh questions, every step right, by band of levels. A plain torch loop: nothing of the trainer takes part.
"""

from __future__ import annotations

import math
import random
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch

from gsi.config import load_config
from gsi.files import read_json
from gsi.lab import chain
from gsi.lab.command import end
from gsi.lab.greedy import right
from gsi.types import GsiError

BANDS = {"levels 1-3": range(1, 4), "levels 4-6": range(4, 7), "levels 7-10": range(7, 11)}
STRETCH = 50  # batches


def order(lengths: list[int], size: int, grouped: bool, rng: random.Random) -> list[list[int]]:
    """Row numbers of every batch of one pass."""
    rows = list(range(len(lengths)))
    rng.shuffle(rows)
    if grouped:
        stretches = [rows[i : i + STRETCH * size] for i in range(0, len(rows), STRETCH * size)]
        rows = [row for stretch in stretches for row in sorted(stretch, key=lambda i: -lengths[i])]
    return [rows[i : i + size] for i in range(0, len(rows), size)]


def train(base: str, rows: list[dict[str, Any]], settings: Any, grouped: bool, seed: int) -> Any:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, use_safetensors=True)
    head, rng, size = model.get_output_embeddings(), random.Random(seed), settings.batch_size
    lengths = [len(row["input_ids"]) for row in rows]
    batches = [batch for _ in range(round(settings.epochs)) for batch in order(lengths, size, grouped, rng)]
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    warm = max(1, math.ceil(settings.warmup * len(batches)))
    model.train()
    for step, batch in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * min((step + 1) / warm, (len(batches) - step) / (len(batches) - warm + 1))
        longest = max(lengths[i] for i in batch)
        ids = torch.tensor([rows[i]["input_ids"] + [0] * (longest - lengths[i]) for i in batch])
        mask = torch.tensor([rows[i]["loss_mask"] + [0] * (longest - lengths[i]) for i in batch])[:, 1:] == 1
        # padding is on the right, where causal attention never looks back at it
        hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
        loss = torch.nn.functional.cross_entropy(head(hidden[mask]), ids[:, 1:][mask])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


def accuracy(model: Any, tokenizer: Any, per_level: int = 40, seed: int = 1000) -> dict[str, float]:
    """Share of fresh questions with every step right, greedy, by band."""
    found = {}
    for band, levels in BANDS.items():
        queries = chain.queries(seed, per_level, levels)
        found[band] = right(model, tokenizer, queries, chain.check, 96) / len(queries)
    return found


def main() -> int:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(1)
    run = Path(sys.argv[1])
    if not (run / "iter_1" / "train.parquet").exists():
        raise GsiError(f"{run}: no iter_1/train.parquet in it; name an arm of `make demo`, for example runs/demo/vanilla")
    config, base = load_config(run / "config.yaml"), read_json(run / "run.json")["models"]["0"]
    rows = pq.read_table(run / "iter_1" / "train.parquet", columns=["input_ids", "loss_mask"]).to_pylist()
    tokenizer = AutoTokenizer.from_pretrained(base)

    def say(name: str, model: Any) -> None:
        print(name, *(f"{band} {share:.1%}" for band, share in accuracy(model, tokenizer).items()), sep="; ", flush=True)

    say("base", AutoModelForCausalLM.from_pretrained(base, use_safetensors=True).eval())
    for seed in (1, 2, 3):
        for grouped in (False, True):
            say(f"seed {seed}, {'grouped by length' if grouped else 'random batches'}", train(base, rows, config.train, grouped, seed))
    return 0


if __name__ == "__main__":
    end(main)
