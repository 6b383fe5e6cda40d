"""Rollouts to read: which go into a page of limited size, how they are packed, and pages of them for `gsi view`.

Packed: an index (columns of numbers and small dictionaries) and blocks of rows, each gzip in base64, unpacked by the page when they are looked at.
"""

from __future__ import annotations

import base64
import functools
import gzip
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gsi.report.parts import clean, cut
from gsi.report.tally import Tally

LONGEST = 6000  # characters of one text on a page; the rest is cut out of its middle
BLOCK = 500  # rows
PROBE = 400  # rows packed to learn how well they compress
MATH = ("\\", "$")  # a page without these needs no math rendering

# of one row, in the order of a packed row; the page reads them by this order
FIELDS = ("query", "task", "level", "iteration", "attempt", "strategy", "guidance", "prompt", "given", "generated", "prompt_tokens", "given_tokens", "tokens",
          "finish_reason", "seed", "model", "status", "extracted", "detail", "created_at", "steps_ok", "accepted", "gold", "reference")  # fmt: skip
_TEXTS = ("query", "task", "guidance", "finish_reason", "model", "status", "extracted", "detail", "gold", "strategy")

SORTS = {
    "mixed": "pick, id",
    "question": "q, n, attempt",
    "hardest": "level IS NULL, level DESC, pick, id",
    "longest": "tokens DESC, id",
    "newest": "id DESC",
}


@dataclass(frozen=True)
class Packed:
    """Rollouts as a page carries them."""

    index: str
    blocks: list[str]
    rows: int
    total: int  # rollouts in the ledger
    math: bool

    @property
    def bytes(self) -> int:
        return len(self.index) + sum(map(len, self.blocks))


def pack(tally: Tally, budget: int) -> Packed:
    """All rollouts, or as many as fit into `budget` bytes: from every stratum (iteration, level, accepted, guided) equally many.

    Which ones is drawn by a hash of what a rollout is, so the choice is the same every time.
    """
    total = int(tally("SELECT count(*) FROM slim")[0][0])
    if not total:
        return Packed(_squeeze([]), [], 0, 0, False)
    probe = _blocks(tally, "SELECT id FROM slim ORDER BY pick, id LIMIT ?", (PROBE,), at_once=PROBE)
    each = sum(len(b) for b, _ in probe) / min(total, PROBE)
    wanted = min(
        total, max(1, int(0.9 * budget / (each + 8)))
    )  # sorted, rows compress better than the probe did; 8: their part of the index
    room = 0.96 * budget  # the rest is for the index
    for last in (False, False, True):
        chosen = _chosen(tally, wanted, total)
        blocks = list(_blocks(tally, *chosen))
        size = sum(len(b) for b, _ in blocks)
        rows = int(tally(f"SELECT count(*) FROM ({chosen[0]})", chosen[1])[0][0])
        if size <= room and (rows == total or size > 0.6 * room or last):
            break
        wanted = min(total, max(1, int((0.7 if last else 0.9) * rows * room / size)))
    return Packed(_index(tally, *chosen), [b for b, _ in blocks], rows, total, any(m for _, m in blocks))


def _chosen(tally: Tally, wanted: int, total: int) -> tuple[str, tuple[Any, ...]]:
    """SQL of the chosen ids in the order they are packed."""
    if wanted >= total:
        return "SELECT id FROM slim ORDER BY q, n, attempt", ()
    sizes = sorted(count for (count,) in tally("SELECT count(*) FROM slim GROUP BY n, level, good, kind = 'plain'"))
    each, left = 0, wanted
    for i, size in enumerate(sizes):  # small strata go in whole, the others share what is left
        each = left // (len(sizes) - i)
        if size > each:
            break
        left -= size
    ranked = "SELECT id, q, n, attempt, row_number() OVER (PARTITION BY n, level, good, kind = 'plain' ORDER BY pick, id) AS k FROM slim"
    return f"SELECT id FROM ({ranked}) WHERE k <= ? ORDER BY q, n, attempt", (max(1, each),)


def _index(tally: Tally, ids: str, args: Sequence[Any]) -> str:
    """Columns by which the page filters and sorts, in packed order."""
    columns: dict[str, list[Any]] = {name: [] for name in ("iteration", "level", "guidance", "status", "accepted", "tokens", "pick")}
    words: dict[str, dict[Any, int]] = {"guidance": {}, "status": {}}
    order = f"SELECT n, level, kind, status, good, tokens, pick FROM slim WHERE id IN ({ids}) ORDER BY q, n, attempt"
    for n, level, kind, status, good, tokens, pick in tally.stream(order, args):
        columns["iteration"].append(n)
        columns["level"].append(level)
        columns["guidance"].append(words["guidance"].setdefault(clean(kind), len(words["guidance"])))
        columns["status"].append(words["status"].setdefault(clean(status), len(words["status"])))
        columns["accepted"].append(int(bool(good)))
        columns["tokens"].append(tokens)
        columns["pick"].append(pick)
    return _squeeze({"columns": columns, "words": {k: list(v) for k, v in words.items()}, "block": BLOCK})


def _blocks(tally: Tally, ids: str, args: Sequence[Any], at_once: int = BLOCK) -> Iterable[tuple[str, bool]]:
    """(packed block, whether it may hold math)"""
    rows: list[list[Any]] = []
    found = [i for (i,) in tally(ids, args)]
    made: list[tuple[str, bool]] = []
    for begin in range(0, len(found), at_once):
        rows = [[row[f] for f in FIELDS] for row in read(tally, found[begin : begin + at_once])]
        made.append((_squeeze(rows), any(m in (row[7] + row[9]) for row in rows for m in MATH)))
    return made


