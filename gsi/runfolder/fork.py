"""`--fork NAME`: a new run from what a changed config leaves valid of an old one."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from gsi.config import Config
from gsi.files import link, write_text
from gsi.runfolder.drift import again, changes, is_bound, under
from gsi.runfolder.folder import RunFolder
from gsi.runfolder.lock import hold_lock
from gsi.runfolder.models import reads, refuse_untrainable, train_again
from gsi.runfolder.state import config_text, now, read_state, write_state
from gsi.types import GsiError


def fork_run(source: Path, config: Config, data: Mapping[str, str], target: Path) -> Path:
    """Copies a run under a new name (models by hard link) and forgets what the changed keys make invalid.

    A model that it needs and that is not kept is trained again. An evaluation whose model is not kept cannot be done again and stays as it is.
    Raises GsiError where nothing would stay valid, or a model cannot be trained again.
    """
    if not (source / "run.json").exists():
        raise GsiError(f"--fork: {source} holds no run to fork from")
    if target.exists():
        raise GsiError(f"--fork: {target} exists; choose another name, or resume it with output_dir={target}")
    state = read_state(source)
    keys = [key for key in changes(source, config, state) if is_bound(key)]
    redo, other = again(config, keys, data, state)
    if other:
        raise GsiError(
            f"--fork: nothing of the old run stays valid under other values of {', '.join(other)}; use another output_dir for a run of its own"
        )
    lost = _lost(config, keys, redo, state)
    if lost == 0 and "sample" in redo:  # all that rests on the initial model is done again anyway
        lost, redo = None, redo | {"train"}
    if lost is not None:
        refuse_untrainable(source, state | {"config": config.dump()}, lost)
    part = target.with_name(target.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    for item in source.glob("iter_*"):
        if int(item.name[5:]) <= config.iterations:
            shutil.copytree(item, part / item.name, copy_function=link)
    with sqlite3.connect(source / "ledger.sqlite") as a, sqlite3.connect(part / "ledger.sqlite") as b:
        a.backup(b)
    a.close()
    b.close()
    itself = ("engine", "sample.repetition_stop") if config.teacher is not None and config.teacher.kind == "self" else ()
    same_teacher = not any(under(key, ("teacher", *itself)) for key in keys)
    state.pop("tracking", None)  # a run of its own; what is kept is logged there too
    state |= {"forked_from": str(source), "config": config.dump(), "data": dict(data)}
    write_state(part, state)
    write_text(part / "config.yaml", config_text(state["config"]))
    folder = RunFolder(part, config, state, hold_lock(part))
    if config.iterations < state["iterations"]:
        folder.ledger.archive(config.iterations, None, now(), splits=())
        folder.invalidate(config.iterations + 1, "sample")
        state["iterations"] = config.iterations
    if lost == config.iterations:  # its evaluation goes with it
        folder.invalidate(lost, "train")
    trained = () if lost is None else train_again(state, lost)
    if "strata" in redo:
        folder.forget_strata()
    if "train" in redo:
        folder.invalidate(0, "train")
    if "sample" in redo:  # other samples are wanted, not only the missing ones
        folder.ledger.archive(0, None, now(), splits=(), serve=same_teacher)
        folder.invalidate(1, "sample")
    if "curate" in redo:
        folder.invalidate(1, "curate")
    if "test" in redo:
        folder.forget_tests()
    if "evaluate" in redo:
        for n in range(state["iterations"] + 1):
            if str(n) in state["models"] or n in trained:
                folder.invalidate(n, "evaluate")
    folder.close()
    part.replace(target)
    return target


def _lost(config: Config, keys: Sequence[str], redo: Collection[str], state: Mapping[str, Any]) -> int | None:
    """The iteration whose model the fork needs and the source does not keep any more."""
    needed = None
    if "sample" in redo or "strata" in redo:
        needed = 0
    elif "curate" in redo:
        scores = config.curate.scored and any(under(key, ("curate.gate.reliance", "curate.upweight")) for key in keys)
        needed = 0 if scores or any(reads(config, stage, 1) is not None for stage in ("curate", "train")) else None
    elif config.iterations < state["iterations"]:
        needed = config.iterations
    if needed is None or "train" in redo or f"iter_{needed}/train" not in state["stages"] or str(needed) in state["models"]:
        return None
    return needed
