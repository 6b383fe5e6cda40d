"""From a finished run folder to one compact record: what a study keeps, and all that its findings are made from."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from gsi import tasks
from gsi.config import Config
from gsi.files import read_json
from gsi.lab import dag_check, multiply_check
from gsi.ledger import connect
from gsi.metrics import PLAIN, accepted_sql
from gsi.types import Query

Record = dict[str, Any]
IN_SIGNS = {"dag": dag_check.in_signs, "multiply": multiply_check.in_signs}  # tasks with two dialects


def collect(run: Path, config: Config, accept: str, draws: bool = False) -> Record:
    """One entry per iteration under `iterations`, iteration 0 (the initial model) first.

    Right means right under `accept`, which is the study's: an arm that trains on right answers is measured like the others.
    `tests`: by task and level [asked, right, right answers], greedy, with `items`: one bit per query in id order, as a hex number.
    `covered`: training queries with a right attempt, and with a right answer. `unaided`: by level, of the plain attempts at the queries that were
    guided too, [attempts, right]. `sample`: by level [attempts, plain right, guided attempts, guided right, generated tokens, lucky (a right answer alone)].
    `accepted`: number, identical to the reference, that but for the dialect (`alike`), guided, of these identical and alike, different texts, generated share of the
    guided tokens. `rows`: training rows by level, with `tokens` trained and `steps`. `flops`: of this iteration.

    With `draws`: only `{"draws": n, "right": [...], "answers": [...], "levels": [...]}`, by query in id order: draws right, right answers, level, from the run's first model.
    """
    if draws:
        return _draws(run, config.sample.k, accepted_sql(accept))
    metrics = {line["iteration"]: line for line in _lines(run / "metrics.jsonl")}
    pool = {q.id: q for t in config.tasks for q in tasks.load(t).queries}
    good = accepted_sql(accept)
    found: list[Record] = []
    with connect(run / "ledger.sqlite", read_only=True) as db:
        for n in range(config.iterations + 1):
            record: Record = {"tests": _tests(db, n, good)}
            if n:
                line = metrics[n]
                record |= _sample(db, n - 1, good, pool) | _rows(run / f"iter_{n}" / "train.parquet", pool)
                record["rows"]["steps"] = line.get("train/steps")
                record["flops"] = line["cost/flops"]
                record["tail"] = {k: round(line[k], 5) for k in _TAIL if k in line}
                record["wall"] = round(sum(v for k, v in line.items() if k.startswith("time/")), 1)
            found.append(record)
    state = read_json(run / "run.json")
    return {"iterations": found, "parameters": state.get("parameters", 0), "pool": _histogram(q.level for q in pool.values())}


def _draws(run: Path, k: int, good: str) -> Record:
    with connect(run / "ledger.sqlite", read_only=True) as db:
        query = f"SELECT sum({good}), sum(correct), max(level) FROM rollouts WHERE iteration = 0 AND {PLAIN} GROUP BY query_id ORDER BY query_id"
        rows = db.execute(query).fetchall()
    right, answers, levels = ([row[i] for row in rows] for i in range(3))
    return {"draws": k, "right": right, "answers": answers, "levels": levels}


_TAIL = ("tail/coverage", "tail/hard_coverage", "tail/hard_share", "tail/effective_queries", "sample/prompt_tokens", "teacher/tokens")


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _histogram(levels: Any) -> dict[str, int]:
    return {str(level): count for level, count in sorted(Counter(levels).items(), key=str)}


def _tests(db: sqlite3.Connection, n: int, good: str) -> Record:
    result: Record = {}
    query = f"SELECT task, level, query_id, {good}, correct FROM evaluations WHERE split = 'test' AND iteration = ? AND attempt = 0 ORDER BY task, query_id"
    for task, level, _id, right, answer in db.execute(query, (n,)):
        entry = result.setdefault(task, {"levels": {}, "items": ""})
        counts = entry["levels"].setdefault(str(level), [0, 0, 0])
        counts[0] += 1
        counts[1] += bool(right)
        counts[2] += bool(answer)
        entry["items"] += "1" if right else "0"
    for entry in result.values():
        entry["items"] = f"{len(entry['items'])}:{int(entry['items'], 2):x}"
    return result


def _sample(db: sqlite3.Connection, iteration: int, good: str, pool: Mapping[str, Query]) -> Record:
    levels: dict[str, list[int]] = defaultdict(lambda: [0] * 6)
    kinds: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    plain: dict[str, list[int]] = defaultdict(lambda: [0, 0])  # by query: attempts, right
    guided_queries: dict[str, str] = {}  # with their level
    accepted = identical = alike = guided = guided_identical = guided_alike = given = generated = 0
    texts: set[tuple[str, str]] = set()
    covered: set[str] = set()
    answered: set[str] = set()
    query = f"SELECT query_id, level, NOT {PLAIN}, guidance, {good}, correct, given_tokens, generated_tokens, response FROM rollouts WHERE iteration = ?"
    for query_id, level, helped, guidance, right, answer, given_tokens, tokens, response in db.execute(query, (iteration,)):
        counts = levels[str(level)]
        counts[0] += 1
        counts[4] += tokens
        counts[5] += bool(answer and not right)
        if answer:
            answered.add(query_id)
        if not helped:
            counts[1] += bool(right)
            plain[query_id][0] += 1
            plain[query_id][1] += bool(right)
        else:
            guided_queries[query_id] = str(level)
            counts[2] += 1
            counts[3] += bool(right)
            kind = kinds[guidance.partition(":")[0]]
            kind[0] += 1
            kind[1] += bool(right)
        if right:
            covered.add(query_id)
            reference, in_signs = pool[query_id].rationale or "", IN_SIGNS.get(pool[query_id].task, str)
            same = response.split() == reference.split()
            accepted += 1
            identical += same
            but_for_words = in_signs(response).split() == in_signs(reference).split()
            alike += but_for_words
            texts.add((query_id, " ".join(response.split())))
            if helped:
                guided += 1
                guided_identical += same
                guided_alike += but_for_words
                given += given_tokens
                generated += tokens
    solved = "".join("1" if plain[q][1] else "0" for q in sorted(pool))
    unaided: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for query_id, of in guided_queries.items():
        unaided[of] = [a + b for a, b in zip(unaided[of], plain[query_id], strict=True)]
    return {
        "sample": dict(sorted(levels.items())),
        "covered": [len(covered), len(answered)],
        "unaided": dict(sorted(unaided.items())),
        "kinds": dict(sorted(kinds.items())),
        "accepted": {
            "n": accepted,
            "identical": identical,
            "alike": alike,
            "guided": guided,
            "guided_identical": guided_identical,
            "guided_alike": guided_alike,
            "texts": len(texts),
            "own_share": round(generated / (given + generated), 4) if guided else None,
        },
        "solved": f"{len(solved)}:{int(solved or '0', 2):x}",  # pool queries with a right plain attempt, one bit each in id order
    }


def _rows(path: Path, pool: Mapping[str, Query]) -> Record:
    table = pq.read_table(path, columns=["query_id", "loss_mask", "source"])
    ids = table["query_id"].to_pylist()
    return {
        "rows": {
            "levels": _histogram(pool[i].level for i in ids),
            "tokens": sum(map(sum, table["loss_mask"].to_pylist())),
            "references": sum(s == "reference" for s in table["source"].to_pylist()),
        }
    }


def bits(packed: str) -> list[int]:
    """The 0/1 list of an `N:hex` string."""
    n, _, value = packed.partition(":")
    return [int(c) for c in f"{int(value, 16):0{int(n)}b}"] if int(n) else []
