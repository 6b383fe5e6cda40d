"""Rows as they are stored: local JSONL or JSON files, and data sets of the Hugging Face hub. Nothing is interpreted here."""

from __future__ import annotations

import gzip
import json
import ssl
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gsi.types import GsiError

LOCAL = "tasks.N.path=FILE.jsonl"  # the way out of every hub error; N counts from 0


@dataclass(frozen=True)
class Source:
    name: str  # file or data set, as messages show it
    rows: Iterator[tuple[int, dict[str, Any] | GsiError]]  # (line or row number from 1, columns or why they cannot be read)
    unit: str = "line"
    columns: tuple[str, ...] | None = None  # None = every row brings its own

    def at(self, line: int) -> str:
        return f"{self.name}:{line}" if self.unit == "line" else f"{self.name}: row {line}"


def local_file(path: str) -> Source:
    """A `.jsonl` or `.jsonl.gz` file, read line by line, or a `.json` (`.json.gz`) file with one list.

    Raises GsiError, also while rows are read.
    """
    file = Path(path).expanduser()
    kind = Path(file.stem).suffix if file.suffix == ".gz" else file.suffix
    if kind not in (".jsonl", ".json"):
        raise GsiError(f"{path}: cannot tell what this file is; expected a name that ends in .jsonl, .jsonl.gz or .json")
    if not file.is_file():
        raise GsiError(f"{path}: {'is a folder, not a file' if file.is_dir() else 'no such file'}; set {LOCAL}")
    return Source(path, _json_lines(path, file)) if kind == ".jsonl" else Source(path, _json_list(path, file), unit="row")


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
                row: dict[str, Any] | GsiError = _object(f"{path}:{line}", _parse(f"{path}:{line}", raw, "one JSON object per line"))
            except GsiError as e:
                row = e
            yield line, row


def _json_list(path: str, file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    data = _parse(path, b"".join(raw for _, raw in _raw_lines(path, file)), "one JSON list; name a file with one object per line .jsonl")
    if not isinstance(data, list):
        raise GsiError(f"{path}: expected a JSON list of objects, found {type(data).__name__}; name a file with one object per line .jsonl")
    for row, value in enumerate(data, 1):
        yield row, _object(f"{path}: row {row}", value)


def _parse(place: str, raw: bytes, expected: str) -> Any:
    try:
        return json.loads(raw.decode("utf-8"))
    except UnicodeDecodeError as e:
        raise GsiError(f"{place}: byte {e.start} is not valid UTF-8; convert the file, for example with iconv -t UTF-8") from None
    except RecursionError:
        raise GsiError(f"{place}: JSON nested too deep; expected {expected}") from None
    except ValueError as e:  # JSONDecodeError, or a number with thousands of digits
        raise GsiError(f"{place}: not valid JSON: {e}; expected {expected}") from None


def _object(place: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise GsiError(f"{place}: expected a JSON object with columns, found {type(value).__name__}")
    return value


def hub_dataset(hub: str, configuration: str | None, split: str, wanted: set[str]) -> Source:
    """A split of a data set on the hub, or in a local folder of that name. Only the `wanted` columns are decoded (others may be pictures).

    With HF_HUB_OFFLINE=1 only a cached copy is used. Raises GsiError, quickly where the hub cannot be reached.
    """
    import datasets

    name = f"{hub}{f':{configuration}' if configuration else ''} (split {split})"
    try:
        if not Path(hub).is_dir():
            _knock()
        data = datasets.load_dataset(hub, configuration, split=split)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as e:
        reason = (str(e).strip() or type(e).__name__).splitlines()[0]
        raise GsiError(f"{name}: cannot be loaded from the Hugging Face hub: {reason}; use a local file instead with {LOCAL}") from None
    chosen = [column for column in data.column_names if column in wanted]
    rows = data.select_columns(chosen) if chosen else ({} for _ in range(data.num_rows))
    return Source(name, ((i, dict(row)) for i, row in enumerate(rows, 1)), unit="row", columns=tuple(data.column_names))


def _knock() -> None:
    """One request without retries: `load_dataset` alone takes 25 s to find out that there is no network. Raises OSError."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return
    try:
        urllib.request.urlopen(urllib.request.Request(constants.ENDPOINT, method="HEAD"), timeout=10).close()
    except urllib.error.HTTPError:
        pass  # any status will do: somebody answered
    except urllib.error.URLError as e:
        if not isinstance(e.reason, ssl.SSLError):  # the hub's own client may know other certificates
            raise
