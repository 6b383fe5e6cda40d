"""Sizes and SHA-256 sums of a stage's files: taken when it is marked done, compared before the files are used again.

What is compared when: a run that opens compares every size, and the content of files up to SMALL; a model or training set of any size is
compared in full before an engine or a training starts from it (the reading warms the page cache for the load that follows); `gsi doctor`
compares everything. Several files are read at a time, so a model in shards is summed at about the speed of the disk.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

SMALL = 64 << 20  # bytes
Sums = dict[str, dict[str, Any]]  # path within the run folder -> {size: bytes, sha256: hex}


def seal(root: Path, paths: Iterable[Path]) -> Sums:
    """Sums of files and of all files in folders, by path relative to `root`; each is on disk when this returns."""
    files = sorted(f for p in paths for f in (p.rglob("*") if p.is_dir() else [p]) if f.is_file())
    with ThreadPoolExecutor(4) as pool:
        return dict(zip((f.relative_to(root).as_posix() for f in files), pool.map(_seal, files), strict=True))


def looks(root: Path, names: Iterable[str]) -> list[tuple[str, int, int, int] | str]:
    """Size, time of change and inode of files: while these stay, a file that was compared in full need not be read again."""
    there = [(name, root / name) for name in names]
    return [(name, (s := p.stat()).st_size, s.st_mtime_ns, s.st_ino) if p.exists() else name for name, p in there]


def compare(root: Path, sums: Mapping[str, Mapping[str, Any]], limit: int | None = None) -> list[str]:
    """What is wrong with the files, one line each. `limit`: of larger files only the size is compared."""
    with ThreadPoolExecutor(4) as pool:
        found = pool.map(lambda item: _compare(root / item[0], item[1], limit), sums.items())
    return [f"{root / name}: {text}" for name, text in zip(sums, found, strict=True) if text]


def _seal(path: Path) -> dict[str, Any]:
    with path.open("rb") as f:
        digest = hashlib.file_digest(f, "sha256").hexdigest()
        os.fsync(f.fileno())
        return {"size": os.fstat(f.fileno()).st_size, "sha256": digest}


def _compare(path: Path, sums: Mapping[str, Any], limit: int | None) -> str | None:
    if not path.is_file():
        return "is missing"
    size = path.stat().st_size
    if size != sums["size"]:
        return f"has {size:,} bytes where {sums['size']:,} were written"
    if limit is not None and size > limit:
        return None
    with path.open("rb") as f:
        return None if hashlib.file_digest(f, "sha256").hexdigest() == sums["sha256"] else "is not what was written (its SHA-256 differs)"
