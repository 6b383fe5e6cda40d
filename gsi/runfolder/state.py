"""`run.json`: the only record of what is finished, with its own checksum and a copy beside it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from gsi.checksums import Sums
from gsi.files import read_json, write_text
from gsi.types import GsiError

BACKUP = "run.json.copy"


def write_state(path: Path, state: Mapping[str, Any]) -> None:
    """Writes run.json with its own checksum, and a copy beside it."""
    body = {k: v for k, v in state.items() if k != "checksum"}
    text = json.dumps(body | {"checksum": _digest(body)}, indent=1)
    write_text(path / "run.json", text)
    write_text(path / BACKUP, text)


def read_state(path: Path, name: str = "run.json") -> dict[str, Any]:
    """The state in run.json. Raises GsiError where it is damaged; without a checksum (an earlier version's) it is taken as it is."""
    try:
        state = read_json(path / name)
    except GsiError as e:
        raise GsiError(f"{e}; `gsi doctor {path}` puts its copy back") from e
    if not isinstance(state, dict) or not isinstance(state.get("stages"), dict):
        raise GsiError(f"{path / name}: is no state of a run; `gsi doctor {path}` puts its copy back")
    kept = state.pop("checksum", None)
    if kept is not None and kept != _digest(state):
        raise GsiError(f"{path / name}: is not what was written; `gsi doctor {path}` puts its copy back")
    models = [str(m) for m in state.get("models", {}).values() if str(m).startswith("iter_")]
    for file in (*models, *(f for info in state["stages"].values() for f in info.get("files", {}))):
        if not re.match(r"iter_\d+/", file) or ".." in file.split("/"):
            raise GsiError(
                f"{path / name}: names {file!r}, which is no file of this run; it was not written by gsi, and nothing of it is used"
            )
    return state


def _digest(state: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()


def sums_of(state: Mapping[str, Any]) -> Sums:
    """Sums of all files of stages that are done; models that `keep_models` let go are left out."""
    kept = {f"{name}/" for name in state["models"].values()}
    return {
        name: sums
        for info in state["stages"].values()
        for name, sums in info.get("files", {}).items()
        if "/model/" not in name or name[: name.index("/model/") + 7] in kept
    }


def config_text(config: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True)


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