def _squeeze(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return base64.b64encode(gzip.compress(text.encode("utf-8", "replace"), 6, mtime=0)).decode("ascii")


def read(tally: Tally, ids: Sequence[int], longest: int = LONGEST) -> list[dict[str, Any]]:
    """Rollouts by their number in the ledger, in that order, as plain values that are safe to show."""
    have = {row[1] for row in tally("PRAGMA table_info(rollouts)")}
    names = {"query": "query_id", "tokens": "generated_tokens"}
    columns = [names.get(f, f) for f in FIELDS[:-3] if f != "generated"] + ["response"]
    columns = [f"r.{c}" if c in have else "NULL" for c in columns]
    gold = "q.answer, q.rationale" if "queries" in tally.tables else "NULL, NULL"
    join = "LEFT JOIN queries q ON q.split = 'train' AND q.id = r.query_id" if "queries" in tally.tables else ""
    keys = [f for f in FIELDS[:-3] if f != "generated"] + ["response", "accepted", "gold", "reference", "id"]
    found: dict[int, dict[str, Any]] = {}
    for begin in range(0, len(ids), 500):
        some = ids[begin : begin + 500]
        sql = f"SELECT {', '.join(columns)}, {tally.good}, {gold}, r.rowid FROM rollouts r {join} WHERE r.rowid IN ({','.join('?' * len(some))})"
        for values in tally(sql, some):
            row = dict(zip(keys, values, strict=True))
            found[row["id"]] = _readable(row, longest)
    return [found[i] for i in ids if i in found]


def _readable(row: dict[str, Any], longest: int) -> dict[str, Any]:
    given, response = str(row["given"] or ""), str(row.pop("response") or "")
    apart = response.startswith(given)
    row |= {"given": given if apart else "", "generated": response[len(given) :] if apart else response}
    if not apart:
        row["detail"] = f"{row['detail'] or ''} (the response does not begin with what the ledger says was given)".strip()
    for name in ("prompt", "given", "generated", "reference"):
        row[name] = None if row[name] is None else clean(cut(row[name], longest))
    for name in _TEXTS:
        row[name] = _short(row[name])
    row["created_at"] = row["created_at"] and clean(str(row["created_at"])[:40])
    row["iteration"] = _whole(row["iteration"], -1) + 1
    for name in ("level", "attempt", "prompt_tokens", "given_tokens", "tokens", "steps_ok"):
        row[name] = None if row[name] is None else _whole(row[name], None)
    return row | {
        "seed": None if row["seed"] is None else str(row["seed"]) if isinstance(row["seed"], int) else _short(row["seed"]),
        "accepted": int(bool(row["accepted"])),
    }


@functools.lru_cache(maxsize=16384)
def _short(value: Any) -> str | None:
    return None if value is None else clean(cut(value, 400))


def _whole(value: Any, otherwise: Any) -> Any:
    return value if isinstance(value, int) else otherwise


def page(tally: Tally, wanted: Mapping[str, str], size: int = 25) -> dict[str, Any]:
    """One page of rollouts for `gsi view`. `wanted`: iteration, level, guidance, verdict, text, sort, page (from 0), all optional.

    Raises ValueError for a number that is none.
    """
    where: list[str] = ["1"]
    args: list[Any] = []
    for key, column in (("iteration", "n"), ("level", "level")):
        if wanted.get(key):
            where.append(f"{column} = ?")
            args.append(int(wanted[key]))
    if wanted.get("guidance"):
        where.append("kind = ?" if wanted["guidance"] != "guided" else "kind <> 'plain' AND ? <> ''")
        args.append(wanted["guidance"])
    verdict = wanted.get("verdict")
    if verdict in ("accepted", "rejected"):
        where.append("good" if verdict == "accepted" else "NOT good")
    elif verdict:
        where.append("status = ?")
        args.append(verdict)
    if wanted.get("text"):
        where.append(
            "id IN (SELECT rowid FROM rollouts WHERE instr(lower(query_id || char(10) || prompt || char(10) || response || char(10) || coalesce(extracted, '')), ?))"
        )
        args.append(wanted["text"].lower())
    condition = " AND ".join(where)
    count = int(tally(f"SELECT count(*) FROM slim WHERE {condition}", args)[0][0])
    at = max(0, min(int(wanted.get("page") or 0), (count - 1) // size if count else 0))
    order = SORTS.get(wanted.get("sort") or "mixed", SORTS["mixed"])
    ids = [i for (i,) in tally(f"SELECT id FROM slim WHERE {condition} ORDER BY {order} LIMIT ? OFFSET ?", (*args, size, at * size))]
    return {"count": count, "page": at, "size": size, "rows": read(tally, ids)}


def choices(tally: Tally) -> dict[str, list[Any]]:
    """What can be filtered by."""
    one = lambda column: [value for (value,) in tally(f"SELECT DISTINCT {column} FROM slim WHERE {column} IS NOT NULL ORDER BY 1")]  # noqa: E731
    return {
        "iteration": one("n"),
        "level": one("level"),
        "guidance": [clean(k) for k in one("kind")],
        "status": [clean(s) for s in one("status")],
    }
