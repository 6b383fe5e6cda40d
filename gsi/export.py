"""What was sampled as training data for others, in TRL's columns. Filters run again on the ledger; nothing is sampled or graded again.

    sft       prompt, completion                           or with `ids`: input_ids, labels, completion_mask
    dpo       prompt, chosen, rejected                     every pair of one question, no row twice
    kto       prompt, completion, label                    accepted rows and, as negatives, rejected ones
    grpo      prompt, solution, pass_rate, ...             one row per question; pass_rate over its plain attempts
    rollouts  the ledger's rows as they are

Beside these columns every row says where it comes from: query_id, iteration, attempt, guidance, so that each can be found
in the ledger. Prompts are texts as the engine saw them, without BOS; TRL's trainers add it where the tokenizer does.
"""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gsi.config import Config, load_config
from gsi.curate import select, thin
from gsi.distinct import measure
from gsi.files import read_json
from gsi.ledger import Ledger
from gsi.seeds import seed_of
from gsi.types import STATUSES, GsiError, Rollout

Row = dict[str, Any]


@dataclass(frozen=True)
class Cut:
    """Which rollouts of a run become rows."""

    run: Path
    iteration: int | None  # of the training, as the run counts them; its rollouts were drawn by the model before
    accept: str
    cap: int
    distinct: Callable[[str], Hashable] | None  # says which completions are the same
    seed: int
    negatives: frozenset[str]  # statuses


def export(
    run: Path, output: Path, to: str = "sft", iteration: int | None = None, *, cap: int | None = None, distinct: bool | None = None,
    accept: str | None = None, seed: int | None = None, negatives: Sequence[str] = ("wrong",), ids: bool = False,
) -> int:  # fmt: skip
    """Writes rows to a .jsonl or .parquet file and returns how many.

    Args:
        to: sft | dpo | kto | grpo | rollouts (see above).
        iteration: the last that was sampled by default; `rollouts`: all of them.
        cap, distinct, accept, seed: filters as in `curate` and `accept` of the config; None = the run's own.
            distinct: true = by the measure of the run (text or steps), by text where it has none.
        negatives: statuses whose rows count as rejected (dpo, kto); with `accept: steps` right answers with a wrong step do too.
        ids: `sft` with the stored token ids and the loss mask; needs the run's tokenizer.

    Without a filter of its own `sft` is the iteration's train.parquet, replayed rows and references included. Raises GsiError
    when there is nothing to write.
    """
    if output.suffix not in (".jsonl", ".parquet"):
        raise GsiError(f"{output}: the file must end in .jsonl or .parquet")
    if not (run / "config.yaml").exists():
        raise GsiError(f"{run}: no run folder (it has no config.yaml)")
    if unknown := [s for s in negatives if s not in STATUSES or s == "correct"]:
        raise GsiError(f"--negatives: {unknown[0]!r}; there are {', '.join(s for s in STATUSES if s != 'correct')}")
    config = load_config(run / "config.yaml")
    c = config.curate
    same = measure(c.distinct if distinct is None else distinct and (c.distinct or True))
    cut = Cut(
        run, iteration, accept or config.accept, c.cap if cap is None else cap, same,
        config.seed if seed is None else seed, frozenset(negatives),
    )  # fmt: skip
    if to == "rollouts":
        rows: Iterable[Row] = (asdict(r) for r in (_ledger(run, None) if iteration is None else _rollouts(cut)))
    elif to == "sft":
        refiltered = any(x is not None for x in (cap, distinct, accept, seed))
        known = _trained(run, iteration) is not None
        if iteration is not None and not known and not _sampled(run, iteration):
            raise GsiError(f"{run}: no training rows of iteration {iteration} and nothing sampled for it")
        rows = _sft(cut, config, ids) if refiltered or not known else _as_trained(run, iteration, ids)
    else:
        rows = {"dpo": _dpo, "kto": _kto, "grpo": _grpo}[to](cut)
    return _write(output, rows)


