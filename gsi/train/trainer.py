"""TRL's SFTTrainer with our batches, example weights, checkpoints that survive `kill -9`, and a loss that must be a number.

Only the training child imports this file. What is TRL's stays TRL's: the model's forward pass with its fused head, the optimizer,
the schedule, accumulation, mixed precision, DDP. Without weights the loss equals TRL's to the last bits (tests/test_training.py).
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from accelerate.utils import is_peft_model
from torch.utils.data import DataLoader
from trl import SFTTrainer
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling
from trl.trainer.utils import add_fused_lm_head

from gsi.train.architecture import check_head
from gsi.train.rows import Order, Plan, Rows
from gsi.types import GsiError

DONE = "complete"  # a checkpoint without this file was interrupted and is not used


class Trainer(SFTTrainer):
    """Trains `rows` in the order of `plan`.

    The loss of an optimizer step is sum(weight x negative log-likelihood) / trained tokens, over all its micro-batches and processes.
    Raises GsiError for a loss or gradient that is no number, naming the rows.
    """

    def __init__(self, *, rows: Rows, plan: Plan, **kwargs: Any):
        self.collate = Collator(kwargs["processing_class"].pad_token_id, plan.packing)
        # with a collator of its own TRL would write the pad token into the model's configs, with a tokenizer transformers would align them with
        # it when training begins: the model would be saved with training's pad token, or, where its generation config is one that
        # transformers saves only as it was loaded, not at all
        super().__init__(data_collator=self.collate, **kwargs)
        self.processing_class = None
        # the loss is made here, and the model is given no count: transformers must count the batch's tokens whatever the model's own loss takes
        self.model_accepts_loss_kwargs = True
        whole: Any = self.model
        base = whole.get_base_model() if is_peft_model(whole) else whole
        check_head(base)
        add_fused_lm_head(base, outputs=("log_probs",))  # TRL's own, without the entropy and accuracy it would log
        self.rows, self.plan = rows, plan
        self._micro = 0  # micro-batches of the current step that this process has seen

    def get_train_dataloader(self) -> DataLoader:
        """Not prepared by accelerate, which would cut it once more: every process reads its own part of the plan."""
        order: Any = Order(self.plan, self.args.process_index)
        return DataLoader(self.rows, batch_sampler=order, collate_fn=self.collate, pin_memory=self.args.dataloader_pin_memory)  # type: ignore[arg-type]

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None) -> Any:
        weights = inputs.pop("weights")  # (rows, tokens)
        inputs["use_cache"] = False
        if self.aux_loss_enabled:
            inputs["output_router_logits"] = True
        outputs = model(**inputs, fused_lm_head=True)
        count = outputs.label_mask.sum() if num_items_in_batch is None else num_items_in_batch
        loss = -(outputs.log_probs * weights[:, 1:]).sum() / torch.as_tensor(count).clamp(min=1)
        if num_items_in_batch is not None:
            loss = loss * self.accelerator.num_processes  # DDP and FSDP average gradients over processes, `count` is over all of them
        if self.aux_loss_enabled:
            loss = loss + self.router_aux_loss_coef * outputs.aux_loss / self.current_gradient_accumulation_steps
        return loss

    def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        loss = super().training_step(model, inputs, *args, **kwargs)
        self._micro += 1
        if not torch.isfinite(loss):
            raise self._no_number("loss", loss.item(), self._micro - 1)
        return loss

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        """The last look before the optimizer: an infinite gradient would destroy the weights, whatever the loss says."""
        norm = super()._get_grad_norm(model, grad_norm)
        if norm is not None and not np.isfinite(float(norm)):
            raise self._no_number("gradient norm", float(norm), None)
        self._micro = 0
        return norm

    def _no_number(self, what: str, value: float, micro: int | None) -> GsiError:
        step, p = self.state.global_step, self.plan
        parts = p.micro_batches(step)
        chosen = [i for part in parts for i in part] if micro is None else parts[micro * p.processes + self.args.process_index]
        names = "; ".join(self.rows.names[i] for i in chosen[:8]) + (f"; and {len(chosen) - 8} more" if len(chosen) > 8 else "")
        return GsiError(
            f"the {what} became {value} in step {step + 1} of {p.steps}, in the batch of these rows: {names}. The last good model and the last "
            "checkpoint are kept. Lower train.learning_rate or train.clip, or look at these rows in the iteration's train.parquet"
        )

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        self.state.epoch = self.state.global_step / self.plan.steps_per_epoch  # transformers sees one epoch, ours are in the plan
        transformers.Trainer.log(self, logs, start_time)

    # ----------------------------------------------------------------------------------- checkpoints

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """A checkpoint, then the mark that it is whole, then the older ones go: one at least survives at any moment."""
        folder = Path(self.args.output_dir or ".") / f"checkpoint-{self.state.global_step}"
        if self.is_distributed_loading_by_transformers:
            self._save_sharded(folder)
        else:
            transformers.Trainer._save_checkpoint(self, model, trial)  # not TRL's: it would write a model card first
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            (folder / DONE).touch()
            for old in Path(self.args.output_dir or ".").glob("checkpoint-*"):
                if old != folder:
                    shutil.rmtree(old)

    def _save_sharded(self, folder: Path) -> None:
        """Every process writes its own shards of weights and optimizer (transformers has no resume for models sharded at load time)."""
        import torch.distributed.checkpoint as dcp
        from torch.distributed.checkpoint.state_dict import get_state_dict

        trained, stepper, schedule = self._parts()
        model, optimizer = get_state_dict(trained, stepper)
        dcp.save({"model": model, "optimizer": optimizer}, checkpoint_id=str(folder / "shards"))
        self._save_rng_state(str(folder))
        if self.args.should_save:
            torch.save(schedule.state_dict(), folder / "scheduler.pt")
            self.state.save_to_json(str(folder / "trainer_state.json"))

    def _parts(self) -> tuple[Any, Any, Any]:
        """Model, torch's own optimizer beneath accelerate's, schedule."""
        optimizer: Any = self.optimizer
        return self.model, optimizer.optimizer, self.lr_scheduler

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if not self.is_distributed_loading_by_transformers:
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None or not self.is_distributed_loading_by_transformers:
            return super()._load_optimizer_and_scheduler(checkpoint)
        import torch.distributed.checkpoint as dcp
        from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

        trained, stepper, schedule = self._parts()
        model, optimizer = get_state_dict(trained, stepper)
        state: Any = {"model": model, "optimizer": optimizer}
        dcp.load(state, checkpoint_id=str(Path(checkpoint) / "shards"))
        set_state_dict(trained, stepper, model_state_dict=state["model"], optim_state_dict=state["optimizer"])
        schedule.load_state_dict(torch.load(Path(checkpoint) / "scheduler.pt", weights_only=True))
        return None


def last_checkpoint(work: Path, clean: bool) -> Path | None:
    """The newest whole checkpoint. `clean` removes interrupted ones, in one process of several: the others pass them by."""
    found = []
    for folder in work.glob("checkpoint-*"):
        if (folder / DONE).exists():
            found.append((int(folder.name[11:]), folder))
        elif clean:
            shutil.rmtree(folder)
    return max(found)[1] if found else None


class Collator:
    """TRL's collator plus a weight per token; packs instead of padding where asked.

    -> input_ids, labels, weights (rows, tokens), and attention_mask or, packed, position_ids and the boundaries of one row of all tokens.
    """

    def __init__(self, pad: int, packing: bool):
        self.inner = DataCollatorForLanguageModeling(pad_token_id=pad, padding_free=packing)
        self.packing = packing
        self.rows = 0  # handed out so far

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        self.rows += len(rows)
        if not rows:  # an empty part of a short batch: something to run forward and backward, worth nothing
            rows = [{"input_ids": np.zeros(2, np.int64), "labels": np.full(2, -100), "weight": 0.0}]
        batch = self.inner([{"input_ids": r["input_ids"], "labels": r["labels"]} for r in rows])
        weights = torch.tensor([r["weight"] for r in rows], dtype=torch.float32)
        if self.packing:
            lengths = torch.tensor([len(r["input_ids"]) for r in rows])
            batch["weights"] = weights.repeat_interleave(lengths)[None]
        else:
            # memory of its own: the loader pins a batch by copying it into storage with the same strides
            batch["weights"] = weights[:, None].expand(batch["input_ids"].shape).contiguous()
        return batch


class Report(transformers.TrainerCallback):
    """Progress lines, figures per second, and when to write a checkpoint. The first process decides for all."""

    def __init__(self, emit: Callable[..., None], plan: Plan, minutes: float, steps: int):
        self.emit, self.plan, self.minutes, self.steps = emit, plan, minutes, steps
        self.saved = self.logged = time.monotonic()
        self.at = 0  # step of the last log

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.saved = self.logged = time.monotonic()
        self.at = state.global_step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.emit("step", step=state.global_step, steps=state.max_steps)
        due = bool(self.steps) and state.global_step % self.steps == 0
        if self.minutes:
            late = torch.tensor(float(time.monotonic() - self.saved > 60 * self.minutes), device=args.device)
            if self.plan.processes > 1:
                torch.distributed.broadcast(late, 0)
            due = due or bool(late)
        last = state.global_step >= state.max_steps
        control.should_log |= due or last  # the mean loss needs a log where training ends, or may start again
        control.should_save |= due and not last

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.saved = time.monotonic()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if "loss" in logs:
            now = time.monotonic()
            tokens = sum(int(self.plan.lengths[self.plan.batch(s)].sum()) for s in range(self.at, state.global_step))
            logs["tokens_per_s"] = round(tokens / max(now - self.logged, 1e-9), 1)
            self.at, self.logged = state.global_step, now


def mean_loss(history: list[dict[str, Any]]) -> float:
    """Mean over steps from the logs, which checkpoints carry: the same with and without a resume."""
    total, before = 0.0, 0
    for entry in history:
        if "loss" in entry:
            total += entry["loss"] * (entry["step"] - before)
            before = entry["step"]
    return total / max(before, 1)


def write_json(path: Path, value: Any) -> None:
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(value, ensure_ascii=False, indent=1), encoding="utf-8")
    part.replace(path)
