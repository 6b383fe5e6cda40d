"""Versions of what a run stands on, which it notes down."""

from __future__ import annotations

import platform
import subprocess
from importlib import metadata
from pathlib import Path

import gsi


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "math-verify", "vllm", "ray"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def git_sha() -> str | None:
    """Commit of the gsi that runs, where it runs from a checkout."""
    root = Path(gsi.__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    out = subprocess.run(["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, encoding="utf-8", check=False)
    return out.stdout.strip() or None
