"""`gsi env`: versions and hardware, as a bug report needs them. No paths and no names of this machine."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import gsi

PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "tokenizers", "math-verify", "numpy", "pyarrow", "pydantic")
EXTRAS = ("vllm", "ray", "bitsandbytes", "liger-kernel", "flash-attn", "deepspeed", "lm-eval", "scipy")  # named where they are installed
VARIABLES = ("CUDA_VISIBLE_DEVICES", "HF_HUB_OFFLINE", "HF_ENDPOINT", "OMP_NUM_THREADS", "PYTORCH_CUDA_ALLOC_CONF", "GSI_CACHE")


def lines() -> Iterator[tuple[str, str]]:
    """(name, value), in the order to show them."""
    yield "gsi", f"{gsi.__version__}{f', commit {commit}' if (commit := _commit()) else ''}"
    yield "python", f"{platform.python_version()}, {platform.python_implementation()}"
    for name in (*PACKAGES, *EXTRAS):
        try:
            yield name, version(name)
        except PackageNotFoundError:
            if name in PACKAGES:
                yield name, "missing"
    yield "platform", platform.platform()
    yield "cores", f"{len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()} of {os.cpu_count()}"
    if memory := _memory():
        yield "memory", memory
    yield "free disk here", f"{shutil.disk_usage('.').free / 1e9:,.0f} GB"
    yield "gpus", _gpus()
    yield "bubblewrap", _first_line(["bwrap", "--version"]) or "missing: programs that a model writes cannot be isolated"
    said = ", ".join(f"{name}={os.environ[name]}" for name in VARIABLES if name in os.environ)
    yield "variables", said.replace(f"{Path.home()}{os.sep}", "~/") or "none"  # for a public bug report: without a user's name


def _commit() -> str | None:
    """Of the checkout that is running; None where it is installed."""
    root = Path(gsi.__file__).parent.parent
    return _first_line(["git", "-C", str(root), "rev-parse", "--short=12", "HEAD"]) if (root / ".git").exists() else None


def _memory() -> str | None:
    try:
        facts = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text(encoding="utf-8").splitlines())
        total, free = (int(facts[name].split()[0]) * 1024 / 1e9 for name in ("MemTotal", "MemAvailable"))
    except (OSError, KeyError, ValueError, IndexError):  # not Linux
        return None
    return f"{total:.0f} GB, {free:.0f} free"


def _gpus() -> str:
    import torch

    found = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    if not found:
        return f"none that torch sees (built for {f'CUDA {torch.version.cuda}' if torch.version.cuda else 'the CPU'})"
    driver = _first_line(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"])
    cards = ", ".join(f"{p.name} ({p.total_memory / 1e9:.0f} GB)" for p in found)
    return f"{cards}; CUDA {torch.version.cuda}, driver {driver or 'unknown'}"


def _first_line(command: list[str]) -> str | None:
    try:
        said = subprocess.run(
            command, capture_output=True, text=True, encoding="utf-8", errors="replace", timeout=10, check=True
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):  # not there, or it does not work here
        return None
    return said.splitlines()[0] if said else None
