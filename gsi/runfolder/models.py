"""Which model a stage reads, and the training of one that `keep_models` let go."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gsi.config import Config
from gsi.types import GsiError


def reads(c: Config, stage: str, n: int) -> int | None:
    """The iteration whose model a stage of iteration n reads; None = the base, or none."""
    if stage == "evaluate":
        return n
    from_last = _from_last(c.dump())
    if n > 0 and (stage == "sample" or (stage == "curate" and c.train.on_given == "entropy") or (stage == "train" and from_last)):
        return n - 1
    return None


def train_again(state: dict[str, Any], n: int) -> range:
    """Opens the training of iter_n's model again, and of those before it that it is trained from and that are not kept. Returns which.

    From the same rows with the same seed: what was drawn from these models stays.
    """
    chain = _chain(state, n)
    for m in chain:
        state["stages"].pop(f"iter_{m}/train", None)
        state["models"].pop(str(m), None)
    return chain


def refuse_untrainable(source: Path, state: Mapping[str, Any], n: int) -> None:
    """Raises GsiError where iter_n's model cannot be trained again from what the folder holds."""
    if gone := [m for m in _chain(state, n) if m > 0 and not (source / f"iter_{m}" / "train.parquet").exists()]:
        kept = ", ".join(sorted(state["models"], key=int))
        raise GsiError(
            f"--fork: {source}: the iter_{n} model is not kept, and the rows to train {'it' if gone == [n] else f'iter_{gone[0]}'} again are not there; "
            f"choose an `iterations` whose model is kept ({kept}), or another output_dir for a run of its own"
        )


def _chain(state: Mapping[str, Any], n: int) -> range:
    first, from_last = n, _from_last(state.get("config") or {})
    while first > 0 and from_last and str(first - 1) not in state["models"]:
        first -= 1
    return range(first, n + 1)


def _from_last(config: Mapping[str, Any]) -> bool:
    """Whether an iteration's training reads the model before it."""
    train = config.get("train") or {}
    return train.get("from") == "last" or (train.get("interpolate") or {}).get("with") == "last"
