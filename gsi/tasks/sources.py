"""Rows as they are stored in local files: JSONL, JSON, CSV and Parquet. Nothing is interpreted here; `hub.py` reads the hub's data sets."""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gsi.types import GsiError

KINDS = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
LOCAL = "tasks.N.path=FILE.jsonl"  # the way out of every hub error; N counts from 0


@dataclass(frozen=True)
class Source:
    name: str  # file or data set, as messages show it
    rows: Iterator[tuple[int, dict[str, Any] | GsiError]]  # (line or row number from 1, columns or why they cannot be read)
    unit: str = "line"
    columns: tuple[str, ...] | None = None  # None = every row brings its own
    split: str | None = None  # the one that was read, where it is not the task's

    def at(self, line: int) -> str:
        return f"{self.name}:{line}" if self.unit == "line" else f"{self.name}: row {line}"


def local_file(path: str) -> Source:
    """A file with one row per line (`.jsonl`), one list (`.json`), a header line and commas or tabs (`.csv`, `.tsv`), or `.parquet`.

    All but the last may end in `.gz` too. Lines and row groups are read as they are asked for. Raises GsiError, also while rows are read.
    """
    file = Path(path).expanduser()
    kind = Path(file.stem).suffix if file.suffix == ".gz" else file.suffix
    if kind not in KINDS or (kind == ".parquet" and file.suffix == ".gz"):
        raise GsiError(
            f"{path}: cannot tell what this file is (the data; tasks[].path or evaluate.tasks[].path); expected a name that ends in .jsonl, .json, .csv, .tsv (each also with .gz) or .parquet"
        )
    if not file.is_file():
        raise GsiError(f"{path}: {'is a folder, not a file' if file.is_dir() else 'no such file'}; set {LOCAL}")
    if kind == ".parquet":
        return _parquet(path, file)
    if kind in (".csv", ".tsv"):
        return _csv(path, file, "," if kind == ".csv" else "\t")
    return Source(path, _json_lines(path, file)) if kind == ".jsonl" else Source(path, _json_list(path, file), unit="row")


def is_local(name: str) -> bool:
    """Whether a name that a person gave stands for a file: it is there, or it ends like one."""
    return Path(name).expanduser().is_file() or any(name.endswith(end) for kind in KINDS for end in (kind, kind + ".gz"))


def _parquet(path: str, file: Path) -> Source:
    import pyarrow.parquet as pq
    from pyarrow import ArrowException

    try:
        table = pq.ParquetFile(file)
    except (OSError, ArrowException) as e:
        raise GsiError(f"{path}: cannot be read as Parquet: {e}") from None

    def rows() -> Iterator[tuple[int, dict[str, Any]]]:
        number = 0
        try:
            for batch in table.iter_batches(1024):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
        except (OSError, ArrowException) as e:
            raise GsiError(f"{path}: cannot be read after row {number}: {e}; is it complete?") from None

    return Source(path, rows(), unit="row", columns=tuple(table.schema_arrow.names))


def _csv(path: str, file: Path, comma: str) -> Source:
    """Cells are texts; an empty one is none. A quoted cell may hold commas and line ends."""

    def rows() -> Iterator[tuple[int, dict[str, Any] | GsiError]]:
        records = _records(path, file, comma)
        _, header = next(records, (1, []))
        if isinstance(header, GsiError):
            raise header
        if twice := [column for column, n in Counter(header).items() if column and n > 1]:
            raise GsiError(f"{path}:1: two columns are called {twice[0]!r}; rename one, or take it out")
        for line, cells in records:
            if isinstance(cells, GsiError):
                yield line, cells
            elif len(cells) == len(header):
                yield line, {column: cell or None for column, cell in zip(header, cells, strict=True)}
            else:
                yield line, GsiError(f"{path}:{line}: another number of cells than the header's {len(header)}; is a quote missing?")

    return Source(path, rows())


