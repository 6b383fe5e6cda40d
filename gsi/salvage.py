"""Every row of a damaged ledger that can still be read and is what was written, in a new file; the damaged one is kept beside it."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gsi.files import sync_folder
from gsi.ledger import COLUMNS, Ledger, checksum

TABLES = ("rollouts", "evaluations", "archived", "teacher_calls", "archived_calls", "spare_calls", "scores", "queries")
_MAGIC = b"SQLite format 3\x00"


def salvage(path: Path, stamp: str) -> tuple[dict[str, int], dict[str, int], Path | None]:
    """Replaces the ledger by one of its whole rows.

    Returns (rows kept by table, rows that could be read but are not what was written by table, where the damaged file is kept).
    A missing file is replaced by an empty ledger. `stamp` ends the names of what is kept.
    """
    kept, bad = dict.fromkeys(TABLES, 0), dict.fromkeys(TABLES, 0)
    new = path.with_name(path.name + ".part")
    for suffix in ("", "-wal", "-shm"):
        new.with_name(new.name + suffix).unlink(missing_ok=True)
    Ledger(new).close()
    aside = None
    if path.exists():
        aside = path.with_name(f"{path.name}.damaged-{stamp}")
        for suffix in ("", "-wal"):  # copied, not moved: a crash in here leaves the old file where it was
            if (old := path.with_name(path.name + suffix)).exists():
                shutil.copyfile(old, aside.with_name(aside.name + suffix))
        with sqlite3.connect(new) as db:
            for table in TABLES:
                kept[table], bad[table] = _copy(aside, db, table)
        db.close()
    with new.open("rb") as f:
        os.fsync(f.fileno())
    for suffix in ("-wal", "-shm"):  # they belong to the old file
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    new.replace(path)
    sync_folder(path.parent)
    return kept, bad, aside


def _copy(source: Path, target: sqlite3.Connection, table: str) -> tuple[int, int]:
    columns = [row[1] for row in target.execute(f"PRAGMA table_info({table})")]
    sql = f"INSERT OR IGNORE INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"
    kept = bad = 0
    for row in _rows(source, table, columns):
        if _whole(dict(zip(columns, row, strict=True))):
            try:
                kept += target.execute(sql, row).rowcount
                continue
            except sqlite3.IntegrityError:
                pass  # a NULL where none may be
        bad += 1
    return kept, bad


def _whole(row: dict[str, Any]) -> bool:
    """Whether a row is what was written, as far as its table and its version can tell."""
    if row.get("crc") is not None:
        return checksum([row[c] for c in COLUMNS]) == row["crc"]
    try:
        for name in ("prompt_ids", "response_ids", "messages", "options"):
            if row.get(name) is not None:
                json.loads(row[name])
    except (ValueError, TypeError):
        return False
    return all(isinstance(row[c], int) for c in ("iteration", "attempt") if c in row)


def _rows(path: Path, table: str, columns: list[str]) -> Iterator[tuple[Any, ...]]:
    """The rows that can be read, by row number: where a page is broken, the range is halved until only its own rows are missing."""
    db = _open(path)
    try:
        there = {row[1] for row in db.execute(f"PRAGMA table_info({table})")}
        if not there:
            return
        names = ", ".join(c if c in there else f"NULL AS {c}" for c in columns)
        sql = f"SELECT rowid, {names} FROM {table} NOT INDEXED WHERE rowid BETWEEN ? AND ? ORDER BY rowid"
        ranges = [(1, _last(db, path, table))]
        while ranges:
            first, last = ranges.pop()
            try:
                for row in db.execute(sql, (first, last)):
                    first = row[0] + 1
                    yield row[1:]
            except (sqlite3.DatabaseError, OverflowError):
                if first < last:
                    middle = (first + last) // 2
                    ranges += [(middle + 1, last), (first, middle)]
    except sqlite3.DatabaseError:  # not even the schema can be read
        return
    finally:
        db.close()


def _last(db: sqlite3.Connection, path: Path, table: str) -> int:
    """The highest row number: from the table, else from its index, else what the file could hold at most."""
    known = []
    for how in ("NOT INDEXED", f"INDEXED BY sqlite_autoindex_{table}_1"):
        try:
            known.append(db.execute(f"SELECT max(rowid) FROM {table} {how}").fetchone()[0] or 0)
        except sqlite3.DatabaseError:
            continue
    return max(known) if known else path.stat().st_size // 64


def _open(path: Path) -> sqlite3.Connection:
    with path.open("r+b") as f:  # of a copy: a broken name of the format would keep SQLite from reading anything
        if f.read(16) != _MAGIC and path.stat().st_size:
            f.seek(0)
            f.write(_MAGIC)
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA writable_schema=ON")  # reads a file that is shorter than its header says
    db.text_factory = lambda raw: raw.decode(errors="replace")
    return db
