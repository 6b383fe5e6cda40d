"""Figures that only the ledger has: one pass over its rows into a narrow temporary table, then questions in SQL.

The pass streams; what stays in memory is SQLite's page cache. Nothing is written to the run folder.
"""

from __future__ import annotations

import functools
import hashlib
import sqlite3
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from gsi.ledger import connect
from gsi.types import GsiError

Rows = list[tuple[Any, ...]]

# What figures need of a row, in the order of the ledger. n = iteration that sampled it; size = the number behind `kind:`; chars = length of the completion;
# text = a hash of an accepted completion (white space aside); pick = a hash of what the row is, to choose rows by
_COLUMNS = """
SELECT rowid AS id, decoded(CAST(query_id AS BLOB)) AS q, CAST(level AS INTEGER) AS level,
  CAST(iteration AS INTEGER) + 1 AS n, CAST(attempt AS INTEGER) AS attempt,
  CASE WHEN guidance IS NULL OR guidance LIKE 'shuffle:%' THEN 'plain' ELSE label(CAST(substr(guidance, 1, min(80, instr(guidance || ':', ':') - 1)) AS BLOB)) END AS kind,
  CASE WHEN guidance LIKE 'shuffle:%' THEN 'options in other orders' WHEN guidance LIKE '%:%' THEN label(CAST(substr(guidance, instr(guidance, ':') + 1, 80) AS BLOB)) END AS size,
  label(CAST(substr(strategy, 1, 80) AS BLOB)) AS strategy,
  {good} AS good, label(CAST(substr(status, 1, 80) AS BLOB)) AS status, generated_tokens AS tokens, given_tokens AS given, length(completion) AS chars,
  CASE WHEN {good} THEN digest(CAST(completion AS BLOB)) END AS text, pick(CAST(query_id AS BLOB), iteration, attempt) AS pick
FROM rollouts{where} ORDER BY rowid
"""


