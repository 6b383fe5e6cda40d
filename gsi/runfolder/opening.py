"""A run folder created, resumed, restored from its mirror or forked; refused where it is another's, damaged or in use."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gsi
from gsi.config import Config
from gsi.disks import network_filesystem
from gsi.files import write_text
from gsi.mirror import Mirror
from gsi.runfolder.damage import refuse_damage, remove_leftovers
from gsi.runfolder.drift import refuse_drift
from gsi.runfolder.folder import RunFolder
from gsi.runfolder.fork import fork_run
from gsi.runfolder.lock import hold_lock
from gsi.runfolder.state import BACKUP, config_text, now, read_state, write_state
from gsi.runfolder.versions import git_sha, versions
from gsi.types import GsiError

_IDENTITY = ("id", "created_at", "forked_from")  # of a run


def open_folder(config: Config, data: Mapping[str, str], fork: str | None = None) -> RunFolder:
    """Creates the run folder, or resumes it.

    Args:
        data: fingerprint of the queries of every task.
        fork: name (or path) of a new run that keeps what the changed config leaves valid.

    Raises GsiError when the folder belongs to another config or other data, is in use, or is no run folder.
    """
    path = Path(config.output_dir)
    if kind := network_filesystem(path):
        raise GsiError(
            f"output_dir: {path} is on a network file system ({kind}), where SQLite's write-ahead log may lose or mix rows; put output_dir on a disk of "
            "this machine, and set `mirror:` to a folder there: every finished stage is copied to it"
        )
    if fork:
        path = fork_run(path, config, data, path.parent / fork)
        config = config.model_copy(update={"output_dir": str(path)})
    try:
        path.mkdir(parents=True, exist_ok=True)
        _refuse_strangers(path)  # before a lock is left in their folder
        lock = hold_lock(path)
    except OSError as e:
        raise GsiError(f"output_dir: {path} cannot be written: {e}") from e
    try:
        mirror, copied = _open_mirror(config.mirror, path)
        if (path / "run.json").exists():
            state = read_state(path)
            refuse_drift(path, config, data, state)
            state["data"] = {**state["data"], **data}  # with the checkers, where a run of an earlier version goes on
            refuse_damage(path, state)
            remove_leftovers(path)
        else:
            state = _begin(path, data)
        state |= {
            "gsi": gsi.__version__,
            "git_sha": git_sha(),
            "seed": config.seed,
            "versions": versions(),
            "iterations": config.iterations,
        }
        state["config"] = config.dump()
        write_state(path, state)  # first of all files: without it, the others would be a stranger's
        write_text(path / "config.yaml", config_text(state["config"]))
        folder = RunFolder(path, config, state, lock)
        if mirror and copied and [copied.get(k) for k in _IDENTITY] != [state.get(k) for k in _IDENTITY]:
            folder.ledger.close()
            raise GsiError(
                f"mirror: {config.mirror} holds another run (begun {copied.get('created_at')}; this one {state['created_at']}); name a place of its own"
            )
        folder.mirror_to(mirror, copied)
        return folder
    except BaseException:
        lock.close()
        raise


def _refuse_strangers(path: Path, locked: bool = False) -> None:
    """Raises GsiError where the folder holds something else than a run."""
    strangers = sorted(p.name for p in path.iterdir() if p.name not in ("run.lock", "run.json.part", "config.yaml", "config.yaml.part"))
    # looked for after the listing: a process that begins a run here meanwhile makes its lock before any other file
    begun = not locked and any((path / name).exists() for name in ("run.json", BACKUP, "run.lock"))
    if strangers and not begun:
        raise GsiError(f"output_dir: {path} is not empty and holds no run ({', '.join(strangers[:5])}); choose another output_dir")


def _begin(path: Path, data: Mapping[str, str]) -> dict[str, Any]:
    """The state of a new run. Raises GsiError where the folder holds something else."""
    if (path / BACKUP).exists():
        raise GsiError(f"{path / 'run.json'}: is missing; `gsi doctor {path}` puts its copy back")
    _refuse_strangers(path, locked=True)
    return {
        "id": uuid.uuid4().hex,
        "created_at": now(),
        "data": dict(data),
        "stages": {},
        "models": {},
        "clock": {},
        "forked_from": None,
    }


def _open_mirror(url: str | None, path: Path) -> tuple[Mirror | None, dict[str, Any] | None]:
    """The mirror and the state it holds; a run folder that is not here is restored from it."""
    if url is None:
        return None, None
    mirror = Mirror(url)
    mirror.probe()
    copied = mirror.state()
    if copied is not None and not (path / "run.json").exists() and not (path / BACKUP).exists():
        print(f"{path} is restored from {url}", file=sys.stderr, flush=True)
        mirror.restore(path)
    return mirror, copied
