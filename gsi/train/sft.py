"""The training child: TRL's SFTTrainer on exactly the tokens that were sampled.

    python -m gsi.train.sft   # a TrainJob as one line of JSON on standard input; progress as JSON lines on standard output

Rows come tokenized with their loss mask (`input_ids`, `loss_mask` of train.parquet): nothing is tokenized, truncated or
dropped here. Left out so far: several processes, packing, resuming inside training, example weights.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from gsi.train.launch import exit_with_parent
from gsi.types import GsiError, TrainJob


def main() -> None:
    job = TrainJob(**json.loads(sys.stdin.readline()))
    exit_with_parent()
    try:
        figures = train(job)
    except GsiError as e:
        emit("error", message=str(e))
        sys.exit(2)
    emit("done", figures=figures)


def emit(kind: str, **fields: Any) -> None:
    print(json.dumps({"gsi": kind, **fields}), flush=True)


def train(job: TrainJob) -> dict[str, float]:
    """Trains and writes job.output. Returns loss (mean over steps), steps, tokens (trained, mask 1), seconds_training."""
    import torch
    import transformers
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    s = job.settings
    device = s["device"] if s["device"] != "auto" else ("cuda" if torch.cuda.is_available() else "cpu")
    bf16 = s["dtype"] == "bfloat16" or (s["dtype"] == "auto" and device != "cpu")
    transformers.set_seed(job.seed % 2**32)
    rows, tokens = _rows(job)
    tokenizer = AutoTokenizer.from_pretrained(job.tokenizer)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token  # in memory, for the collator, which masks padding by length
    config = transformers.AutoConfig.from_pretrained(job.model)
    stored = config.dtype if isinstance(config.dtype, torch.dtype) else torch.float32
    # master weights in float32; autocast does the rest on GPU. LoRA keeps the frozen base as it is stored.
    model = AutoModelForCausalLM.from_pretrained(job.model, dtype=stored if s["method"] == "lora" and device != "cpu" else torch.float32)

    class Guarded(SFTTrainer):
        """Stops at the first loss that is no number, before it reaches the weights of a saved model."""

        def training_step(self, *args: Any, **kwargs: Any) -> Any:
            loss = super().training_step(*args, **kwargs)
            if not torch.isfinite(loss):
                raise GsiError(
                    f"the loss became {loss.item()} at step {self.state.global_step + 1}; the last good model is kept. "
                    "Lower train.learning_rate, or look at the rows of this iteration's train.parquet"
                )
            return loss

        def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
            return None

    class Report(transformers.TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            emit("step", step=state.global_step, steps=state.max_steps)

    micro = max(d for d in range(1, s["micro_batch_size"] + 1) if s["batch_size"] % d == 0)
    arguments = SFTConfig(
        output_dir=job.work,
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=s["batch_size"] // micro,
        learning_rate=s["learning_rate"],
        num_train_epochs=s["epochs"],
        lr_scheduler_type={"constant": "constant_with_warmup"}.get(s["schedule"], s["schedule"]),
        warmup_steps=s["warmup"],  # below 1: a share of the steps
        weight_decay=s["weight_decay"],
        max_grad_norm=s["clip"],
        seed=job.seed % 2**32,
        bf16=bf16,
        use_cpu=device == "cpu",
        gradient_checkpointing=s["gradient_checkpointing"],
        train_sampling_strategy="group_by_length",  # batches of similar lengths: little padding, loss per token all the same
        dataset_kwargs={"skip_prepare_dataset": True},
        max_length=None,
        packing=False,
        logging_steps=10,
        logging_nan_inf_filter=False,
        save_strategy="no",
        report_to=s.get("report_to", "none"),
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=device != "cpu",
    )
    peft = None
    if s["method"] == "lora":
        from peft import LoraConfig

        peft = LoraConfig(r=s["lora_r"], lora_alpha=s["lora_alpha"], target_modules="all-linear", task_type="CAUSAL_LM")
    trainer = Guarded(model=model, args=arguments, train_dataset=rows, processing_class=tokenizer, peft_config=peft, callbacks=[Report()])
    for callback in (transformers.PrinterCallback, transformers.trainer_callback.ProgressCallback):
        trainer.remove_callback(callback)
    started = time.perf_counter()
    try:
        result = trainer.train()
    except torch.cuda.OutOfMemoryError as e:
        raise GsiError(f"out of GPU memory: {e}; lower train.micro_batch_size or set train.gradient_checkpointing=true") from e
    seconds = time.perf_counter() - started
    trained = trainer.accelerator.unwrap_model(trainer.model)
    if peft is not None:
        trained = trained.merge_and_unload()
    trained.config.use_cache = True
    trained.to(stored).save_pretrained(job.output)
    AutoTokenizer.from_pretrained(job.tokenizer).save_pretrained(job.output)  # as it was: no pad token of our making
    return {"loss": result.training_loss, "steps": trainer.state.global_step, "tokens": tokens * s["epochs"], "seconds_training": seconds}


def _rows(job: TrainJob) -> tuple[Any, int]:
    """The data set of (input_ids, labels) and the number of trained tokens per epoch."""
    import pyarrow.parquet as pq
    from datasets import Dataset

    table = pq.read_table(job.data, columns=["input_ids", "loss_mask", "weight"]).to_pydict()
    if any(w != 1 for w in table["weight"]):
        raise GsiError(f"{job.data}: rows with a weight other than 1; this trainer has no weighted loss")
    labels = [[t if m else -100 for t, m in zip(i, k, strict=True)] for i, k in zip(table["input_ids"], table["loss_mask"], strict=True)]
    if not labels:
        raise GsiError(f"{job.data}: no rows")
    if masked := sum(all(x == -100 for x in row) for row in labels):
        raise GsiError(f"{job.data}: {masked} rows with nothing to train on (loss mask all 0)")
    trained = sum(x != -100 for row in labels for x in row)
    lengths = [len(row) for row in labels]
    return Dataset.from_dict({"input_ids": table["input_ids"], "labels": labels, "length": lengths}), trained


if __name__ == "__main__":
    main()