def _records(path: str, file: Path, comma: str) -> Iterator[tuple[int, list[str] | GsiError]]:
    """(line, cells) of each record that is not blank, or why it cannot be read; the next one begins on the next line."""
    undecoded: list[tuple[int, GsiError]] = []  # lines of the record that is being read

    def lines() -> Iterator[str]:
        for line, raw in _raw_lines(path, file):
            try:
                text = raw.decode("utf-8")
            except UnicodeDecodeError as e:
                text = raw.decode("utf-8", "replace")
                why = f"byte {e.start} is not valid UTF-8; convert the file, for example with iconv -t UTF-8"
                undecoded.append((line, GsiError(f"{path}:{line}: {why}")))
            if line == 1 and comma not in text and (others := [c for c in ",;\t|" if c in text]):
                raise GsiError(
                    f"{path}:1: the header has {others[0]!r} and no {comma!r}: wrong separator? cells of .csv are separated by ',', those of "
                    ".tsv by tabs; write the file again so, or name a file with tabs .tsv"
                )
            yield text

    csv.field_size_limit(2**27)
    reader = csv.reader(lines(), delimiter=comma, strict=True)
    while True:
        first, cells = reader.line_num + 1, None
        try:
            cells = next(reader, None)
        except csv.Error as e:
            yield first, GsiError(f"{path}:{first}: not valid CSV: {e}")
        else:
            if cells is None:
                return
            if undecoded:
                yield undecoded[0]
            elif cells:
                yield reader.line_num, cells
        undecoded.clear()


def _raw_lines(path: str, file: Path) -> Iterator[tuple[int, bytes]]:
    line = 0
    try:
        with gzip.open(file) if file.suffix == ".gz" else open(file, "rb") as stream:
            for line, raw in enumerate(stream, 1):  # bytes: only \n ends a line, and a bad byte has a line number
                yield line, raw.removeprefix(b"\xef\xbb\xbf") if line == 1 else raw
    except (OSError, EOFError, zlib.error) as e:
        raise GsiError(f"{path}: cannot be read after line {line}: {e}; is it complete, and named .gz only if it is gzip?") from None


def _json_lines(path: str, file: Path) -> Iterator[tuple[int, dict[str, Any] | GsiError]]:
    for line, raw in _raw_lines(path, file):
        if raw.strip():
            try:
                row = _row(f"{path}:{line}", _parse(f"{path}:{line}", raw, "one JSON object per line"))
            except GsiError as e:
                row = e
            yield line, row


def _json_list(path: str, file: Path) -> Iterator[tuple[int, dict[str, Any] | GsiError]]:
    data = _parse(path, b"".join(raw for _, raw in _raw_lines(path, file)), "one JSON list; name a file with one object per line .jsonl")
    if not isinstance(data, list):
        raise GsiError(f"{path}: expected a JSON list of objects, found {type(data).__name__}; name a file with one object per line .jsonl")
    for row, value in enumerate(data, 1):
        yield row, _row(f"{path}: row {row}", value)


def _parse(place: str, raw: bytes, expected: str) -> Any:
    try:
        return json.loads(raw.decode("utf-8"))
    except UnicodeDecodeError as e:
        raise GsiError(f"{place}: byte {e.start} is not valid UTF-8; convert the file, for example with iconv -t UTF-8") from None
    except RecursionError:
        raise GsiError(f"{place}: JSON nested too deep; expected {expected}") from None
    except ValueError as e:  # JSONDecodeError, or a number with thousands of digits
        raise GsiError(f"{place}: not valid JSON: {e}; expected {expected}") from None


def _row(place: str, value: Any) -> dict[str, Any] | GsiError:
    return value if isinstance(value, dict) else GsiError(f"{place}: expected a JSON object with columns, found {type(value).__name__}")


def readable(rows: Iterable[tuple[int, dict[str, Any] | GsiError]]) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows; raises the GsiError of the first that cannot be read."""
    for line, row in rows:
        if isinstance(row, GsiError):
            raise row
        yield line, row
