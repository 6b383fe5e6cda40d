"""The run folder: config, stages, atomic files, resume, and what happens when the config changes.

`run.json` is the only record of what is finished. A stage writes its files under other names, renames them, and is
marked done last; so after a crash a stage is either done or done again, and nothing half-written is ever read.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import platform
import shutil
import sqlite3
import subprocess
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

import gsi
from gsi.config import Config
from gsi.ledger import Ledger
from gsi.types import GsiError

STAGES = (
    "sample",
    "curate",
    "train",
    "evaluate",
)  # of iteration n >= 1: sample with the iter_{n-1} model, train iter_n; iter_0 has the last two

# config keys that may change under a run: they affect neither samples, nor training, nor evaluation
FREE = ("iterations", "preset", "dimensions", "cost", "output_dir", "engine", "grading.workers", "report_to", "keep_models", "train.micro_batch_size",
        "train.device", "train.processes", "evaluate.perplexity_rows", "monitor", "train.parallel", "train.packing", "train.liger", "train.checkpoint_minutes", "train.checkpoint_steps",
        "teacher.url", "teacher.api_key_env", "teacher.concurrency", "teacher.retries", "teacher.timeout")  # fmt: skip
BOUND = ("engine.function", "engine.score", "engine.shuffle", "engine.max_length")  # exceptions to the above
# where a fork starts again when a key changed; anything not named here: from the beginning
REDO_FROM = {"sample": (1, "sample"), "strategy": (1, "sample"), "accept": (1, "sample"), "allocation": (1, "sample"), "guidance": (1, "sample"),
             "teacher": (1, "sample"), "grading": (1, "sample"), "engine": (1, "sample"), "curate": (1, "curate"), "train": (1, "curate"), "control": (1, "curate"),
             "evaluate.tasks": (0, "evaluate"), "evaluate.pass_at_k": (0, "evaluate"), "evaluate.overlap": (0, "evaluate"), "evaluate.avg_at_k": (0, "evaluate"), "evaluate.max_new_tokens": (0, "evaluate")}  # fmt: skip


class RunFolder:
    """One run on disk. Open with `RunFolder.open`; close (or use as a context manager) to release the lock.

    Iteration n's files are under `iter_n/`. Stage keys are `iter_n/STAGE` and, for the test sets, `test`.
    """

    def __init__(self, path: Path, config: Config, state: dict[str, Any], lock: Any):
        self.path, self.config, self.state, self._lock = path, config, state, lock
        self.ledger = Ledger(path / "ledger.sqlite")

    @classmethod
    def open(cls, config: Config, data: Mapping[str, str], fork: str | None = None) -> RunFolder:
        """Creates the run folder, or resumes it.

        Args:
            data: fingerprint of the queries of every task.
            fork: name (or path) of a new run that keeps what the changed config leaves valid.

        Raises GsiError when the folder belongs to another config or other data, is in use, or is no run folder.
        """
        path = Path(config.output_dir)
        if fork:
            path = _fork(path, config, data, path.parent / fork)
            config = config.model_copy(update={"output_dir": str(path)})
        try:
            path.mkdir(parents=True, exist_ok=True)
            lock = _lock(path)
        except OSError as e:
            raise GsiError(f"output_dir: {path} cannot be written: {e}") from e
        try:
            if (path / "run.json").exists():
                state = read_json(path / "run.json")
                _refuse_drift(path, config, data, state)
            else:
                strangers = sorted(p.name for p in path.iterdir() if p.name != "run.lock")
                if strangers:
                    raise GsiError(
                        f"output_dir: {path} is not empty and holds no run ({', '.join(strangers[:5])}); choose another output_dir"
                    )
                state = {"created_at": _now(), "data": dict(data), "stages": {}, "models": {}, "clock": {}, "forked_from": None}
            state |= {
                "gsi": gsi.__version__,
                "git_sha": _git_sha(),
                "seed": config.seed,
                "versions": versions(),
                "iterations": config.iterations,
            }
            write_text(path / "config.yaml", yaml.safe_dump(config.dump(), sort_keys=False, allow_unicode=True))
            folder = cls(path, config, state, lock)
            folder.save()
            return folder
        except BaseException:
            lock.close()
            raise

    def close(self) -> None:
        self.save()
        self.ledger.close()
        self._lock.close()

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ----------------------------------------------------------------------------------- stages

    def iter(self, n: int) -> Path:
        return self.path / f"iter_{n}"

    def done(self, n: int, stage: str) -> bool:
        return f"iter_{n}/{stage}" in self.state["stages"]

    def mark(self, n: int, stage: str, **info: Any) -> None:
        """Marks a stage as done, with whatever is worth knowing of it."""
        self.state["stages"][f"iter_{n}/{stage}"] = {"state": "done", "at": _now(), **info}
        self.save()

    def info(self, n: int, stage: str) -> dict[str, Any]:
        return self.state["stages"].get(f"iter_{n}/{stage}", {})

    def invalidate(self, n: int, stage: str) -> None:
        """Forgets a stage and all that rests on it. Rows whose model will change move to the ledger's archive.

        `sample` keeps its own rows (it completes what is missing); `evaluate` has only the test sets resting on it.
        """
        if stage == "evaluate":
            stale = {f"iter_{n}/evaluate"}
            self.ledger.archive(n, n, _now(), samples=False)
        else:
            stale = {f"iter_{n}/{s}" for s in STAGES[STAGES.index(stage) :]}
            stale |= {key for key in self.state["stages"] if key.startswith("iter_") and int(key.split("/")[0][5:]) > n}
            self.ledger.archive(n, None, _now())  # drawn from iter_n's model or a later one
        self.state["stages"] = {k: v for k, v in self.state["stages"].items() if k not in stale | {"test"}}
        self.save()

    def model(self, n: int) -> str:
        """Where the iter_n model is. Raises GsiError when it is not kept any more."""
        name = self.state["models"].get(str(n))
        if name is None:
            raise GsiError(
                f"{self.path}: there is no iter_{n} model; it was not trained yet, or not kept (keep_models: {self.config.keep_models})"
            )
        return str(self.path / name) if name.startswith("iter_") else name

    def set_model(self, n: int, name: str) -> None:
        self.state["models"][str(n)] = name
        self.save()

    def save(self) -> None:
        write_text(self.path / "run.json", json.dumps(self.state, indent=1))


# --------------------------------------------------------------------------------------- files


def write_text(path: Path, text: str) -> None:
    """Writes, syncs, then renames: a reader sees the old file or the new one."""
    part = path.with_name(path.name + ".part")
    with part.open("w", encoding="utf-8") as f:
        f.write(text)
        f.flush()
        os.fsync(f.fileno())
    part.replace(path)


def read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise GsiError(f"{path}: cannot be read: {e}") from e


def json_line(row: Mapping[str, Any]) -> str:
    """One line of JSON; numbers that JSON does not have become null."""
    clean = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}
    return json.dumps(clean, ensure_ascii=False, allow_nan=False)


# --------------------------------------------------------------------------------------- refusing and forking


def _refuse_drift(path: Path, config: Config, data: Mapping[str, str], state: Mapping[str, Any]) -> None:
    changed = _changes(path, config)
    bound = [c for c in changed if not (_under(c, FREE) and not _under(c, BOUND))]
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


def _changes(path: Path, config: Config) -> dict[str, tuple[Any, Any]]:
    try:
        old = yaml.safe_load((path / "config.yaml").read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as e:
        raise GsiError(f"{path / 'config.yaml'}: cannot be read: {e}") from e
    a, b = dict(_flat(old)), dict(_flat(config.dump()))
    return {key: (a.get(key), b.get(key)) for key in sorted(a.keys() | b.keys()) if a.get(key) != b.get(key)}


def _flat(value: Any, prefix: str = "") -> Iterable[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _flat(item, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, value


def _under(key: str, prefixes: Iterable[str]) -> bool:
    return any(key == p or key.startswith(p + ".") for p in prefixes)


def _fork(source: Path, config: Config, data: Mapping[str, str], target: Path) -> Path:
    """Copies a run under a new name (models by hard link) and forgets what the changed keys make invalid."""
    if not (source / "run.json").exists():
        raise GsiError(f"--fork: {source} holds no run to fork from")
    if target.exists():
        raise GsiError(f"--fork: {target} exists; choose another name, or resume it with output_dir={target}")
    state = read_json(source / "run.json")
    starts = [
        next((start for k, start in REDO_FROM.items() if _under(key, (k,))), None)
        for key in _changes(source, config)
        if not _under(key, FREE) or _under(key, BOUND)
    ]
    if config.warm_start and any(key.startswith("train.") for key in _changes(source, config)):
        starts.append((0, "train"))
    if None in starts or dict(data) != state["data"]:
        raise GsiError(
            "--fork: the change concerns the model, the data or the seed, so nothing of the old run stays valid; use another output_dir"
        )
    part = target.with_name(target.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    for item in source.glob("iter_*"):
        shutil.copytree(item, part / item.name, copy_function=_link)
    with sqlite3.connect(source / "ledger.sqlite") as a, sqlite3.connect(part / "ledger.sqlite") as b:
        a.backup(b)
    a.close()
    b.close()
    state["forked_from"] = str(source)
    write_text(part / "run.json", json.dumps(state, indent=1))
    write_text(part / "config.yaml", yaml.safe_dump(config.dump(), sort_keys=False, allow_unicode=True))
    folder = RunFolder(part, config, state, _lock(part))
    for n, stage in {s for s in starts if s}:
        if stage == "sample":  # other samples are wanted, not only the missing ones
            folder.ledger.archive(n - 1, None, _now(), evaluations=False)
        for m in range(n, state["iterations"] + 1) if stage == "evaluate" else (n,):
            folder.invalidate(m, stage)
    folder.close()
    part.replace(target)
    return target


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)


def _lock(path: Path) -> Any:
    """Holds run.lock for this process; the system releases it when the process dies, however it dies."""
    file = (path / "run.lock").open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.seek(0)
        holder = file.read().strip() or "another process"
        file.close()
        raise GsiError(f"{path}: in use by {holder}; wait for it, stop it, or choose another output_dir") from None
    file.truncate(0)
    file.write(f"process {os.getpid()} on {platform.node()}")
    file.flush()
    return file


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "math-verify", "vllm", "ray"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _git_sha() -> str | None:
    """Commit of the gsi that runs, where it runs from a checkout."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    out = subprocess.run(["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return out.stdout.strip() or None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
