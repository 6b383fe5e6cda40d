"""A copy of a run elsewhere: `mirror:` a shared folder or a URL (`s3://`, `gs://`, `hdfs://`, `file://`), written after every stage.

It has the layout of the run folder. What a stage has sealed is copied when the mirror has another sum for it, the ledger as a
snapshot, `run.json` last: so the mirror always holds a state that can be resumed, of the last stage that was copied whole.
Where the run folder does not exist, the same command on any machine restores it from there and goes on. Workers on other machines
read their model from it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from gsi.types import GsiError

LOOSE = 64 << 20  # bytes; larger files that no stage has sealed are not copied
MARK = ".gsi-mirror"  # what makes a place a mirror: nothing else is ever written over
_LEFT_OUT = ("run.json", "run.json.copy", "run.lock", "ledger.sqlite", "ledger.sqlite-wal", "ledger.sqlite-shm")
_CHUNK = 8 << 20
Sums = Mapping[str, Mapping[str, Any]]


class Mirror:
    """The mirror at `url`. Raises GsiError where it cannot be reached or written."""

    def __init__(self, url: str):
        from pyarrow import fs

        self.url = url
        try:
            if "://" in url:
                self._fs, self._root = fs.FileSystem.from_uri(url)
            else:
                self._fs, self._root = fs.LocalFileSystem(), str(Path(url).absolute())
        except (ValueError, OSError, NotImplementedError) as e:
            raise GsiError(f"mirror: {url!r} is no folder or URL that can be used: {e}") from e
        self._root = self._root.rstrip("/")

    def probe(self) -> None:
        """Marks the place as a mirror. Raises GsiError where it cannot be written, or holds something that is none."""
        with self._explained("cannot be read"):
            there = self._read(MARK) is None and self._first()
        if there:
            raise GsiError(f"mirror: {self.url} is not empty and no mirror ({there} is in it); name a place of its own")
        with self._explained("cannot be written"):
            self._write(MARK, b"a mirror of a gsi run\n")
            if self._read(MARK) != b"a mirror of a gsi run\n":
                raise OSError("what was read is not what was written")

    def state(self) -> dict[str, Any] | None:
        """run.json as it is there; None = no run has been copied yet."""
        with self._explained("cannot be read"):
            text = self._read("run.json")
        try:
            return None if text is None else json.loads(text)
        except ValueError as e:
            raise GsiError(f"mirror: {self.url}/run.json is no JSON: {e}; name another mirror, or remove what is there") from e

    def push(self, folder: Path, sums: Sums, there: Sums) -> None:
        """Copies the run folder as it stands. `sums`: what its stages have sealed; `there`: the same of the state in the mirror."""
        with self._explained("cannot be written"):
            for name in sums:
                if there.get(name) != sums[name]:
                    self._upload(folder / name, name)
            for path in sorted(p for p in folder.rglob("*") if p.is_file()):
                name = path.relative_to(folder).as_posix()
                unfinished = ".part" in name or "/checkpoint" in name
                if name not in sums and name not in _LEFT_OUT and not unfinished and "/model" not in name and path.stat().st_size < LOOSE:
                    self._upload(path, name)
            with _snapshot(folder / "ledger.sqlite") as ledger:
                self._upload(ledger, "ledger.sqlite")
            self._write("run.json", (folder / "run.json").read_bytes())
            for name in there.keys() - sums.keys():
                self._remove(name)

    def restore(self, folder: Path) -> None:
        """Copies everything here, `run.json` last, so that a copy that was broken off is begun again."""
        with self._explained("cannot be read"):
            for name in self._names():
                if name not in ("run.json", MARK):
                    self._download(name, folder / name)
            self._download("run.json", folder / "run.json")

    def fetch(self, name: str, cache: Path) -> Path:
        """The folder `name` of the mirror as a local one below `cache`, downloaded once for each content."""
        files = {n: s for n, s in _sealed(self.state() or {}).items() if n.startswith(f"{name}/")}
        if not files:
            raise GsiError(f"mirror: {self.url} has no {name}; it is copied there when its stage is done")
        key = hashlib.sha256(json.dumps([self.url, name, files], sort_keys=True).encode()).hexdigest()[:24]
        target = cache / key
        if not target.exists():
            cache.mkdir(parents=True, exist_ok=True)
            part = Path(tempfile.mkdtemp(prefix=f"{key}.", suffix=".part", dir=cache))
            with self._explained("cannot be read"):
                for n in files:
                    self._download(n, part / n[len(name) + 1 :])
            try:
                part.rename(target)
            except OSError:  # another process of this machine was faster
                shutil.rmtree(part, ignore_errors=True)
        return target

    # ----------------------------------------------------------------------------------- files

    def _at(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _names(self) -> list[str]:
        from pyarrow import fs

        found = self._fs.get_file_info(fs.FileSelector(self._root, recursive=True))
        return sorted(f.path[len(self._root) + 1 :] for f in found if f.type == fs.FileType.File and not f.path.endswith(".part"))

    def _first(self) -> str | None:
        """The name of something that is there; None = nothing."""
        from pyarrow import fs

        found = self._fs.get_file_info(fs.FileSelector(self._root, allow_not_found=True))
        return min((f.base_name for f in found), default=None)

    def _read(self, name: str) -> bytes | None:
        try:
            with self._fs.open_input_stream(self._at(name)) as f:
                return bytes(f.read())
        except FileNotFoundError:
            return None

    def _write(self, name: str, data: bytes) -> None:
        self._folder_of(name)
        part = name if self._objects else f"{name}.part"
        with self._fs.open_output_stream(self._at(part)) as f:
            f.write(data)
        if part != name:
            self._fs.move(self._at(part), self._at(name))

    def _upload(self, path: Path, name: str) -> None:
        self._folder_of(name)
        part = name if self._objects else f"{name}.part"
        with path.open("rb") as source, self._fs.open_output_stream(self._at(part)) as f:
            while data := source.read(_CHUNK):
                f.write(data)
        if part != name:
            self._fs.move(self._at(part), self._at(name))

    def _download(self, name: str, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + ".part")
        with self._fs.open_input_stream(self._at(name)) as f, part.open("wb") as target:
            while data := f.read(_CHUNK):
                target.write(data)
            target.flush()
            os.fsync(target.fileno())
        part.replace(path)

    def _remove(self, name: str) -> None:
        with suppress(FileNotFoundError):
            self._fs.delete_file(self._at(name))

    def _folder_of(self, name: str) -> None:
        if not self._objects:
            self._fs.create_dir(self._at(name).rpartition("/")[0], recursive=True)

    @property
    def _objects(self) -> bool:
        """Whether it stores objects: they appear whole, and there are no folders to make."""
        return self._fs.type_name in ("s3", "gcs")

    @contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as e:
            raise GsiError(
                f"mirror: {self.url} {what}: {' '.join(str(e).split())[:400]}; check the URL, the credentials (as the store's own tools read them) and the network"
            ) from e


@contextmanager
def _snapshot(ledger: Path) -> Iterator[Path]:
    """A consistent copy of the ledger, whatever is being written to it."""
    with tempfile.TemporaryDirectory(prefix="gsi-mirror-") as folder:
        copy = Path(folder) / "ledger.sqlite"
        with closing(sqlite3.connect(ledger.resolve().as_uri() + "?mode=ro", uri=True)) as a, closing(sqlite3.connect(copy)) as b:
            a.backup(b)
            b.execute("PRAGMA journal_mode = DELETE")
        yield copy


def _sealed(state: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    return {n: s for info in state.get("stages", {}).values() for n, s in info.get("files", {}).items()}
