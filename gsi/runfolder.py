"""The run folder: config, stages, atomic files, resume, and what happens when the config changes.

`run.json` is the only record of what is finished. A stage writes its files under other names, renames them, and is
marked done last, with the sums of its files; so after a crash a stage is either done or done again, nothing half-written
is ever read, and nothing that was damaged later is used unseen.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import math
import os
import platform
import re
import shutil
import sqlite3
import subprocess
import sys
import time
import uuid
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

import gsi
from gsi import checksums
from gsi.config import Config, ConfigError, load_config
from gsi.disks import network_filesystem
from gsi.hub import cached_commit
from gsi.ledger import Ledger, unborn
from gsi.mirror import Mirror
from gsi.types import GsiError

STAGES = (
    "sample",
    "curate",
    "train",
    "evaluate",
)  # of iteration n >= 1: sample with the iter_{n-1} model, train iter_n; iter_0 has the last two

# config keys that may change under a run: they affect neither samples, nor training, nor evaluation
FREE = ("iterations", "preset", "dimensions", "cost", "output_dir", "engine", "mirror", "grading.workers", "grading.actors", "report_to", "keep_models", "train.micro_batch_size",
        "train.device", "train.processes", "train.cluster", "evaluate.perplexity_rows", "monitor", "train.parallel", "train.packing", "train.liger", "train.checkpoint_minutes", "train.checkpoint_steps", "train.stall",
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
        self._whole: dict[str, Any] = {}  # what this process has made or compared in full, as it looked then
        self.mirror: Mirror | None = None
        self._mirrored: checksums.Sums = {}  # what the mirror has, of the files that stages have sealed
        self._behind: GsiError | None = None  # why the mirror lacks something

    @classmethod
    def open(cls, config: Config, data: Mapping[str, str], fork: str | None = None) -> RunFolder:
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
            path = _fork(path, config, data, path.parent / fork)
            config = config.model_copy(update={"output_dir": str(path)})
        try:
            path.mkdir(parents=True, exist_ok=True)
            lock = hold_lock(path)
        except OSError as e:
            raise GsiError(f"output_dir: {path} cannot be written: {e}") from e
        try:
            mirror, copied = _open_mirror(config.mirror, path)
            if (path / "run.json").exists():
                state = read_state(path)
                _refuse_drift(path, config, data, state)
                refuse_damage(path, state)
                remove_leftovers(path)
            else:
                if (path / BACKUP).exists():
                    raise GsiError(f"{path / 'run.json'}: is missing; `gsi doctor {path}` puts its copy back")
                strangers = sorted(
                    p.name for p in path.iterdir() if p.name not in ("run.lock", "run.json.part", "config.yaml", "config.yaml.part")
                )
                if strangers:
                    raise GsiError(
                        f"output_dir: {path} is not empty and holds no run ({', '.join(strangers[:5])}); choose another output_dir"
                    )
                state = {
                    "id": uuid.uuid4().hex,
                    "created_at": _now(),
                    "data": dict(data),
                    "stages": {},
                    "models": {},
                    "clock": {},
                    "forked_from": None,
                }
            state |= {
                "gsi": gsi.__version__,
                "git_sha": _git_sha(),
                "seed": config.seed,
                "versions": versions(),
                "iterations": config.iterations,
            }
            state["config"] = config.dump()
            write_state(path, state)  # first of all files: without it, the others would be a stranger's
            write_text(path / "config.yaml", config_text(state["config"]))
            folder = cls(path, config, state, lock)
            if mirror and copied and [copied.get(k) for k in _IDENTITY] != [state.get(k) for k in _IDENTITY]:
                folder.ledger.close()
                raise GsiError(
                    f"mirror: {config.mirror} holds another run (begun {copied.get('created_at')}; this one {state['created_at']}); name a place of its own"
                )
            folder.mirror, folder._mirrored = mirror, sums_of(copied or {"stages": {}, "models": {}})
            return folder
        except BaseException:
            lock.close()
            raise

    def close(self) -> None:
        try:
            self.save()
            self.copy_to_mirror()
        finally:
            self.ledger.close()
            self._lock.close()
        if self._behind:
            raise GsiError(
                f"the run folder {self.path} is whole, its mirror is not: {self._behind}. The same command copies what is missing"
            )

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self.close()
        except GsiError:
            if kind is None:  # else there is something else to say
                raise

    def copy_to_mirror(self) -> None:
        """Brings the mirror up to date; a failure is said, and tried again after the next stage."""
        if self.mirror is None:
            return
        sums = sums_of(self.state)
        try:
            self.mirror.push(self.path, sums, self._mirrored)
        except GsiError as e:
            self._behind = e
            print(f"{e}; the run goes on, and the next stage's end tries again", file=sys.stderr, flush=True)
        else:
            self._mirrored, self._behind = sums, None

    # ----------------------------------------------------------------------------------- stages

    def iter(self, n: int) -> Path:
        return self.path / f"iter_{n}"

    def done(self, n: int, stage: str) -> bool:
        return f"iter_{n}/{stage}" in self.state["stages"]

    def mark(self, n: int, stage: str, **info: Any) -> None:
        """Marks a stage as done, with whatever is worth knowing of it, the sums of its files and the number of its rows."""
        info = {"state": "done", "at": _now(), **info, "files": checksums.seal(self.path, self._made(n, stage))}
        if stage == "sample":
            info["ledger_rows"] = self.ledger.count(n - 1)
        elif stage == "evaluate":
            info["ledger_rows"] = self.ledger.count(n, "validation")
        elif stage == "train":
            self._whole[f"iter_{n}/train"] = checksums.looks(self.path, info["files"])
        self.state["stages"][f"iter_{n}/{stage}"] = info
        self.save()
        self.copy_to_mirror()

    def _made(self, n: int, stage: str) -> list[Path]:
        """The files and folders that a stage makes, as far as they are there."""
        rows = ["train.parquet", "dropped.parquet", "validation.parquet"]
        names = {"curate": rows, "train": ["model", *(rows if n == 0 else ["perplexity.json"])], "evaluate": ["eval.json"]}.get(stage, [])
        return [self.iter(n) / name for name in names if (self.iter(n) / name).exists()]

    def unseal(self, n: int, stage: str) -> None:
        """Forgets the sums of a stage whose files are about to be written again; `seal` takes them anew."""
        if self.info(n, stage).pop("files", None) is not None:
            self.save()

    def seal(self, n: int, stage: str) -> None:
        if info := self.info(n, stage):
            info["files"] = checksums.seal(self.path, self._made(n, stage))
            self.save()

    def whole(self, n: int, stage: str) -> None:
        """Compares the files of a stage in full before they are used. Raises GsiError where one is not what was written."""
        sums = self.info(n, stage).get("files", {})
        seen = checksums.looks(self.path, sums)
        if self._whole.get(f"iter_{n}/{stage}") == seen:
            return
        if bad := checksums.compare(self.path, sums):
            raise GsiError(_damage(self.path, bad))
        self._whole[f"iter_{n}/{stage}"] = seen

    def same_base(self, base: str, limit: int | None = None) -> None:
        """Compares the base model's files with those the run began with. Raises GsiError where they are others.

        A directory: all its files, larger ones than `limit` by size. A hub id: the commit that is in the cache, whose files cannot change.
        """
        root = Path(base)
        if not root.is_dir():
            commit = cached_commit(base)
            if commit and commit != self.state.setdefault("base", {}).setdefault("commit", commit):
                raise GsiError(
                    f"model: {base} is at commit {commit} now, and this run began with {self.state['base']['commit']}; download that one "
                    "(`hf download MODEL --revision COMMIT --local-dir DIR`) and start a new run from DIR, or use another output_dir"
                )
            return
        kept = self.state.get("base", {}).get("files")
        if kept is None:
            kept = checksums.seal(root, sorted(p for p in root.iterdir() if p.is_file()))
            self._whole["base"] = checksums.looks(root, kept)
            self.state["base"] = {"files": kept}
            self.save()
            return
        seen = checksums.looks(root, kept)
        if self._whole.get("base") == seen:
            return
        if bad := checksums.compare(root, kept, limit):
            raise GsiError(
                "\n".join(
                    [*bad[:10], f"model: {base} is not the model that this run began with; put its files back, or use another output_dir"]
                )
            )
        if limit is None:
            self._whole["base"] = seen

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
        write_state(self.path, self.state)


_IDENTITY = ("id", "created_at", "forked_from")  # of a run


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


# --------------------------------------------------------------------------------------- files


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


def config_text(config: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True)


def sums_of(state: Mapping[str, Any]) -> checksums.Sums:
    """Sums of all files of stages that are done; models that `keep_models` let go are left out."""
    kept = {f"{name}/" for name in state["models"].values()}
    return {
        name: sums
        for info in state["stages"].values()
        for name, sums in info.get("files", {}).items()
        if "/model/" not in name or name[: name.index("/model/") + 7] in kept
    }


def refuse_damage(path: Path, state: Mapping[str, Any]) -> None:
    """What a run compares when it opens. Raises GsiError naming every damaged file."""
    bad = checksums.compare(path, sums_of(state), checksums.SMALL)
    ledger = path / "ledger.sqlite"
    if not ledger.exists() or unborn(ledger):
        if any(info.get("ledger_rows") for info in state["stages"].values()):
            bad.append(f"{ledger}: {'holds no tables' if ledger.exists() else 'is missing'}")
    elif ledger.stat().st_size <= 4 * checksums.SMALL:
        opened = Ledger(ledger, read_only=True)
        bad += opened.problems()
        opened.close()
    if bad:
        raise GsiError(_damage(path, bad))


def _damage(path: Path, bad: list[str]) -> str:
    more = [f"... and {len(bad) - 10} more"] if len(bad) > 10 else []
    return "\n".join([*bad[:10], *more, f"Nothing of it is used. `gsi doctor {path}` repairs what can be repaired and keeps the rest"])


def remove_leftovers(path: Path) -> None:
    """Removes what a killed process was writing under another name: the stages write it anew."""
    for item in [*path.glob("*.part"), *path.glob("iter_*/*.part"), *path.glob("iter_*/model.part*")]:
        if item.is_dir():
            shutil.rmtree(item)
        else:
            item.unlink(missing_ok=True)


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
    changed = _changes(path, config, state)
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


def _changes(path: Path, config: Config, state: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    try:  # run.json has a checksum and a copy, config.yaml has not; runs of earlier versions have the latter only
        old = state.get("config") or yaml.safe_load((path / "config.yaml").read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as e:
        raise GsiError(f"{path / 'config.yaml'}: cannot be read: {e}") from e
    with suppress(ConfigError):  # keys that an earlier version did not have get their defaults, which are what it did
        old = load_config(old).dump()
    a, b = dict(_flat(_drawing(old))), dict(_flat(_drawing(config.dump())))
    return {key: (a.get(key), b.get(key)) for key in sorted(a.keys() | b.keys()) if a.get(key) != b.get(key)}


def _drawing(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config with the engine that draws; on how many machines is placement."""
    engine = config.get("engine")
    return {**config, "engine": engine["of"]} if isinstance(engine, Mapping) and engine.get("kind") == "ray" else dict(config)


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
    state = read_state(source)
    starts = [
        next((start for k, start in REDO_FROM.items() if _under(key, (k,))), None)
        for key in _changes(source, config, state)
        if not _under(key, FREE) or _under(key, BOUND)
    ]
    if config.warm_start and any(key.startswith("train.") for key in _changes(source, config, state)):
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
    state["config"] = config.dump()
    write_state(part, state)
    write_text(part / "config.yaml", config_text(state["config"]))
    folder = RunFolder(part, config, state, hold_lock(part))
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


def hold_lock(path: Path) -> Any:
    """Holds run.lock for this process; the system releases it when the process dies, however it dies."""
    file = (path / "run.lock").open("a+", encoding="utf-8")
    for wait in (0.1, 0.3, 1.0, 2.0, None):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except OSError as e:
            if e.errno not in (errno.EAGAIN, errno.EACCES):
                file.close()
                raise
            file.seek(0)
            holder = file.read().strip() or "another process"
            if wait and _dead(holder):  # what is left of a killed process, its children, will let go
                time.sleep(wait)
                continue
            file.close()
            raise GsiError(f"{path}: in use by {holder}; wait for it, stop it, or choose another output_dir") from None
    file.truncate(0)
    file.write(f"process {os.getpid()} on {platform.node()} since {_now()}")
    file.flush()
    return file


def _dead(holder: str) -> bool:
    """Whether the process that wrote its name into the lock is of this machine and gone."""
    found = re.match(r"process (\d+) on (\S+)", holder)
    if not found or found[2] != platform.node():
        return False
    try:
        os.kill(int(found[1]), 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # another user's
        return False
    return False


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
    out = subprocess.run(["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, encoding="utf-8", check=False)
    return out.stdout.strip() or None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
