"""Training rows as Parquet: iter_N/train.parquet, dropped.parquet (with reasons) and validation.parquet."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gsi.types import Example

ROW = pa.schema(
    [
        ("prompt", pa.string()), ("completion", pa.string()), ("input_ids", pa.list_(pa.int32())), ("loss_mask", pa.list_(pa.int8())),
        ("query_id", pa.string()), ("iteration", pa.int32()), ("attempt", pa.int32()), ("guidance", pa.string()), ("weight", pa.float32()), ("source", pa.string()),
    ]
)  # fmt: skip


def write(path: Path, examples: Sequence[Example], reasons: Sequence[str] | None = None) -> None:
    """Writes the rows, then renames; with `reasons` a column of why each was dropped."""
    rows: list[dict[str, Any]] = [dict(vars(e)) for e in examples]
    schema = ROW
    if reasons is not None:
        schema = ROW.append(pa.field("reason", pa.string()))
        rows = [row | {"reason": reason} for row, reason in zip(rows, reasons, strict=True)]
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as f:
            pq.write_table(pa.Table.from_pylist(rows, schema=schema), f)
            f.flush()
            os.fsync(f.fileno())
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise


def read(path: Path) -> list[Example]:
    """The rows of a file that `write` made, without the reasons."""
    rows = pq.read_table(path, columns=ROW.names).to_pylist()
    return [Example(**row | {"input_ids": tuple(row["input_ids"]), "loss_mask": tuple(row["loss_mask"])}) for row in rows]
