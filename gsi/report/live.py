"""Where a run is at this moment, from its files and its ledger alone: stage, rates, time left, coverage by level, newest rollouts."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path
from typing import Any

from gsi.report.parts import clean, cut
from gsi.report.read import STAGES, RunView, finite, whole
from gsi.report.tally import Tally

RECENT = 60.0  # seconds over which rates are taken


def state(run: RunView) -> str:
    """running | stopped | finished"""
    if at_work(run.path):
        return "running"
    order, left = run.stages()
    return "finished" if order and not left else "stopped"


def at_work(path: Path) -> bool:
    """Whether a process holds the run's lock. Read from the system's list of locks (Linux); nothing is locked for the question."""
    try:
        inode = os.stat(path / "run.lock").st_ino
        with open("/proc/locks", encoding="ascii") as f:
            return any(line.split()[1] == "FLOCK" and line.split()[5].endswith(f":{inode}") for line in f if "->" not in line)
    except OSError:
        return False


def version(path: Path) -> str:
    """Changes whenever a stage has finished."""
    return "-".join(str(p.stat().st_mtime_ns) if p.exists() else "0" for p in (path / "metrics.jsonl", path / "run.json"))


def snapshot(run: RunView, tally: Tally | None) -> dict[str, Any]:
    """What the live panel shows. Times in seconds; None where there is nothing to tell from."""
    order, left = run.stages()
    found: dict[str, Any] = {
        "state": state(run), "stage": left[0] if left else None, "done": len(order) - len(left), "stages": len(order), "version": version(run.path),
        "rollouts": 0, "accepted": 0, "tokens": 0, "rollouts_per_s": 0.0, "tokens_per_s": 0.0, "iteration": None, "asked": None, "seen": 0, "covered": 0,
        "levels": [], "left_stage": None, "left_run": None, "latest": [],
    }  # fmt: skip
    if tally is None:
        return found
    n = tally("SELECT max(n) FROM slim")[0][0]
    if n is None:
        return found
    at = left[0] if left else ""
    if at.endswith("/sample") and whole(at[5:-7]):
        n = int(at[5:-7])
    rollouts, accepted, tokens = tally("SELECT count(*), sum(good), sum(tokens) FROM slim WHERE n = ?", (n,))[0]
    seen, covered = tally("SELECT count(*), sum(g) FROM (SELECT max(good) AS g FROM slim WHERE n = ? GROUP BY q)", (n,))[0]
    asked = tally.queries() or next((line["sample/queries"] for line in reversed(run.metrics) if finite(line.get("sample/queries"))), None)
    found |= {
        "iteration": n,
        "rollouts": rollouts,
        "accepted": accepted or 0,
        "tokens": tokens or 0,
        "asked": asked,
        "seen": seen,
        "covered": covered or 0,
    }
    found["levels"] = _levels(tally, n)
    found["latest"] = [
        {"query": clean(cut(q, 80)), "level": level, "guidance": clean(cut(g, 40)), "status": clean(cut(s, 40)), "accepted": int(bool(good)), "response": clean(cut(text, 300))}
        for q, level, g, s, good, text in tally(
            f"SELECT query_id, level, coalesce(guidance, 'plain'), status, {tally.good}, substr(response, length(given) + 1, 300) FROM rollouts ORDER BY rowid DESC LIMIT 8"
        )
    ]  # fmt: skip
    if found["state"] == "running":
        found |= _rates(tally)
        if at.endswith("/sample"):
            found["left_stage"] = _left(tally, n, seen, asked)
        found["left_run"] = _left_run(run, left, found["left_stage"])
    return found


def _levels(tally: Tally, n: int) -> list[dict[str, int]]:
    """Coverage so far by level, of the questions asked so far where their whole number is not recorded."""
    now = tally(
        "SELECT level, count(*), sum(g) FROM (SELECT level, max(good) AS g FROM slim WHERE n = ? AND level IS NOT NULL GROUP BY level, q) GROUP BY level",
        (n,),
    )
    of: dict[int, int] = (
        dict(tally("SELECT level, count(*) FROM queries WHERE split = 'train' AND level IS NOT NULL GROUP BY level"))
        if "queries" in tally.tables
        else {}
    )
    have = {level: (seen, covered) for level, seen, covered in now}
    return [
        {"level": x, "asked": of.get(x) or have[x][0], "seen": have.get(x, (0, 0))[0], "covered": have.get(x, (0, 0))[1] or 0}
        for x in sorted({*of, *have})
    ]


def _rates(tally: Tally) -> dict[str, float]:
    rows = tally("SELECT created_at, generated_tokens FROM rollouts ORDER BY rowid DESC LIMIT 4000")
    times = [(t, tokens or 0) for at, tokens in rows if (t := _seconds(at)) is not None]
    now = datetime.now().timestamp()
    recent = [(t, tokens) for t, tokens in times if now - t < RECENT]
    if len(recent) < 2:
        return {"rollouts_per_s": 0.0, "tokens_per_s": 0.0}
    span = max(now - min(t for t, _ in recent), 1.0)
    return {"rollouts_per_s": len(recent) / span, "tokens_per_s": sum(tokens for _, tokens in recent) / span}


def _left(tally: Tally, n: int, seen: int, asked: int | None) -> float | None:
    """Of a sampling stage. Questions are finished in order, so those seen are nearly those done; the last few are still open."""
    first = tally("SELECT created_at FROM rollouts WHERE rowid = (SELECT min(id) FROM slim WHERE n = ?)", (n,))
    started = _seconds(first[0][0]) if first else None
    if not asked or not seen or started is None:
        return None
    share = min(1.0, seen / asked)
    return (datetime.now().timestamp() - started) * (1 - share) / share


def _left_run(run: RunView, left: list[str], stage: float | None) -> float | None:
    """Stages that are left, each as long as it was on average before; None before every kind of stage has been seen once."""
    means = {}
    for s in STAGES:
        times = [line[f"time/{s}"] for line in run.metrics if line["iteration"] > 0 and finite(line.get(f"time/{s}")) is not None]
        if times:
            means[s] = sum(times) / len(times)
    kinds = [at.split("/")[-1] for at in left if "/" in at]
    if any(kind not in means for kind in kinds[1:]) or (kinds and stage is None and kinds[0] not in means):
        return None
    return (stage if stage is not None else means.get(kinds[0], 0.0) if kinds else 0.0) + sum(means[kind] for kind in kinds[1:])


def _seconds(at: Any) -> float | None:
    try:
        return datetime.fromisoformat(str(at)).timestamp()
    except ValueError:
        return None
