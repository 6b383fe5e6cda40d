"""How a model is spread over processes: layouts by name, one YAML file each beside this one, or a file of your own."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

import yaml

from gsi.types import GsiError

LAYOUTS = ("single", "ddp", "fsdp2", "zero2", "zero3")


def read_layout(settings: dict[str, Any]) -> dict[str, Any]:
    """The layout of `train.parallel`: {} for plain DDP, `fsdp: {...}` or `deepspeed: {...}`. Raises GsiError for a file that is none."""
    name = settings["parallel"]
    path = Path(__file__).parent / "layouts" / f"{name}.yaml" if name in LAYOUTS else Path(name)
    try:
        layout = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, yaml.YAMLError) as e:
        raise GsiError(f"train.parallel: {name!r} is neither one of {', '.join(LAYOUTS)} nor a YAML file that can be read: {e}") from None
    if not isinstance(layout, dict) or set(layout) - {"fsdp", "deepspeed"}:
        raise GsiError(
            f"train.parallel: {name!r} must hold `fsdp:` (fields of transformers' DistributedConfig) or `deepspeed:` (its configuration)"
        )
    return {key: value or {} for key, value in layout.items()}


def gpu_index(device: str) -> int:
    """Which of the visible GPUs `train.device` names: `cuda:1` the second, `auto` and `cuda` the first."""
    kind, colon, index = device.partition(":")
    if kind not in ("auto", "cpu", "cuda") or (colon and not (kind == "cuda" and index.isdecimal())):
        raise GsiError(f"train.device: {device!r} is no device; use `auto`, `cpu`, `cuda` or `cuda:1`")
    return int(index or 0)


def pick_device(settings: dict[str, Any]) -> str:
    """cpu or cuda. Raises GsiError for devices and packages that are not there; loads torch only where it has to be asked."""
    wanted, processes, layout = settings["device"], settings["processes"], read_layout(settings)
    device, there = wanted, 0
    if wanted != "cpu":
        import torch

        there = torch.cuda.device_count()
        device = ("cuda" if there else "cpu") if wanted == "auto" else wanted
    if device != "cpu" and not there:
        raise GsiError(f"train.device: {wanted!r}, but torch sees no GPU; use auto or cpu")
    if (index := gpu_index(wanted)) and processes > 1:
        raise GsiError(
            f"train.device: {wanted!r} names one GPU, and {processes} processes take one each; use device=cuda, or train.processes=1"
        )
    if index and index >= there:
        raise GsiError(f"train.device: {wanted!r}, but torch sees {there} GPUs, of which the first is cuda:0")
    here = int(os.environ.get("LOCAL_WORLD_SIZE", processes))  # in a process group: those of this machine
    if device != "cpu" and here > there:
        raise GsiError(f"train.processes: {here}, but torch sees {there} GPUs; use at most {there}, or train.device=cpu")
    missing = "there is no GPU" if device == "cpu" else None
    if "deepspeed" in layout and (why := missing or _lacks("deepspeed")):
        raise GsiError(f"train.parallel: {settings['parallel']!r} needs GPUs and the package deepspeed, and {why}; use ddp or fsdp2")
    if settings["liger"] and (why := missing or _lacks("liger_kernel")):
        raise GsiError(f"train.liger: needs a GPU and the package liger-kernel, and {why}; set train.liger=false")
    if settings["method"] == "qlora" and (why := _lacks("bitsandbytes")):
        raise GsiError(f"train.method: qlora needs the package bitsandbytes, and {why}; use lora")
    if settings["method"] == "qlora" and processes > 1 and settings["parallel"] != "ddp":
        raise GsiError(f"train.method: qlora is not supported with train.parallel {settings['parallel']!r}; use ddp, or lora")
    return device


def _lacks(package: str) -> str | None:
    return None if importlib.util.find_spec(package) else f"{package} is not installed"
