"""Training rows as Parquet: iter_N/train.parquet, dropped.parquet (with reasons) and validation.parquet."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gsi.types import Example

GROUP = 4096  # rows of a row group
ROW = pa.schema(
    [
        ("prompt", pa.string()), ("completion", pa.string()), ("input_ids", pa.list_(pa.int32())), ("loss_mask", pa.list_(pa.int8())),
        ("query_id", pa.string()), ("iteration", pa.int32()), ("attempt", pa.int32()), ("guidance", pa.string()), ("weight", pa.float32()), ("source", pa.string()),
    ]
)  # fmt: skip


class Writer:
    """Writes rows as they come, a few thousand in memory; `finish` syncs and renames, leaving without it removes the part. A context manager.

    `reasons`: with a column of why each was dropped.
    """

    def __init__(self, path: Path, reasons: bool = False):
        self._path, self._part = path, path.with_name(path.name + ".part")
        self._schema = ROW.append(pa.field("reason", pa.string())) if reasons else ROW
        self._file = self._part.open("wb")
        self._writer = pq.ParquetWriter(self._file, self._schema)
        self._rows: list[dict[str, Any]] = []
        self.count = 0

    def add(self, examples: Sequence[Example], reasons: Sequence[str] | None = None) -> None:
        self.count += len(examples)
        for i, e in enumerate(examples):
            self._rows.append(vars(e) | ({} if reasons is None else {"reason": reasons[i]}))
        if len(self._rows) >= GROUP:
            self._flush()

    def finish(self) -> None:
        if self._rows or not self.count:  # a file without rows has its columns all the same
            self._flush()
        self._writer.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._part.replace(self._path)

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._file.closed:  # not finished, perhaps because the disk is full
            for end in (self._writer.close, self._file.close):
                with suppress(OSError):
                    end()
        self._part.unlink(missing_ok=True)

    def _flush(self) -> None:
        self._writer.write_table(pa.Table.from_pylist(self._rows, schema=self._schema))
        self._rows = []


def write(path: Path, examples: Sequence[Example], reasons: Sequence[str] | None = None) -> None:
    """Writes the rows, then renames; with `reasons` a column of why each was dropped."""
    with Writer(path, reasons is not None) as writer:
        for i in range(0, len(examples), GROUP):
            writer.add(examples[i : i + GROUP], None if reasons is None else reasons[i : i + GROUP])
        writer.finish()


def read(path: Path) -> list[Example]:
    """The rows of a file that `write` made, without the reasons."""
    return [e for part in stream(path) for e in part]


def stream(path: Path) -> Iterator[list[Example]]:
    """The same, a few thousand at a time."""
    for batch in columns(path, ROW.names):
        yield [Example(**row | {"input_ids": tuple(row["input_ids"]), "loss_mask": tuple(row["loss_mask"])}) for row in batch.to_pylist()]


def columns(path: Path, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Some columns, in batches of a few thousand rows."""
    with pq.ParquetFile(path) as file:
        yield from file.iter_batches(GROUP, columns=list(names))


def sums(lists: pa.ListArray) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Sum of every row's list (a loss mask: its trained tokens)."""
    totals = np.concatenate([[0], np.cumsum(lists.flatten().to_numpy(zero_copy_only=False), dtype=np.int64)])
    ends = np.cumsum(lists.value_lengths().to_numpy(zero_copy_only=False), dtype=np.int64)
    return totals[ends] - totals[np.concatenate([[0], ends[:-1]])]
