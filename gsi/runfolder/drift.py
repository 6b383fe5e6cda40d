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
        "teacher.url", "teacher.api_key_env", "teacher.concurrency", "teacher.retries", "teacher.timeout")  # fmt: skip
BOUND = ("engine.function", "engine.score", "engine.shuffle", "engine.max_length")  # exceptions to the above


def refuse_drift(path: Path, config: Config, data: Mapping[str, str], state: Mapping[str, Any]) -> None:
    changed = changes(path, config, state)
    bound = [key for key in changed if is_bound(key)]
    lines = [f"  {key}: {old!r} -> {new!r}" for key, (old, new) in changed.items() if key in bound]
    before = state["data"]
    lines += [f"  data of task {name}: its queries differ from those the run began with" for name in data if before.get(name) != data[name]]
    if lines:
        raise GsiError(
            f"{path}: this run was started with another config or other data:\n" + "\n".join(lines)
            + "\nUse the old values to resume, another output_dir, or --fork NAME to start a new run from what stays valid"
        )  # fmt: skip
    if config.iterations < state["iterations"] and any(k.startswith(f"iter_{config.iterations + 1}/") for k in state["stages"]):
        raise GsiError(
            f"{path}: iterations: {state['iterations']} -> {config.iterations}, but later ones have been run; they cannot be taken back"
        )


def changes(path: Path, config: Config, state: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    try:  # run.json has a checksum and a copy, config.yaml has not; runs of earlier versions have the latter only
        old = state.get("config") or yaml.safe_load((path / "config.yaml").read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as e:
        raise GsiError(f"{path / 'config.yaml'}: cannot be read: {e}") from e
    with suppress(ConfigError):  # keys that an earlier version did not have get their defaults, which are what it did
        old = load_config(old).dump()
    a, b = dict(_flat(_drawing(old))), dict(_flat(_drawing(config.dump())))
    return {key: (a.get(key), b.get(key)) for key in sorted(a.keys() | b.keys()) if a.get(key) != b.get(key)}


def _drawing(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config with the engine that draws; on how many machines is placement."""
    engine = config.get("engine")
    return {**config, "engine": engine["of"]} if isinstance(engine, Mapping) and engine.get("kind") == "ray" else dict(config)


def _flat(value: Any, prefix: str = "") -> Iterable[tuple[str, Any]]:
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
