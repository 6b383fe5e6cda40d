"""Files that are whole or not there: written under another name, synced, renamed; and JSON, read and written."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gsi.types import GsiError


def write_text(path: Path, text: str) -> None:
    """Writes, syncs, then renames: a reader sees the old file or the new one."""
    part = path.with_name(path.name + ".part")
    try:
        with part.open("w", encoding="utf-8") as f:
            f.write(text)
            f.flush()
            os.fsync(f.fileno())
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Makes renames inside a folder last through a power cut."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def link(source: str | Path, target: str | Path) -> None:
    """Hands a file on without a second copy of it, where the file system can."""
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)


def read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise GsiError(f"{path}: cannot be read: {e}") from e


def json_line(row: Mapping[str, Any]) -> str:
    """One line of JSON; numbers that JSON does not have become null."""
    clean = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}
    return json.dumps(clean, ensure_ascii=False, allow_nan=False)
