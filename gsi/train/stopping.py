"""Early stopping on rows of held-out queries, for one process or many. Only the training child imports this file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers

from gsi.train.rows import Order, Plan, Rows


class EarlyStopping(transformers.TrainerCallback):
    """Evaluates `evaluations` times, stops after `patience` of them without a new best, and brings the best weights back.

    The history survives a resume; the best weights lie in work/best_N.pt (one file, or with sharded weights one per process).
    """

    def __init__(self, rows: Rows, plan: Plan, settings: dict[str, Any], work: Path, say: Callable[[str], None]):
        self.rows, self.patience, self.work, self.say = rows, settings["patience"], work, say
        self.every = max(1, plan.steps // settings["evaluations"])
        self.micro = Plan(rows.lengths, plan.micro_batch_size * plan.processes, plan.micro_batch_size, 1, 0, plan.processes, plan.packing)
        self.history: list[tuple[int, float]] = []  # (step, loss per trained token)
        self.trainer: Any = None

    @property
    def best(self) -> tuple[int, float]:
        return min(self.history, key=lambda x: (x[1], x[0]))

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        file = self.work / "stopping.json"
        if state.global_step and file.exists():
            self.history = [(s, loss) for s, loss in json.loads(file.read_text(encoding="utf-8")) if s <= state.global_step]

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step % self.every and state.global_step < state.max_steps:
            return
        self.history.append((state.global_step, self.loss()))
        if self.best[0] == state.global_step:
            self._keep()
        if args.process_index == 0:
            (self.work / "stopping.json").write_text(json.dumps(self.history), encoding="utf-8")
        since = sum(step > self.best[0] for step, _ in self.history)
        if since >= self.patience and state.global_step < state.max_steps:
            self.say(
                f"stopped early at step {state.global_step} of {state.max_steps}: the loss on held-out queries was best at step {self.best[0]}"
            )
            control.should_training_stop = control.should_log = True

    @torch.no_grad()
    def loss(self) -> float:
        """Weighted loss per trained token over all held-out rows."""
        t = self.trainer
        was, sums = t.model.training, torch.zeros(2, dtype=torch.float64)
        t.model.eval()
        for chosen in Order(self.micro, t.args.process_index):
            batch = t._prepare_inputs(t.collate([self.rows[i] for i in chosen]))
            with t.compute_loss_context_manager():
                count = (batch["labels"][:, 1:] != -100).sum()
                sums += torch.tensor(
                    [t.compute_loss(t.model_wrapped, batch).item() * max(count.item(), 1), count.item()], dtype=torch.float64
                )
        t.model.train(was)
        if t.plan.processes > 1:
            sums = sums.to(t.args.device)
            torch.distributed.all_reduce(sums)
        return (sums[0] / sums[1]).item()

    def _file(self) -> Path:
        sharded = self.trainer.is_distributed_loading_by_transformers
        return self.work / f"best_{self.trainer.args.process_index if sharded else 0}.pt"

    def _weights(self) -> dict[str, torch.Tensor]:
        return {n: getattr(p, "to_local", lambda p=p: p)() for n, p in self.trainer.model.named_parameters() if p.requires_grad}

    def _keep(self) -> None:
        if self.trainer.is_distributed_loading_by_transformers or self.trainer.args.process_index == 0:
            torch.save(self._weights(), self._file())

    @torch.no_grad()
    def restore(self) -> dict[str, float]:
        """The best weights, where the last are not the best. Returns figures."""
        if self.best[0] != self.history[-1][0]:
            self.trainer.accelerator.wait_for_everyone()
            stored = torch.load(self._file(), map_location="cpu", weights_only=True)
            for name, weight in self._weights().items():
                weight.copy_(stored[name])
        return {"best_step": self.best[0], "validation_loss": self.best[1]}