def _write(output: Path, rows: Iterable[Row]) -> int:
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


# --------------------------------------------------------------------------------------- reading the run


def _ledger(run: Path, drawn: int | None) -> Iterator[Rollout]:
    ledger = Ledger(run / "ledger.sqlite", read_only=True)
    try:
        yield from ledger.rows(drawn)
    finally:
        ledger.close()


def _ask(run: Path, sql: str) -> list[tuple[Any, ...]]:
    ledger = Ledger(run / "ledger.sqlite", read_only=True)
    try:
        return ledger.query(sql)
    except sqlite3.OperationalError as e:
        raise GsiError(f"{run}: its ledger cannot answer this: {e}") from e
    finally:
        ledger.close()


def _sampled(run: Path, iteration: int) -> bool:
    return bool(_ask(run, f"SELECT 1 FROM rollouts WHERE iteration = {iteration - 1} LIMIT 1"))


def _rollouts(cut: Cut) -> list[Rollout]:
    """The rollouts of the iteration that is cut."""
    n = cut.iteration
    if n is None:
        last = _ask(cut.run, "SELECT max(iteration) FROM rollouts")[0][0]
        if last is None:
            raise GsiError(f"{cut.run}: nothing was sampled yet")
        n = last + 1
    rows = list(_ledger(cut.run, n - 1))
    if not rows:
        raise GsiError(f"{cut.run}: nothing was sampled for iteration {n}")
    return rows


def _trained(run: Path, iteration: int | None) -> Path | None:
    stages = read_json(run / "run.json")["stages"] if (run / "run.json").exists() else {}
    found = {int(p.parent.name[5:]): p for p in run.glob("iter_*/train.parquet")}
    found = {n: p for n, p in found.items() if f"iter_{n}/{'curate' if n else 'train'}" in stages}  # else of a run before, or half chosen
    return found.get(max(found, default=0) if iteration is None else iteration)


def _prompts(rows: Iterable[Rollout]) -> dict[str, str]:
    """Query id -> the plain prompt: what a hint replaced is never exported as a prompt."""
    return {r.query_id: r.prompt for r in rows if r.guidance is None}


def _from(r: Rollout) -> Row:
    return {"query_id": r.query_id, "iteration": r.iteration, "attempt": r.attempt, "guidance": r.guidance}


# --------------------------------------------------------------------------------------- rows


def _as_trained(run: Path, iteration: int | None, ids: bool) -> Iterator[Row]:
    path = _trained(run, iteration)
    assert path is not None
    columns = ["query_id", "iteration", "attempt", "guidance", "weight", "source"]
    texts = ["input_ids", "loss_mask"] if ids else ["prompt", "completion"]
    for row in pq.read_table(path, columns=[*texts, *columns]).to_pylist():
        yield (_ids(row.pop("input_ids"), row.pop("loss_mask")) if ids else {}) | row


def _ids(input_ids: Sequence[int], mask: Sequence[int]) -> Row:
    """TRL reads `labels` where they are there; `completion_mask` says the same to releases that do not."""
    labels = [i if trained else -100 for i, trained in zip(input_ids, mask, strict=True)]
    return {"input_ids": list(input_ids), "completion_mask": list(mask), "labels": labels}


def _sft(cut: Cut, config: Config, ids: bool) -> Iterator[Row]:
    rows = _rollouts(cut)
    prompts = _prompts(rows)
    chosen = select(rows, accept=cut.accept, cap=cut.cap, distinct=cut.distinct, seed=cut.seed)
    if not chosen:
        raise GsiError(f"{cut.run}: no rollout is accepted (accept: {cut.accept}), so there is nothing to export")
    encode = _encoder(cut.run, config) if ids else None
    for r in chosen:
        body = encode(prompts[r.query_id], r) if encode else {"prompt": prompts[r.query_id], "completion": r.completion}
        yield body | _from(r)


