"""The trainer of the lab's studies: a plain torch loop in the run's own process, with the batches, the loss and the steps of the real one.

    train: {kind: scripted, function: "gsi.lab.trainer:train"}

A tiny model trains for a few seconds, and starting a process with TRL takes longer than that; a step with it costs twice what the
arithmetic does. Here both are saved, and nothing else differs: the same plan of batches, example weights, AdamW, linear decay and
clipping, so the final weights are those of the TRL child up to floating point (`tests/test_lab_trainer.py`). Left out: everything a
real model needs (checkpoints, LoRA, several processes, mixed precision, packing).
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import torch

from gsi.train.rows import Plan, Rows, read_rows
from gsi.types import GsiError, TrainJob

# what it can do; TRL's weight decay leaves out biases and norms
ONLY = {"method": "full", "schedule": "linear", "weight_decay": 0.0, "processes": 1, "early_stopping": None}


def train(job: TrainJob) -> dict[str, float]:
    """Trains job.model on job.data into job.output. Returns loss (mean over steps), steps, tokens, seconds, seconds_training.

    Raises GsiError for a setting that only the TRL trainer has, and for a loss or gradient that is no number.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer, get_linear_schedule_with_warmup
    from transformers.utils.logging import disable_progress_bar

    s, begun = job.settings, time.perf_counter()
    for key, value in ONLY.items():
        if s[key] != value:
            raise GsiError(f"train.{key}: the lab's trainer knows {value!r} only, not {s[key]!r}; set train.kind=trl")
    disable_progress_bar()
    rows = read_rows(job.data)
    plan = Plan(rows.lengths, s["batch_size"], s["micro_batch_size"], s["epochs"], job.seed)
    model = AutoModelForCausalLM.from_pretrained(job.model, dtype=torch.float32, use_safetensors=True).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=s["learning_rate"], weight_decay=0.0, fused=True)
    schedule = get_linear_schedule_with_warmup(optimizer, math.ceil(plan.steps * s["warmup"]), plan.steps)
    started, total, tokens = time.perf_counter(), 0.0, 0
    for step in range(plan.steps):
        trained = int(rows.trained[plan.batch(step)].sum())
        for part in plan.micro_batches(step):
            if part:
                loss = _loss(model, rows, part) / trained
                loss.backward()
                total += loss.item()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), s["clip"])
        if not math.isfinite(total) or not torch.isfinite(norm):
            raise GsiError(f"training: loss or gradient is no number in step {step + 1} of {plan.steps}; lower train.learning_rate")
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        tokens += trained
    training = time.perf_counter() - started
    model.eval().save_pretrained(job.output)
    AutoTokenizer.from_pretrained(job.tokenizer).save_pretrained(Path(job.output))
    seconds = time.perf_counter() - begun
    return {"loss": total / plan.steps, "steps": plan.steps, "tokens": tokens, "seconds": seconds, "seconds_training": training}


def _loss(model: Any, rows: Rows, part: list[int]) -> torch.Tensor:
    """Sum over the trained tokens of the rows in `part` of weight x negative log-likelihood."""
    taken = [rows[i] for i in part]
    longest = max(len(row["input_ids"]) for row in taken)
    ids, labels = torch.zeros(len(part), longest, dtype=torch.long), torch.full((len(part), longest), -100)
    for i, row in enumerate(taken):
        ids[i, : len(row["input_ids"])] = torch.from_numpy(row["input_ids"])
        labels[i, : len(row["labels"])] = torch.from_numpy(row["labels"])
    # padding is on the right, where causal attention never looks back at it: no mask is needed
    hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
    counted = labels[:, 1:] != -100
    weights = torch.tensor([row["weight"] for row in taken], dtype=torch.float32)[:, None].expand(-1, longest - 1)[counted]
    losses = torch.nn.functional.cross_entropy(model.get_output_embeddings()(hidden[counted]), labels[:, 1:][counted], reduction="none")
    return (losses * weights).sum()
