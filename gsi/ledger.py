"""The ledger: every attempt, accepted or not, in one SQLite file that anything can read. Nobody else writes it.

WAL with full synchronisation: a row is on disk when `add` returns, and one transaction may carry many rows. Every row carries a checksum
(column `crc`), which is compared whenever the row is read back: SQLite itself finds a broken page, but not a flipped bit in a text.
"""

from __future__ import annotations

import json
import operator
import os
import sqlite3
import threading
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

from gsi.types import GsiError, Query, Reply, Rollout, Tried

SCHEMA_VERSION = 2  # 1: without the column crc
_TYPES = {
    "level": "INTEGER", "iteration": "INTEGER NOT NULL", "attempt": "INTEGER NOT NULL", "prompt_tokens": "INTEGER NOT NULL",
    "given_tokens": "INTEGER NOT NULL", "generated_tokens": "INTEGER NOT NULL", "seed": "INTEGER NOT NULL",
    "correct": "INTEGER NOT NULL", "steps_ok": "INTEGER", "guidance": "TEXT", "extracted": "TEXT", "prompt_ids": "TEXT", "response_ids": "TEXT",
}  # fmt: skip
COLUMNS = tuple(f.name for f in fields(Rollout))
_BODY = ", ".join(f"{c} {_TYPES.get(c, 'TEXT NOT NULL')}" for c in COLUMNS)
_CALL = ("query_id", "iteration", "attempt", "messages", "reply", "model", "prompt_tokens", "generated_tokens", "created_at")
_CALL_BODY = ", ".join(f"{c} {_TYPES.get(c, 'TEXT NOT NULL')}" for c in _CALL)
_TABLES = {
    "rollouts": f"{_BODY}, crc INTEGER, UNIQUE (query_id, iteration, attempt)",
    "evaluations": f"split TEXT NOT NULL, {_BODY}, crc INTEGER, UNIQUE (split, query_id, iteration, attempt)",
    "archived": f"archived_at TEXT NOT NULL, source TEXT NOT NULL, split TEXT, {_BODY}, crc INTEGER",
    "teacher_calls": f"{_CALL_BODY}, UNIQUE (query_id, iteration, attempt)",
    "archived_calls": f"archived_at TEXT NOT NULL, {_CALL_BODY}",
    "spare_calls": f"archived_at TEXT NOT NULL, {_CALL_BODY}, UNIQUE (query_id, iteration, attempt, created_at)",
    "scores": "query_id TEXT NOT NULL, iteration INTEGER NOT NULL, attempt INTEGER NOT NULL, reliance REAL, logp REAL, tokens INTEGER NOT NULL, "
    "UNIQUE (query_id, iteration, attempt)",
    "queries": "split TEXT NOT NULL, id TEXT NOT NULL, task TEXT NOT NULL, level INTEGER, question TEXT NOT NULL, answer TEXT NOT NULL, rationale TEXT, "
    "options TEXT, UNIQUE (split, id)",
}
SPLITS = ("validation", "test")  # of the table `evaluations`
STRATA_SPLITS = ("strata", "strata_test")  # draws of the initial model that say how hard a query is; see gsi/strata.py
_INDEX = "rollouts_by_iteration ON rollouts (iteration, query_id, attempt)"


