"""Training figures and the loop's own in one run of TensorBoard, trackio, wandb or mlflow, through transformers' own integrations.

A gsi run is one run of the tracker: the same id for every iteration and after every resume, and steps that count on from iteration to
iteration. Keys are the integrations' (`train/loss`, `train/learning_rate`, ...); the loop's figures are the keys of metrics.jsonl
behind `train/`, at the last step of their iteration.
"""

from __future__ import annotations

import copy
import importlib.util
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gsi.types import GsiError

PACKAGES = {"tensorboard": "tensorboard", "trackio": "trackio", "wandb": "wandb", "mlflow": "mlflow"}


def check(kind: str) -> None:
    """Raises GsiError where the tracker's package is not installed."""
    if kind != "none" and importlib.util.find_spec(PACKAGES[kind]) is None:
        raise GsiError(f"report_to: {kind} needs the package {PACKAGES[kind]}; install it, or set report_to=none")


def settings(kind: str, run: Path, identity: str, offset: int) -> dict[str, Any]:
    """What a process needs to write into the tracker's run: plain values.

    Args:
        run: the run folder; TensorBoard's files go into its folder `tracking`, the others where they always go.
        identity: of the run, the same for ever.
        offset: training steps of all iterations before.
    """
    name = f"{run.resolve().name}-{identity}"
    environment = {
        "tensorboard": {"TENSORBOARD_LOGGING_DIR": str(run / "tracking")},
        "wandb": {"WANDB_RUN_ID": identity, "WANDB_RESUME": "allow", "WANDB_LOG_MODEL": "false"},
        "mlflow": {"MLFLOW_RUN_ID": identity},
        "trackio": {},
    }[kind]
    return {"kind": kind, "name": name, "project": os.environ.get("WANDB_PROJECT", "gsi"), "offset": offset, "environment": environment}


def new_identity(kind: str, run: Path) -> str:
    """An id for a run that begins. mlflow gives its own."""
    if kind == "mlflow":
        import mlflow

        with mlflow.start_run(run_name=run.resolve().name) as started:
            return started.info.run_id
    return os.urandom(4).hex()


def callback(tracking: Mapping[str, Any]) -> Any:
    """A transformers callback that hands training's logs to the tracker at the steps of the whole run."""
    from transformers import TrainerCallback

    os.environ.update(tracking["environment"])
    inner = _integration(tracking["kind"])

    class Tracked(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            inner.on_train_begin(args, shifted(state), control, **kwargs)

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            inner.on_log(args, shifted(state), control, logs=logs, **kwargs)

        def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            inner.on_train_end(args, shifted(state), control, **kwargs)

    def shifted(state: Any) -> Any:
        state = copy.copy(state)
        state.global_step += tracking["offset"]
        return state

    return Tracked()


def log(tracking: Mapping[str, Any], figures: Mapping[str, Any], scratch: Path) -> None:
    """Writes the loop's figures at step `offset`, from the process that runs the loop."""
    from transformers import TrainerControl, TrainerState, TrainingArguments

    numbers = {k: v for k, v in figures.items() if isinstance(v, int | float) and k != "iteration"}
    with _environment(tracking["environment"]):
        inner = _integration(tracking["kind"])
        args = TrainingArguments(
            output_dir=str(scratch), report_to="none", run_name=tracking["name"], project=tracking["project"], use_cpu=True
        )
        state, control = TrainerState(is_world_process_zero=True, global_step=tracking["offset"]), TrainerControl()
        inner.on_train_begin(args, state, control)
        inner.on_log(args, state, control, logs=numbers)
        inner.on_train_end(args, state, control)


def _integration(kind: str) -> Any:
    from transformers.integrations import get_reporting_integration_callbacks

    return get_reporting_integration_callbacks([kind])[0]()


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {key: os.environ.get(key) for key in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                del os.environ[key]
            else:
                os.environ[key] = value
