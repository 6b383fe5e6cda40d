"""Training rows as stored, and which of them go where: exactly the tokens that were sampled, in an order that only the seed decides.

The order is fixed before training: every epoch is a seeded shuffle, cut into batches of `batch_size` rows, one optimizer step each.
How a batch is cut further, into micro-batches of similar lengths, over accumulation steps and processes, changes what is padded
and nothing else: the loss is normalised over the whole batch. So a resume, another number of processes or a smaller micro-batch
trains on the same batches in the same order.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from gsi.seeds import seed_of
from gsi.types import GsiError


@dataclass(frozen=True)
class Rows:
    """Rows of train.parquet, flat. Row i is `ids[starts[i]:starts[i + 1]]`."""

    ids: np.ndarray  # (tokens,) int32
    mask: np.ndarray  # (tokens,) int8, 1 = trained; a row's first token is never predicted, so never 1
    starts: np.ndarray  # (rows + 1,)
    weights: np.ndarray  # (rows,) mean over trained tokens is 1
    names: list[str]  # query, attempt: for messages

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, i: int) -> dict[str, Any]:
        """What the collator takes: input_ids, labels (-100 = not trained), weight."""
        part = slice(self.starts[i], self.starts[i + 1])
        ids = self.ids[part].astype(np.int64)
        return {"input_ids": ids, "labels": np.where(self.mask[part] == 1, ids, -100), "weight": float(self.weights[i])}

    @property
    def lengths(self) -> np.ndarray:
        return np.diff(self.starts)

    @property
    def trained(self) -> np.ndarray:
        """Trained tokens per row."""
        return np.add.reduceat(self.mask, self.starts[:-1], dtype=np.int64) if len(self) else np.zeros(0, np.int64)


def read_rows(path: str | Path) -> Rows:
    """Reads and checks the rows of a train.parquet.

    Weights are scaled by one factor so that their mean over the trained tokens is 1: weights of one, or of seven, give the plain loss.
    Raises GsiError for no rows, a row with nothing to train on, misfitting lengths, weights below 0 or not finite.
    """
    names = {"query_id", "attempt"} & set(pq.read_schema(path).names)
    table = pq.read_table(path, columns=["input_ids", "loss_mask", "weight", *sorted(names)])
    if not table.num_rows:
        raise GsiError(f"{path}: no rows to train on")
    columns = [table[c].combine_chunks() for c in ("input_ids", "loss_mask")]
    lengths, masks = (c.value_lengths().to_numpy(zero_copy_only=False) for c in columns)
    ids, mask = (c.flatten().to_numpy(zero_copy_only=False) for c in columns)
    if names:
        q, a = (table[c].to_pylist() if c in names else [None] * table.num_rows for c in ("query_id", "attempt"))
        called = [f"{x}, attempt {y}" for x, y in zip(q, a, strict=True)]
    else:
        called = [f"row {i}" for i in range(table.num_rows)]
    if (misfit := np.flatnonzero(lengths != masks)).size:
        raise GsiError(f"{path}: {called[misfit[0]]}: loss_mask has {masks[misfit[0]]} entries for {lengths[misfit[0]]} tokens")
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    mask = mask.astype(np.int8).copy()
    mask[starts[:-1][lengths > 0]] = 0  # nothing comes before a first token to predict it from
    weights = table["weight"].to_numpy().astype(np.float64)
    if (bad := np.flatnonzero(~np.isfinite(weights) | (weights < 0))).size:
        raise GsiError(f"{path}: {called[bad[0]]}: weight {weights[bad[0]]}; weights must be finite and at least 0")
    trained = np.array([mask[a:b].sum() for a, b in itertools.pairwise(starts)], dtype=np.int64)
    if (empty := np.flatnonzero(trained == 0)).size:
        raise GsiError(
            f"{path}: {empty.size} rows with nothing to train on (loss mask all 0), the first is {called[empty[0]]}; curate the iteration again"
        )
    total = float((weights * trained).sum())
    if total <= 0:
        raise GsiError(f"{path}: all weights are 0, so there is nothing to train on")
    return Rows(ids.astype(np.int32), mask, starts, weights * trained.sum() / total, called)


@dataclass(frozen=True)
class Plan:
    """Which rows go into which step, accumulation step and process."""

    lengths: np.ndarray  # tokens per row
    batch_size: int  # rows per optimizer step
    micro_batch_size: int  # rows per forward pass, at most
    epochs: float
    seed: int
    processes: int = 1
    packing: bool = False  # balance tokens, not lengths: nothing is padded

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(len(self.lengths) / self.batch_size)

    @property
    def steps(self) -> int:
        return max(1, math.ceil(self.epochs * self.steps_per_epoch - 1e-9))

    @property
    def accumulation(self) -> int:
        """Forward passes per optimizer step and process."""
        return math.ceil(min(self.batch_size, len(self.lengths)) / (self.micro_batch_size * self.processes))

    def batch(self, step: int) -> np.ndarray:
        """Rows of an optimizer step (0-based). The last batch of an epoch may be smaller."""
        epoch, at = divmod(step, self.steps_per_epoch)
        order = np.random.default_rng(seed_of(self.seed, "order", epoch)).permutation(len(self.lengths))
        return order[at * self.batch_size : (at + 1) * self.batch_size]

    def micro_batches(self, step: int) -> list[list[int]]:
        """accumulation x processes parts of a batch; part j belongs to accumulation step j // processes, process j % processes.

        Neighbours in length share a part, and the parts of one accumulation step are of like size, so no process waits long.
        A part may be empty where a batch has fewer rows than parts.
        """
        batch = self.batch(step)
        rows = batch[np.lexsort((batch, -self.lengths[batch]))]  # longest first
        parts = self.accumulation * self.processes
        if not self.packing:
            return [part.tolist() for part in np.array_split(rows, parts)]
        packs: list[list[int]] = [[] for _ in range(parts)]
        filled = [0] * parts
        for row in rows.tolist():  # each into the emptiest pack
            k = min(range(parts), key=lambda j: (filled[j], j))
            packs[k].append(row)
            filled[k] += int(self.lengths[row])
        return packs


@dataclass(frozen=True)
class Order:
    """The micro-batches of one process, all steps one after another: what a DataLoader takes as batch_sampler."""

    plan: Plan
    process: int = 0

    def __len__(self) -> int:
        return self.plan.steps * self.plan.accumulation

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self.plan.steps):
            yield from self.plan.micro_batches(step)[self.process :: self.plan.processes]


def shown(rows: Rows, chosen: list[int], decode: Any) -> list[dict[str, Any]]:
    """Rows as a person reads them: runs of context and of trained tokens, each decoded. `decode(ids) -> str`."""
    found = []
    for i in chosen:
        part = slice(rows.starts[i], rows.starts[i + 1])
        ids, mask = rows.ids[part], rows.mask[part]
        cuts = [0, *(np.flatnonzero(np.diff(mask)) + 1).tolist(), len(ids)]
        pieces = [{"trained": bool(mask[a]), "tokens": b - a, "text": decode(ids[a:b].tolist())} for a, b in itertools.pairwise(cuts)]
        found.append({"row": rows.names[i], "weight": round(float(rows.weights[i]), 6), "pieces": pieces})
    return found
