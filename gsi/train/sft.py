"""The training child: TRL's SFTTrainer on exactly the tokens that were sampled.

    python -m gsi.train.sft JOB.json                                              # a TrainJob; progress as JSON lines on standard output
    python -m torch.distributed.run --nproc-per-node N -m gsi.train.sft JOB.json  # the same in N processes

Rows come tokenized with their loss mask (`input_ids`, `loss_mask`, `weight` of train.parquet): nothing is tokenized, truncated or
dropped here. What it writes under job.work: the log, checkpoints (one at a time), a LoRA adapter before it is merged.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from gsi.train.launch import OUT_OF_MEMORY, exit_with_parent, hold
from gsi.train.rows import Plan, read_rows, shown
from gsi.types import GsiError, TrainJob


def main() -> None:
    exit_with_parent()
    figures = run(TrainJob(**json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))))
    if first_process():
        emit("done", figures=figures)


def run(job: TrainJob) -> dict[str, float]:
    """The job in this process, one of its group. What ends it is told by `emit`, and the process with it."""
    hold(Path(job.work))
    try:
        return train(job)
    except GsiError as e:
        emit("error", message=str(e))
        leave(2)
    except RuntimeError as e:  # torch.OutOfMemoryError is one; the CPU's allocator has no class of its own
        from accelerate.utils.memory import should_reduce_batch_size

        if not should_reduce_batch_size(e):
            raise
        emit("out_of_memory", message=str(e).splitlines()[0])
        leave(OUT_OF_MEMORY)


def _to_parent(line: str) -> None:
    sys.stdout.write(line + "\n")  # one write a line: several processes share the pipe
    sys.stdout.flush()


send: Callable[[str], None] = _to_parent  # on a cluster another way (gsi/train/on_ray.py)


def emit(kind: str, **fields: Any) -> None:
    send(json.dumps({"gsi": kind, **fields}))


def leave(code: int) -> NoReturn:
    """Ends this process at once: the others of its group may wait for it in a collective, and torchrun ends them."""
    sys.stdout.flush()
    os._exit(code)


def first_process() -> bool:
    return os.environ.get("RANK", "0") == "0"


def train(job: TrainJob) -> dict[str, float]:
    """Trains and writes job.output. Returns loss (mean over steps), steps, tokens (trained, mask 1), seconds_training, and more."""
    import torch
    import transformers
    from datasets import Dataset
    from transformers import AutoTokenizer

    from gsi.train import loading, tracking
    from gsi.train import packing as packed
    from gsi.train.parallel import pick_device
    from gsi.train.stopping import EarlyStopping
    from gsi.train.trainer import Report, Trainer, last_checkpoint, mean_loss, write_json

    s, work = job.settings, Path(job.work)
    device = pick_device(s)
    rows = read_rows(job.data)
    packing = packed.wanted(s["packing"], device)
    plan = Plan(rows.lengths, s["batch_size"], s["micro_batch_size"], s["epochs"], job.seed, s["processes"], packing)
    tokenizer = AutoTokenizer.from_pretrained(job.tokenizer)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token  # in memory, for the collator, which masks padding by length
    transformers.set_seed(job.seed % 2**32)
    arguments = loading.arguments(job, plan, device)
    model, peft, stored = loading.model(job, arguments, device, packing)
    if packing and not packed.packs(model):
        plan = replace(plan, packing=False)
        if first_process():
            emit("say", text=f"rows are padded, not packed: packed ones would see each other in this architecture ({type(model).__name__})")
    if first_process():
        first = shown(rows, plan.micro_batches(0)[0], tokenizer.decode)
        write_json(Path(job.data).with_name("first_batch.json"), {"step": 1, "of": plan.steps, "rows": first})
        emit("first_batch", row=first[0], rows=len(plan.batch(0)))
        if len(rows) < s["batch_size"]:
            emit("say", text=f"{len(rows)} rows are fewer than train.batch_size {s['batch_size']}: every step takes all of them")

    report = Report(emit if first_process() else lambda *a, **k: None, plan, s["checkpoint_minutes"], s["checkpoint_steps"])
    callbacks: list[Any] = [report]
    if s.get("tracking") and first_process():
        callbacks.append(tracking.callback(s["tracking"]))
    stopping = None
    held = Path(job.data).with_name("validation.parquet")
    if s["early_stopping"] and held.exists():
        say = (lambda text: emit("say", text=text)) if first_process() else (lambda text: None)
        stopping = EarlyStopping(read_rows(held), plan, s["early_stopping"], work, say)
        callbacks.append(stopping)
    trainer = Trainer(
        rows=rows,
        plan=plan,
        model=model,
        args=arguments,
        train_dataset=Dataset.from_dict({"input_ids": [[0]], "labels": [[0]]}),  # a stand-in: the batches come from the plan
        processing_class=tokenizer,
        peft_config=peft,
        callbacks=callbacks,
    )
    for callback in (transformers.PrinterCallback, transformers.trainer_callback.ProgressCallback):
        trainer.remove_callback(callback)
    if stopping:
        stopping.trainer = trainer
    checkpoint = last_checkpoint(work, clean=first_process())
    if checkpoint and first_process():
        emit("say", text=f"training goes on from step {checkpoint.name[11:]} of {plan.steps}")
    started, processor = time.perf_counter(), time.process_time()
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    seconds, processor = time.perf_counter() - started, time.process_time() - processor
    emit("log", text="gsi " + json.dumps(loading.part(trainer)))  # that every process took part, and with what
    best = stopping.restore() if stopping else {}
    loading.save(job, trainer, stored, merge=peft is not None)
    trained = rows.trained
    return {
        "loss": mean_loss(trainer.state.log_history),
        "steps": trainer.state.global_step,
        "tokens": int(sum(trained[plan.batch(step)].sum() for step in range(trainer.state.global_step))),
        "seconds_training": seconds,
        "seconds_processor": processor,  # of this process; on one busy machine the fairer clock
        "micro_batch_size": s["micro_batch_size"],
        "processes": torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1,
        **best,
    }


if __name__ == "__main__":
    main()