class Ledger:
    """The store of one run folder. Thread-safe. Raises GsiError for a file that is no ledger of this version."""

    def __init__(self, path: str | Path, read_only: bool = False):
        self.path = Path(path)
        if read_only and not self.path.exists():
            raise GsiError(f"{self.path}: no ledger there; is this a run folder?")
        self._lock = threading.Lock()
        with _explained(self.path):
            self._db = connect(self.path, read_only, check_same_thread=False, isolation_level=None)
            if not read_only:
                self._db.execute("PRAGMA journal_mode=WAL")
                self._db.execute("PRAGMA synchronous=FULL")
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            if version <= SCHEMA_VERSION and not read_only:
                version = self._migrate(version)
            elif 1 <= version <= SCHEMA_VERSION:
                self._complete("CREATE TEMP TABLE")
        if version == 0:
            raise GsiError(f"{self.path}: not a readable ledger: it holds no tables: {DAMAGED}")
        if not 1 <= version <= SCHEMA_VERSION:
            raise GsiError(f"{self.path}: ledger version {version}, this gsi reads {SCHEMA_VERSION}; use the gsi that wrote it")
        self._crc = "crc" if version > 1 else "NULL"

    def _migrate(self, version: int) -> int:
        """Makes the tables, or brings those of an earlier version up to this one, in one transaction. Returns the version."""
        if version == SCHEMA_VERSION and not self._missing():
            return version
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            if version == 1:
                for table in ("rollouts", "evaluations", "archived"):
                    self._db.execute(f"ALTER TABLE {table} ADD COLUMN crc INTEGER")  # NULL: written before there were checksums
            self._complete("CREATE TABLE")
            self._db.execute(f"CREATE INDEX IF NOT EXISTS {_INDEX}")
            self._db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
        return SCHEMA_VERSION

    def _missing(self) -> list[str]:
        there = {name for (name,) in self._db.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')")}
        return [name for name in _TABLES if name not in there]

    def _complete(self, create: str) -> None:
        """Makes the tables that an earlier gsi did not know: in the file, or empty for this connection only where it is read."""
        for name in self._missing():
            self._db.execute(f"{create} {name} ({_TABLES[name]})")

    def add(self, rows: Sequence[Rollout], split: str | None = None) -> None:
        """Commits rows in one transaction, to `evaluations` where a split is named, else to `rollouts`.

        Raises sqlite3.IntegrityError for an attempt that is already there: drawing twice is a bug, not an update.
        """
        table, extra = ("rollouts", ()) if split is None else ("evaluations", (split,))
        marks = ", ".join("?" * (len(COLUMNS) + len(extra) + 1))
        self._write(f"INSERT INTO {table} VALUES ({marks})", [(*extra, *(v := _values(r)), checksum(v)) for r in rows])

    def attempts(self, query_id: str, iteration: int, split: str | None = None) -> list[Rollout]:
        """What is stored of one query in one iteration, in attempt order."""
        return list(self._select(split, "query_id = ? AND iteration = ?", (query_id, iteration)))

    def rows(self, iteration: int | None = None, split: str | None = None) -> Iterator[Rollout]:
        """Rows in (iteration, query, attempt) order, streamed; of one iteration where it is named."""
        return self._select(split, *(("1", ()) if iteration is None else ("iteration = ?", (iteration,))))

    def before(self, iteration: int, without: Collection[int] = ()) -> Iterator[Rollout]:
        """Rollouts of all iterations before this one, some left out, in (query, iteration, attempt) order, streamed."""
        kept = f"iteration < ? AND iteration NOT IN ({', '.join(map(str, map(int, without)))})"
        return self._select(None, kept, (iteration,), order="query_id, iteration, attempt")

    def past(self, iteration: int, accept: str) -> dict[str, list[Tried]]:
        """What earlier iterations tried, by query, without the texts: a few hundred bytes per attempt."""
        found: dict[str, list[Tried]] = {}
        sql = "SELECT query_id, iteration, attempt, guidance, correct, steps_ok FROM rollouts WHERE iteration < ? ORDER BY query_id, iteration, attempt"
        for query_id, drawn, attempt, guidance, correct, steps in self.query(sql, (iteration,)):
            accepted = bool(correct) and (accept == "answer" or steps == 1)
            found.setdefault(query_id, []).append(Tried(drawn, attempt, guidance, accepted))
        return found

    def earlier(self, query_id: str, iteration: int) -> list[Rollout]:
        """What is stored of one query in all iterations before this one, in order."""
        return list(self._select(None, "query_id = ? AND iteration < ?", (query_id, iteration)))

    def count(self, iteration: int, split: str | None = None) -> int:
        table, where, args = _where(split, "iteration = ?", (iteration,))
        with self._lock, _explained(self.path):
            return int(self._db.execute(f"SELECT count(*) FROM {table} WHERE {where}", args).fetchone()[0])

    def unscored(self, iteration: int, wanted: str) -> Iterator[Rollout]:
        """An iteration's rollouts of which the SQL condition `wanted` holds and that have no row in `scores`, in order, streamed."""
        scored = "SELECT 1 FROM scores AS s WHERE (s.query_id, s.iteration, s.attempt) = (rollouts.query_id, rollouts.iteration, rollouts.attempt)"
        return self._select(None, f"iteration = ? AND {wanted} AND NOT EXISTS ({scored})", (iteration,))

    def query(self, sql: str, args: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """A read-only question in SQL (metrics, reports)."""
        with self._lock, _explained(self.path):
            return self._db.execute(sql, tuple(args)).fetchall()

    def stream(self, sql: str, args: Sequence[Any] = ()) -> Iterator[tuple[Any, ...]]:
        """The same, row by row, for answers that are as long as the ledger."""
        db = connect(self.path, read_only=True)
        try:
            with _explained(self.path):
                yield from db.execute(sql, tuple(args))
        finally:
            db.close()

    def problems(self) -> list[str]:
        """What is damaged, found by reading the whole file: its structure, and every row against its checksum."""
        try:
            found = [row[0] for row in self.query("PRAGMA quick_check(3)")]
        except GsiError as e:
            return [str(e)]
        if found != ["ok"]:
            return [f"{self.path}: {'; '.join(' '.join(text.split()) for text in found)}"]
        if self._crc == "NULL":
            return []
        bad: list[str] = []
        for table in ("rollouts", "evaluations"):
            with self._lock, _explained(self.path):
                for row in self._db.execute(f"SELECT {', '.join(COLUMNS)}, crc FROM {table} WHERE crc IS NOT NULL"):
                    if checksum(row[:-1]) != row[-1]:
                        bad.append(f"{self.path}: {table}: {_named(row)} is not what was written")
        return bad

    def archive(
        self, first: int, last: int | None, now: str, samples: bool = True, splits: Sequence[str] = SPLITS, serve: bool = True
    ) -> None:
        """Moves rows of iterations first..last (None = all later ones) to `archived`: paid for, but no longer part of the run.

        Args:
            samples: whether rollouts go, and with them their scores and what a teacher was asked for them.
            splits: of `evaluations`.
            serve: replies of the teacher go to `spare_calls` and serve again where the same is asked; False = all to `archived_calls`, for good.
        """
        columns, where, args = ", ".join((*COLUMNS, "crc")), "iteration BETWEEN ? AND ?", (first, 2**31 if last is None else last)
        with _explained(self.path), self._lock, self._db:
            self._db.execute("BEGIN IMMEDIATE")
            for table, split in (*([("rollouts", None)] if samples else []), *(("evaluations", s) for s in splits)):
                among, which = (where, args) if split is None else (f"{where} AND split = ?", (*args, split))
                self._db.execute(f"INSERT INTO archived SELECT ?, '{table}', ?, {columns} FROM {table} WHERE {among}", (now, split, *which))
                self._db.execute(f"DELETE FROM {table} WHERE {among}", which)
            if samples:
                self._db.execute(f"DELETE FROM scores WHERE {where}", args)
                self._db.execute(f"INSERT OR REPLACE INTO spare_calls SELECT ?, * FROM teacher_calls WHERE {where}", (now, *args))
                self._db.execute(f"DELETE FROM teacher_calls WHERE {where}", args)
            if not serve:
                self._db.execute(f"INSERT INTO archived_calls SELECT * FROM spare_calls WHERE {where}", args)
                self._db.execute(f"DELETE FROM spare_calls WHERE {where}", args)

    def set_queries(self, splits: Mapping[str, Sequence[Query]]) -> None:
        """Writes the run's queries by split: its answers and references make it readable alone. What differs from the run's data is put right."""
        # levels may have been found for a query since (`set_levels`): what has not changed keeps its own
        sql = """INSERT INTO queries VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (split, id) DO UPDATE SET task = excluded.task,
            level = excluded.level, question = excluded.question, answer = excluded.answer, rationale = excluded.rationale, options = excluded.options
            WHERE (task, question, answer, rationale, options)
            IS NOT (excluded.task, excluded.question, excluded.answer, excluded.rationale, excluded.options)"""
        rows = (
            (split, q.id, q.task, q.level, q.question, q.answer, q.rationale, q.options and json.dumps(q.options, ensure_ascii=False))
            for split, queries in splits.items()
            for q in queries
        )
        self._write(sql, rows)

    def set_levels(self, split: str, levels: Mapping[str, int]) -> None:
        """Gives queries of a split the levels that were found for them."""
        self._write(
            "UPDATE queries SET level = ? WHERE split = ? AND id = ?", [(level, split, query_id) for query_id, level in levels.items()]
        )

    def add_teacher_call(self, key: tuple[str, int, int], messages: Any, reply: Reply, now: str) -> None:
        row = (*key, json.dumps(messages, ensure_ascii=False), reply.text, reply.model, reply.prompt_tokens, reply.generated_tokens, now)
        self._write("INSERT OR REPLACE INTO teacher_calls VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", [row])

    def teacher_call(self, key: tuple[str, int, int], messages: Any) -> Reply | None:
        """The stored reply of an attempt, where it answered the same messages. One that was spare is part of the run again."""
        asked = "query_id = ? AND iteration = ? AND attempt = ? AND messages = ?"
        args = (*key, json.dumps(messages, ensure_ascii=False))
        sql = f"SELECT reply, prompt_tokens, generated_tokens, model FROM teacher_calls WHERE {asked}"
        if not (found := self.query(sql, args)) and self.query(f"SELECT 1 FROM spare_calls WHERE {asked}", args):
            with _explained(self.path), self._lock, self._db:
                self._db.execute("BEGIN IMMEDIATE")
                self._db.execute(f"INSERT OR REPLACE INTO teacher_calls SELECT {', '.join(_CALL)} FROM spare_calls WHERE {asked}", args)
                self._db.execute(f"DELETE FROM spare_calls WHERE {asked}", args)
            found = self.query(sql, args)
        return Reply(*found[0]) if found else None

    def add_scores(self, rows: Sequence[tuple[str, int, int, float | None, float | None, int]]) -> None:
        """Rows (query, iteration, attempt, reliance, mean log-probability, tokens read) of the table `scores`; see gsi/reliance.py."""
        self._write("INSERT INTO scores VALUES (?, ?, ?, ?, ?, ?)", rows)

    def scores(self, query_id: str | None = None) -> dict[tuple[str, int, int], tuple[float | None, float | None]]:
        """(query, iteration, attempt) -> (reliance, mean log-probability) of every scored attempt, or of those at one query."""
        where, args = ("1", ()) if query_id is None else ("query_id = ?", (query_id,))
        sql = f"SELECT query_id, iteration, attempt, reliance, logp FROM scores WHERE {where}"
        return {(q, i, a): (reliance, logp) for q, i, a, reliance, logp in self.query(sql, args)}

    def close(self) -> None:
        with self._lock:
            self._db.close()

    def _write(self, sql: str, rows: Iterable[tuple[Any, ...]]) -> None:
        with _explained(self.path), self._lock, self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany(sql, rows)

    def _select(
        self, split: str | None, where: str, args: tuple[Any, ...], order: str = "iteration, query_id, attempt"
    ) -> Iterator[Rollout]:
        table, where, args = _where(split, where, args)
        db = connect(self.path, read_only=True)  # of its own: a stream may stay open while rows are added
        sql = f"SELECT {', '.join(COLUMNS)}, {self._crc} FROM {table} WHERE {where} ORDER BY {order}"
        try:
            with _explained(self.path):
                for row in db.execute(sql, args):
                    if row[-1] is not None and checksum(row[:-1]) != row[-1]:
                        raise GsiError(f"{self.path}: {table}: {_named(row)} is not what was written: {DAMAGED}")
                    yield _rollout(row[:-1])
        finally:
            db.close()


MAX_PATH = 504  # bytes of a path that SQLite opens (its MAX_PATHNAME, less what it appends for its own files)


def connect(path: Path, read_only: bool = False, **options: Any) -> sqlite3.Connection:
    """A connection to a ledger whatever its path is made of. Raises GsiError for a path that is too long for SQLite."""
    path = path.resolve()
    if (size := len(os.fsencode(path))) > MAX_PATH:
        raise GsiError(f"output_dir: {path} has {size} bytes, and SQLite opens paths of at most {MAX_PATH}; choose a shorter output_dir")
    return sqlite3.connect(path.as_uri() + ("?mode=ro" if read_only else ""), uri=True, **options)


DAMAGED = "the file is damaged or was changed; `gsi doctor RUN` keeps every row that is whole"


def unborn(path: Path) -> bool:
    """Whether the file has no tables yet: its process was stopped while it made them, or it was emptied since."""
    db = connect(path, read_only=True)
    try:
        return bool(db.execute("PRAGMA user_version").fetchone()[0] == 0)
    except sqlite3.DatabaseError:
        return False
    finally:
        db.close()


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """A damaged or unwritable file is a GsiError that names it and the way out."""
    try:
        yield
    except sqlite3.DatabaseError as e:
        code = getattr(e, "sqlite_errorcode", 0) & 0xFF
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise GsiError(f"{path}: not a readable ledger: {e}: {DAMAGED}") from e
        if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
            raise GsiError(f"{path}: {e}; make room or give write permission, then the same command goes on from here") from e
        raise


def _named(row: Sequence[Any]) -> str:
    query_id, iteration, attempt = (row[COLUMNS.index(c)] for c in ("query_id", "iteration", "attempt"))
    return f"attempt {attempt} of query {query_id} in iteration {iteration}"


def _where(split: str | None, where: str, args: tuple[Any, ...]) -> tuple[str, str, tuple[Any, ...]]:
    return ("rollouts", where, args) if split is None else ("evaluations", f"split = ? AND {where}", (split, *args))


_IDS = [COLUMNS.index("prompt_ids"), COLUMNS.index("response_ids")]
_CORRECT, _STEPS = COLUMNS.index("correct"), COLUMNS.index("steps_ok")
_CREATED = COLUMNS.index("created_at")


def checksum(row: Sequence[Any]) -> int:
    """CRC-32 of a row's COLUMNS as they are stored, without the time, so that equal draws have equal checksums."""
    return zlib.crc32("\x1f".join(map(str, (*row[:_CREATED], *row[_CREATED + 1 :]))).encode("utf-8", "surrogatepass"))


_fields = operator.attrgetter(*COLUMNS)
_encode = json.JSONEncoder(separators=(",", ":")).encode


def _values(r: Rollout) -> tuple[Any, ...]:
    row = list(_fields(r))
    for i in _IDS:
        row[i] = None if row[i] is None else _encode(row[i])
    row[_CORRECT] = int(row[_CORRECT])
    row[_STEPS] = None if row[_STEPS] is None else int(row[_STEPS])
    return tuple(row)


def _rollout(row: Sequence[Any]) -> Rollout:
    values = list(row)
    for i in _IDS:
        values[i] = None if values[i] is None else tuple(json.loads(values[i]))
    values[_CORRECT] = bool(values[_CORRECT])
    values[_STEPS] = None if values[_STEPS] is None else bool(values[_STEPS])
    return Rollout(*values)