class Tally:
    """Questions to a run's ledger. Raises GsiError where there is no readable ledger.

    A run may write on meanwhile: all answers are of the moment this was opened. Use as a context manager, or close.
    """

    def __init__(self, run: Path, accept: str | None, seed: int = 0, slim: bool = True):
        path = run / "ledger.sqlite"
        if not path.exists():
            raise GsiError(f"{path}: no ledger there")
        self.good = "(correct <> 0 AND steps_ok IS 1)" if accept == "steps" else "(correct <> 0)"
        self._db = connect(path, read_only=True, check_same_thread=False, timeout=30, isolation_level=None)
        try:
            self._db.create_function("decoded", 1, _decoded, deterministic=True)
            self._db.create_function("label", 1, _label, deterministic=True)
            self._db.create_function("digest", 1, _digest, deterministic=True)
            self._db.create_function("pick", 3, lambda *what: _pick(seed, *what), deterministic=True)
            self._db.execute("PRAGMA cache_size=-65536")  # kB
            self.tables = {name for (name,) in self._db.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')")}
            if "rollouts" not in self.tables:
                raise GsiError(f"{path}: not a readable ledger: it has no table rollouts")
            self._last: tuple[int, str] | None = None  # number and time of the newest row that was counted
            if slim:
                self.refresh()
        except sqlite3.Error as e:
            self._db.close()
            raise GsiError(f"{path}: not a readable ledger: {e}") from e
        except GsiError:
            self._db.close()
            raise

    def refresh(self) -> None:
        """Counts what a run has added since. Rows that a redone stage took away are noticed; then all are counted again."""
        if self._last and self._grown_only(*self._last):
            self._db.execute(f"INSERT INTO slim {_COLUMNS.format(good=self.good, where=' WHERE rowid > ?')}", self._last[:1])
        else:
            self._db.execute("DROP TABLE IF EXISTS slim")
            self._db.execute(f"CREATE TEMP TABLE slim AS {_COLUMNS.format(good=self.good, where='')}")
        newest = self._db.execute("SELECT rowid, created_at FROM rollouts WHERE rowid = (SELECT max(id) FROM slim)").fetchone()
        self._last = newest

    def _grown_only(self, number: int, created_at: str) -> bool:
        known = self._db.execute("SELECT count(*) FROM slim").fetchone()[0]
        have = self._db.execute("SELECT count(*) FROM rollouts WHERE rowid <= ?", (number,)).fetchone()[0]
        return known == have and self._db.execute("SELECT created_at FROM rollouts WHERE rowid = ?", (number,)).fetchone() == (created_at,)

    def __call__(self, sql: str, args: Sequence[Any] = ()) -> Rows:
        try:
            return self._db.execute(sql, tuple(args)).fetchall()
        except sqlite3.OperationalError as e:
            if "decode" not in str(e):
                raise
            self._db.text_factory = _decoded  # broken UTF-8 is shown as such, it stops nothing; slower, so only from the first one on
            return self._db.execute(sql, tuple(args)).fetchall()

    def stream(self, sql: str, args: Sequence[Any] = ()) -> Iterator[tuple[Any, ...]]:
        """Rows one by one, of `slim` only: its texts are sound."""
        return self._db.execute(sql, tuple(args))

    def close(self) -> None:
        self._db.close()

    def __enter__(self) -> Tally:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ----------------------------------------------------------------------------------- questions

    def counts(self) -> Rows:
        """(iteration, status, accepted 0/1, rollouts, tokens)"""
        return self("SELECT n, status, good, count(*), sum(tokens) FROM slim GROUP BY n, status, good ORDER BY n, status, good")

    def levels(self) -> Rows:
        """(iteration, level, rollouts, accepted)"""
        return self("SELECT n, level, count(*), sum(good) FROM slim WHERE level IS NOT NULL GROUP BY n, level ORDER BY n, level")

    def price(self) -> Rows:
        """(level, kind, rollouts, accepted, tokens) over the run; `strategy, kind` where the ledger holds several strategies (a fork)"""
        several = self("SELECT count(DISTINCT strategy) FROM slim")[0][0] > 1
        kind = "coalesce(strategy, '?') || ', ' || kind" if several else "kind"
        return self(f"SELECT level, {kind} AS what, count(*), sum(good), sum(tokens) FROM slim GROUP BY level, what ORDER BY level, what")

    def price_by_level(self) -> Rows:
        """(level, rollouts, accepted, tokens) over the run"""
        return self("SELECT level, count(*), sum(good), sum(tokens) FROM slim GROUP BY level ORDER BY level")

    def right_of_plain(self, k: int) -> Rows:
        """(iteration, accepted of the first k plain attempts, queries that had them all)"""
        return self(
            "SELECT n, c, count(*) FROM (SELECT n, sum(good) AS c FROM slim WHERE kind = 'plain' AND attempt < ? GROUP BY n, q HAVING count(*) = ?) "
            "GROUP BY n, c ORDER BY n, c",
            (k, k),
        )

    def lengths(self, width: int) -> Rows:
        """(iteration, accepted 0/1, bin, rollouts) of completion lengths in bins of `width` characters"""
        return self(f"SELECT n, good, chars / {int(width)}, count(*) FROM slim GROUP BY 1, 2, 3 ORDER BY 1, 2, 3")

    def mean_lengths(self) -> Rows:
        """(iteration, mean characters of all, of accepted)"""
        return self("SELECT n, avg(chars), avg(CASE WHEN good THEN chars END) FROM slim GROUP BY n ORDER BY n")

    def reference_lengths(self, width: int) -> Rows:
        """(bin, queries); nothing where the ledger holds no references"""
        if "queries" not in self.tables:
            return []
        return self(
            f"SELECT length(rationale) / {int(width)}, count(*) FROM queries WHERE split = 'train' AND rationale <> '' GROUP BY 1 ORDER BY 1"
        )

    def gained(self) -> Rows:
        """(iteration, queries newly covered against the one before, queries no longer covered)"""
        return self("""
            WITH c AS (SELECT DISTINCT n, q FROM slim WHERE good), s AS (SELECT DISTINCT n FROM slim)
            SELECT s.n, (SELECT count(*) FROM c WHERE c.n = s.n AND NOT EXISTS (SELECT 1 FROM c b WHERE b.n = s.n - 1 AND b.q = c.q)),
                        (SELECT count(*) FROM c WHERE c.n = s.n - 1 AND NOT EXISTS (SELECT 1 FROM c b WHERE b.n = s.n AND b.q = c.q))
            FROM s WHERE s.n > (SELECT min(n) FROM s) ORDER BY s.n""")

    def lost(self, limit: int) -> Rows:
        """(query, level, last iteration that covered it) of queries once covered and not in the last iteration, hardest first"""
        return self(
            "SELECT q, max(level), max(CASE WHEN good THEN n END) AS last FROM slim GROUP BY q "
            "HAVING last IS NOT NULL AND last < (SELECT max(n) FROM slim) AND max(n) = (SELECT max(n) FROM slim) ORDER BY 2 DESC, 3 DESC, 1 LIMIT ?",
            (limit,),
        )

    def distinct(self) -> Rows:
        """(iteration, level, accepted, distinct accepted completions per query summed, covered queries)"""
        return self(
            "SELECT n, level, sum(c), sum(d), count(*) FROM (SELECT n, level, q, count(*) AS c, count(DISTINCT text) AS d FROM slim WHERE good "
            "GROUP BY n, level, q) GROUP BY n, level ORDER BY n, level"
        )

    def hints(self) -> Rows:
        """(kind, size, rollouts, accepted, tokens)"""
        return self("SELECT kind, size, count(*), sum(good), sum(tokens) FROM slim GROUP BY kind, size")

    def hint_sizes(self) -> Rows:
        """(kind, iteration, mean size, mean size of accepted, mean over queries of the smallest accepted, guided, share of accepted that was given)"""
        return self(
            "SELECT s.kind, s.n, avg(CAST(size AS REAL)), avg(CASE WHEN good THEN CAST(size AS REAL) END), m.low, count(*), "
            "avg(CASE WHEN good THEN CAST(given AS REAL) / max(given + tokens, 1) END) FROM slim s LEFT JOIN "
            "(SELECT kind, n, avg(low) AS low FROM (SELECT kind, n, q, min(CAST(size AS REAL)) AS low FROM slim WHERE good AND size IS NOT NULL GROUP BY kind, n, q) "
            "GROUP BY kind, n) m ON m.kind = s.kind AND m.n = s.n WHERE s.kind <> 'plain' GROUP BY s.kind, s.n ORDER BY s.kind, s.n"
        )

    def gap(self) -> Rows:
        """(iteration, level, queries with plain and guided attempts, mean plain rate, mean guided rate, sum of squared differences)"""
        return self(
            "SELECT n, level, count(*), avg(p), avg(g), sum((g - p) * (g - p)) FROM (SELECT n, level, q, avg(CASE WHEN kind = 'plain' THEN good END) AS p, "
            "avg(CASE WHEN kind <> 'plain' THEN good END) AS g FROM slim GROUP BY n, level, q) WHERE p IS NOT NULL AND g IS NOT NULL "
            "GROUP BY n, level ORDER BY n, level"
        )

    def curve(self, points: int = 120) -> list[tuple[int, int, int, int]]:
        """(iteration, tokens of the run so far, queries covered in this iteration so far, ever covered so far), in the order of the ledger.

        About `points` per iteration, the last row of each among them.
        """
        found: list[tuple[int, int, int, int]] = []
        # when a query is covered first, in an iteration and in the run, sorted by SQLite: nothing here grows with the queries
        ever = self.stream("SELECT min((n << 40) + id) FROM slim WHERE good AND n IS NOT NULL GROUP BY q ORDER BY 1")
        next_ever = next(ever, None)
        tokens = covered_ever = 0
        for n, size in self("SELECT n, count(*) FROM slim GROUP BY n ORDER BY n"):
            now = self.stream("SELECT min(id) FROM slim WHERE n = ? AND good GROUP BY q ORDER BY 1", (n,))
            next_now, covered, every = next(now, None), 0, max(1, size // points)
            for at, (row, spent) in enumerate(self.stream("SELECT id, tokens FROM slim WHERE n = ? ORDER BY rowid", (n,)), 1):
                tokens += spent or 0
                while next_now and next_now[0] <= row:
                    next_now, covered = next(now, None), covered + 1
                while next_ever and next_ever[0] <= (n << 40) + row:
                    next_ever, covered_ever = next(ever, None), covered_ever + 1
                if at % every == 0 or at == size:
                    found.append((n, tokens, covered, covered_ever))
        return found

    def teacher(self) -> tuple[int, int, int]:
        """(calls, tokens read, tokens written)"""
        if "teacher_calls" not in self.tables:
            return 0, 0, 0
        calls, read, written = self("SELECT count(*), sum(prompt_tokens), sum(generated_tokens) FROM teacher_calls")[0]
        return calls, read or 0, written or 0

    def answers(self, split: str, iteration: int, sampled: bool = False) -> dict[tuple[str, str], tuple[int | None, float]]:
        """(task, query) -> (level, accepted) of the iter_N model: of its greedy attempt 1 or 0, where all are samples (`avg_at_k`) their share."""
        if "evaluations" not in self.tables:
            return {}
        rows = self(
            f"SELECT CAST(task AS TEXT), CAST(query_id AS TEXT), max(level), avg(coalesce({self.good}, 0)) FROM evaluations "
            "WHERE split = ? AND iteration = ? AND (? OR attempt = 0) GROUP BY 1, 2",
            (split, iteration, sampled),
        )
        return {(task, q): (level, good) for task, q, level, good in rows}

    def queries(self) -> int | None:
        """Training queries of the run, where the ledger holds them."""
        found = self("SELECT count(*) FROM queries WHERE split = 'train'")[0][0] if "queries" in self.tables else 0
        return found or None


def _decoded(raw: bytes | None) -> str | None:
    return None if raw is None else raw.decode("utf-8", "replace")


@functools.lru_cache(maxsize=4096)
def _label(raw: bytes | None) -> str | None:
    """Of a column in tables, whose heads are written with | between."""
    return None if raw is None else raw.decode("utf-8", "replace").replace("|", "/")


def _pick(*what: Any) -> int:
    return int.from_bytes(hashlib.blake2b(repr(what).encode(), digest_size=6).digest(), "big")


def _digest(text: bytes) -> int:
    return zlib.crc32(b" ".join(text.split()))
