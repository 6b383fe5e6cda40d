"""One run on disk: which stages are done, what they made, and that it is still what they made."""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from gsi import checksums
from gsi.config import Config
from gsi.files import read_json, write_text
from gsi.hub import cached_commit
from gsi.ledger import STRATA_SPLITS, Ledger
from gsi.mirror import Mirror
from gsi.runfolder.damage import damage_text
from gsi.runfolder.state import now, sums_of, write_state
from gsi.types import GsiError

# of iteration n >= 1: sample with the iter_{n-1} model, train iter_n; iter_0 has the last two
STAGES = ("sample", "curate", "train", "evaluate")


class RunFolder:
    """One run on disk. Open with `open_folder` (`opening.py`); close (or use as a context manager) to release the lock.

    Iteration n's files are under `iter_n/`. Stage keys are `iter_n/STAGE` and, for the test sets, `test`.
    """

    def __init__(self, path: Path, config: Config, state: dict[str, Any], lock: Any):
        self.path, self.config, self.state, self._lock = path, config, state, lock
        self.ledger = Ledger(path / "ledger.sqlite")
        self._whole: dict[str, Any] = {}  # what this process has made or compared in full, as it looked then
        self.mirror: Mirror | None = None
        self._mirrored: checksums.Sums = {}  # what the mirror has, of the files that stages have sealed
        self._behind: GsiError | None = None  # why the mirror lacks something
        if which := state.get("archiving"):  # a process was killed in `_archive`
            self._archive(**which)

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

    def mirror_to(self, mirror: Mirror | None, copied: Mapping[str, Any] | None) -> None:
        """Sets the mirror. `copied`: the state of this run that it holds, None = nothing yet."""
        self.mirror, self._mirrored = mirror, sums_of(copied) if copied else {}

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
        info = {"state": "done", "at": now(), **info, "files": checksums.seal(self.path, self._made(n, stage))}
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
            raise GsiError(damage_text(self.path, bad))
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
        """Forgets a stage and all that rests on it, also what eval.json says. Rows whose model will change move to the ledger's archive.

        `sample` keeps its own rows (it completes what is missing); `evaluate` has only the test sets resting on it.
        """
        if stage == "evaluate":
            self._forget({f"iter_{n}/evaluate"}, first=n, last=n, samples=False)
            return
        if n == 0:
            self.forget_strata()
        stale = {f"iter_{n}/{s}" for s in STAGES[STAGES.index(stage) :]}
        stale |= {key for key in self.state["stages"] if key.startswith("iter_") and int(key.split("/")[0][5:]) > n}
        models, alarms = self.state["models"], self.state.get("alarms", {})  # of rows that are chosen again; the files stay until then
        self.state["models"] = {m: name for m, name in models.items() if f"iter_{m}/train" not in stale}
        self.state["alarms"] = {m: said for m, said in alarms.items() if f"iter_{m}/train" not in stale}
        itself = self.config.teacher is not None and self.config.teacher.kind == "self"  # what it said was said by a model that changes
        self._forget(stale, first=n, last=None, serve=not itself)  # rows drawn from iter_n's model or a later one

    def _forget(self, stale: Collection[str], **rows: Any) -> None:
        """Forgets stages and the test sets, with these rows of theirs; eval.json goes with its stage. Trackers get the figures of these iterations again."""
        self.state["stages"] = {k: v for k, v in self.state["stages"].items() if k not in {*stale, "test"}}
        iterations = {int(key.split("/")[0][5:]) for key in stale}
        for told in self.state.get("tracking", {}).values():
            told["logged"] = [n for n in told["logged"] if n not in iterations]
        self._archive(**rows)  # first the record, then the files
        for key in stale:
            if key.endswith("/evaluate"):
                (self.path / key).with_name("eval.json").unlink(missing_ok=True)

    def _archive(self, **rows: Any) -> None:
        """`Ledger.archive`. Which rows is in run.json before they move, so that whoever opens a run that was killed in between moves them too."""
        self.state["archiving"] = rows
        self.save()
        self.ledger.archive(**rows, now=now())
        del self.state["archiving"]
        self.save()

    def forget_strata(self) -> None:
        """Has the difficulty of the queries measured anew."""
        self.state.pop("strata", None)
        self._archive(first=0, last=0, samples=False, splits=STRATA_SPLITS)

    def forget_tests(self) -> None:
        """Forgets what the test sets gave. With `evaluate.trajectory` iterations whose model is kept are tested again, their validation stays."""
        done = [n for n in range(self.state["iterations"] + 1) if self.done(n, "evaluate")]
        again = [n for n in done if self.config.evaluate.trajectory and str(n) in self.state["models"]]
        self._forget([f"iter_{n}/evaluate" for n in again], first=0, last=None, samples=False, splits=("test",))
        for n in done:
            path = self.iter(n) / "eval.json"
            if n not in again and path.exists():
                write_text(path, json.dumps({k: v for k, v in read_json(path).items() if k != "test"}, indent=1))
                self.seal(n, "evaluate")

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
