"""Training rows and rollouts out of a run folder, in forms other tools read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gsi.ledger import Ledger
from gsi.types import GsiError


def export(run: Path, output: Path, to: str, iteration: int | None) -> int:
    """Writes rows to a .jsonl or .parquet file and returns how many.

    `sft`: prompt and completion (TRL's column names) with query_id, attempt, guidance of one iteration's training set,
    the last by default. `rollouts`: the ledger, all iterations by default. Raises GsiError when there is nothing.
    """
    if output.suffix not in (".jsonl", ".parquet"):
        raise GsiError(f"{output}: the file must end in .jsonl or .parquet")
    rows = _sft(run, iteration) if to == "sft" else _rollouts(run, iteration)
    part, count = output.with_name(output.name + ".part"), 0
    if output.suffix == ".jsonl":
        with part.open("w", encoding="utf-8") as f:
            for row in rows:
                f.write(json.dumps(row, ensure_ascii=False) + "\n")
                count += 1
    else:
        table = list(rows)
        count = len(table)
        pq.write_table(pa.Table.from_pylist(table), part)
    part.replace(output)
    return count


def _sft(run: Path, iteration: int | None) -> Iterator[dict[str, Any]]:
    found = {int(p.parent.name[5:]): p for p in run.glob("iter_*/train.parquet")}
    if not found:
        raise GsiError(f"{run}: no training rows yet")
    n = max(found) if iteration is None else iteration
    if n not in found:
        raise GsiError(f"{run}: no training rows of iteration {n}; there are {', '.join(map(str, sorted(found)))}")
    columns = ["prompt", "completion", "query_id", "iteration", "attempt", "guidance", "weight", "source"]
    yield from pq.read_table(found[n], columns=columns).to_pylist()


def _rollouts(run: Path, iteration: int | None) -> Iterator[dict[str, Any]]:
    ledger = Ledger(run / "ledger.sqlite", read_only=True)
    try:
        yield from (asdict(r) for r in ledger.rows(iteration))
    finally:
        ledger.close()
