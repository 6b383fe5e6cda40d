"""`--fork NAME`: a new run from what a changed config leaves valid of an old one."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Mapping
from pathlib import Path

from gsi.config import Config
from gsi.files import link, write_text
from gsi.runfolder.drift import changes, is_bound, under
from gsi.runfolder.folder import RunFolder
from gsi.runfolder.lock import hold_lock
from gsi.runfolder.state import config_text, now, read_state, write_state
from gsi.types import GsiError

# where a fork starts again when a key changed; anything not named here: from the beginning
REDO_FROM = {"sample": (1, "sample"), "strategy": (1, "sample"), "accept": (1, "sample"), "allocation": (1, "sample"), "guidance": (1, "sample"),
             "teacher": (1, "sample"), "grading": (1, "sample"), "engine": (1, "sample"), "curate": (1, "curate"), "train": (1, "curate"), "control": (1, "curate"),
             "evaluate.tasks": (0, "evaluate"), "evaluate.pass_at_k": (0, "evaluate"), "evaluate.overlap": (0, "evaluate"), "evaluate.avg_at_k": (0, "evaluate"), "evaluate.max_new_tokens": (0, "evaluate")}  # fmt: skip


def fork_run(source: Path, config: Config, data: Mapping[str, str], target: Path) -> Path:
    """Copies a run under a new name (models by hard link) and forgets what the changed keys make invalid."""
    if not (source / "run.json").exists():
        raise GsiError(f"--fork: {source} holds no run to fork from")
    if target.exists():
        raise GsiError(f"--fork: {target} exists; choose another name, or resume it with output_dir={target}")
    state = read_state(source)
    starts = [
        next((start for k, start in REDO_FROM.items() if under(key, (k,))), None) for key in changes(source, config, state) if is_bound(key)
    ]
    if config.warm_start and any(key.startswith("train.") for key in changes(source, config, state)):
        starts.append((0, "train"))
    if None in starts or dict(data) != state["data"]:
        raise GsiError(
            "--fork: the change concerns the model, the data or the seed, so nothing of the old run stays valid; use another output_dir"
        )
    part = target.with_name(target.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    for item in source.glob("iter_*"):
        shutil.copytree(item, part / item.name, copy_function=link)
    with sqlite3.connect(source / "ledger.sqlite") as a, sqlite3.connect(part / "ledger.sqlite") as b:
        a.backup(b)
    a.close()
    b.close()
    state["forked_from"] = str(source)
    state["config"] = config.dump()
    write_state(part, state)
    write_text(part / "config.yaml", config_text(state["config"]))
    folder = RunFolder(part, config, state, hold_lock(part))
    for n, stage in {s for s in starts if s}:
        if stage == "sample":  # other samples are wanted, not only the missing ones
            folder.ledger.archive(n - 1, None, now(), evaluations=False)
        for m in range(n, state["iterations"] + 1) if stage == "evaluate" else (n,):
            folder.invalidate(m, stage)
    folder.close()
    part.replace(target)
    return target
