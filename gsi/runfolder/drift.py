"""A config or data other than a run began with: what may change under it, and what is refused."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from gsi.config import Config, ConfigError, load_config
from gsi.types import GsiError

# config keys that may change under a run: they affect neither samples, nor training, nor evaluation
FREE = ("iterations", "preset", "dimensions", "cost", "output_dir", "engine", "mirror", "grading.workers", "grading.actors", "report_to", "keep_models", "train.micro_batch_size",
        "train.device", "train.processes", "train.cluster", "evaluate.perplexity_rows", "monitor", "train.parallel", "train.packing", "train.liger", "train.checkpoint_minutes", "train.checkpoint_steps", "train.stall",
        "teacher.url", "teacher.api_key_env", "teacher.concurrency", "teacher.retries", "teacher.timeout", "teacher.parameters")  # fmt: skip
# what a fork does again for a changed key, the first that fits; anything not named here: everything, so there is nothing to fork from
REDO = {
    ("sample.k", "sample.wanted", "sample.max_extra", "strategy", "allocation", "guidance", "teacher"): {"sample"},
    ("sample", "grading", "engine"): {"sample", "evaluate", "strata"},
    ("accept",): {"sample", "evaluate"},
    ("curate", "train", "control"): {"curate"},
    ("evaluate.pass_at_k", "evaluate.avg_at_k", "evaluate.max_new_tokens"): {"evaluate"},
    ("evaluate.tasks", "evaluate.trajectory", "evaluate.overlap"): {"test"},
}
# read by allocation bayes alone, so that another version's default for them changes nothing in other runs
OF_BAYES = ("allocation.hopeless", "allocation.saturated", "allocation.skip", "allocation.explore", "allocation.discount")
BOUND = ("engine.function", "engine.score", "engine.shuffle", "engine.max_length")  # exceptions to the above


def refuse_drift(path: Path, config: Config, data: Mapping[str, str], state: Mapping[str, Any]) -> None:
    changed = changes(path, config, state)
    bound = [key for key in changed if is_bound(key)]
    lines = [f"  {key}: {old!r} -> {new!r}" for key, (old, new) in changed.items() if key in bound]
    for name in other_data(data, state):
        kind, _, task = name.rpartition(" ")
        what = "its checker is not the one" if kind == "check" else "its queries differ from those"
        lines.append(f"  {'task' if kind == 'check' else 'data of task'} {task if kind == 'check' else name}: {what} the run began with")
    if lines:
        keeps = not again(config, bound, data, state)[1]
        ways = (
            "another output_dir, or `gsi run` with --fork NAME to start a new run from what stays valid"
            if keeps
            else "or another output_dir"
        )
        raise GsiError(
            f"{path}: this run was started with another config or other data:\n"
            + "\n".join(lines)
            + f"\nUse the old values to resume, {ways}"
        )
    if config.iterations < state["iterations"] and any(k.startswith(f"iter_{config.iterations + 1}/") for k in state["stages"]):
        raise GsiError(
            f"{path}: iterations: {state['iterations']} -> {config.iterations}, but later ones have been run; they cannot be taken back"
        )


def other_data(data: Mapping[str, str], state: Mapping[str, Any]) -> list[str]:
    """What differs of the fingerprints: `N:TASK`, `test N:TASK`, `check TASK`. Runs of earlier versions know of no checkers."""
    before = state["data"]
    return [name for name in data if before.get(name) != data[name] and (name in before or not name.startswith("check "))]


def again(config: Config, keys: Iterable[str], data: Mapping[str, str], state: Mapping[str, Any]) -> tuple[set[str], list[str]]:
    """What a fork does again (`sample`, `curate` and `train` with all that rests on it, `evaluate`, `test`, `strata`), and what leaves nothing to keep."""
    found: set[str] = set()
    other = []
    for key in keys:
        redo = next((redo for names, redo in REDO.items() if under(key, names)), None)
        found |= redo or set()
        other += [] if redo else [key]
    if config.warm_start and any(under(key, ("train",)) for key in keys):
        found.add("train")
    gone = [name for name in state["data"] if name not in data and name.startswith("test ")]
    for name in (*other_data(data, state), *gone):
        found |= {"sample", "evaluate", "strata"} if name.startswith("check ") else {"test"}
        other += [] if name.startswith(("check ", "test ")) else [f"data of task {name}"]
    return found, other


def changes(path: Path, config: Config, state: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    try:  # run.json has a checksum and a copy, config.yaml has not; runs of earlier versions have the latter only
        old = state.get("config") or yaml.safe_load((path / "config.yaml").read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as e:
        raise GsiError(f"{path / 'config.yaml'}: cannot be read: {e}") from e
    with suppress(ConfigError):  # keys that an earlier version did not have get their defaults, which are what it did
        old = load_config(old).dump()
    a, b = dict(_flat(_drawing(old))), dict(_flat(_drawing(config.dump())))
    return {
        key: (a.get(key), b.get(key))
        for key in sorted(a.keys() | b.keys())
        if a.get(key) != b.get(key) and (_read(key, a) or _read(key, b))
    }


def _read(key: str, config: Mapping[str, Any]) -> bool:
    return key not in OF_BAYES or config.get("allocation.kind") == "bayes"


def _drawing(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config with the engine that draws; on how many machines is placement."""
    engine = config.get("engine")
    return {**config, "engine": engine["of"]} if isinstance(engine, Mapping) and engine.get("kind") == "ray" else dict(config)


def _flat(value: Any, prefix: str = "") -> Iterable[tuple[str, Any]]:
    if isinstance(value, list | tuple) and value and all(isinstance(item, Mapping) for item in value):
        value = dict(enumerate(value))
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _flat(item, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, value


def is_bound(key: str) -> bool:
    """Whether a run belongs to the value of this key."""
    return not under(key, FREE) or under(key, BOUND)


def under(key: str, prefixes: Iterable[str]) -> bool:
    return any(key == p or key.startswith(p + ".") for p in prefixes)