def _encoder(run: Path, config: Config) -> Callable[[str, Rollout], Row]:
    """(plain prompt, rollout) -> its ids as training sees them."""
    from gsi import build
    from gsi.curate import example_of
    from gsi.types import Text

    renderer = build.make_renderer(config, build.load_tokenizer(config, build.resolve_model(config)))
    stop_ids = frozenset(read_json(run / "run.json").get("stop_ids", ()))

    def encode(prompt: str, r: Rollout) -> Row:
        made = example_of(r, Text(prompt, renderer.ids_of(prompt)), renderer, config.train.on_given is True, stop_ids)
        return _ids(made.input_ids, made.loss_mask)

    return encode


def _rejected(cut: Cut, rows: Iterable[Rollout]) -> Iterator[Rollout]:
    """Rows that may stand as negatives: wrong by their status, or lucky where steps count; white space and guided ones left out.

    A guided attempt that failed is no bad answer to the plain question, which its training prompt would be.
    """
    for r in rows:
        lucky = cut.accept == "steps" and r.correct and r.steps_ok is False
        if (r.status in cut.negatives or lucky) and not r.guided and r.completion.split():
            yield r


def _both(cut: Cut) -> Iterator[tuple[str, list[Rollout], list[Rollout]]]:
    """(plain prompt, accepted rows, rejected rows) of every question; distinct and cap hold for each side alone."""
    rows = _rollouts(cut)
    prompts = _prompts(rows)
    sides: dict[str, tuple[list[Rollout], list[Rollout]]] = defaultdict(lambda: ([], []))
    for r in select(rows, accept=cut.accept, cap=cut.cap, distinct=cut.distinct, seed=cut.seed):
        sides[r.query_id][0].append(r)
    bad: dict[str, list[Rollout]] = defaultdict(list)
    for r in _rejected(cut, rows):
        bad[r.query_id].append(r)
    for query_id, found in bad.items():
        sides[query_id][1].extend(thin(found, cut.cap, cut.distinct, cut.seed))
    for query_id in sorted(sides):
        yield prompts[query_id], *sides[query_id]


def _dpo(cut: Cut) -> Iterator[Row]:
    """Pairs of one question, drawn by the seed; as many as its shorter side has, so that no row is in two pairs."""
    none = True
    for prompt, good, bad in _both(cut):
        good, bad = (sorted(side, key=lambda r: seed_of(cut.seed, "pair", r.query_id, r.iteration, r.attempt)) for side in (good, bad))
        for a, b in zip(good, bad, strict=False):
            none = False
            yield {"prompt": prompt, "chosen": a.completion, "rejected": b.completion} | _from(a) | {"rejected_attempt": b.attempt}
    if none:
        raise GsiError(
            f"{cut.run}: no question has both an accepted and a rejected row ({', '.join(sorted(cut.negatives))}); try --negatives"
        )


def _kto(cut: Cut) -> Iterator[Row]:
    for prompt, good, bad in _both(cut):
        for side, label in ((good, True), (bad, False)):
            for r in side:
                yield {"prompt": prompt, "completion": r.completion, "label": label} | _from(r) | {"status": r.status}


def _grpo(cut: Cut) -> Iterator[Row]:
    rows = _rollouts(cut)
    prompts = _prompts(rows)
    plain: dict[str, list[Rollout]] = defaultdict(list)
    for r in rows:
        if not r.guided:
            plain[r.query_id].append(r)
    for query_id, task, level, question, answer in _ask(
        cut.run, "SELECT id, task, level, question, answer FROM queries WHERE split = 'train' ORDER BY id"
    ):
        drawn = plain.get(query_id)
        if drawn:
            right = sum(r.accepted(cut.accept) for r in drawn)
            yield {
                "prompt": prompts[query_id], "solution": answer, "pass_rate": right / len(drawn), "correct": right, "attempts": len(drawn),
                "query_id": query_id, "task": task, "level": level, "question": question,
            }  # fmt: skip
