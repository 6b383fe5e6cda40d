"""Kills a scripted run with SIGKILL at seeded moments until it is done, and compares it with one that nobody killed.

    python tests/torture.py --kills 100 --seed 0

Half of the kills strike just before a chosen file operation in the run folder (open, rename, remove, make a folder: so also in the middle of
a stage's writing, of a training and of the report), half after a chosen time, which falls into ledger commits as often as these take. The run is
started again with the same command each time; when one ends, it is compared and the next begins, until all kills are spent.
"""

import argparse
import collections
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import scripted
import yaml

from gsi.cli import main as gsi_main

STRATEGIES = ("state_reset", "brute_force")
WATCHED = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree", "sqlite3.connect")


def child(config: Path, run: Path, events: int | None, seconds: float | None, say: int) -> None:
    """Runs `gsi run` in this (forked) process; dies at the given event or time. Tells `say` what it was doing."""
    count = 0

    def die(what: str) -> None:
        os.write(say, f"{what}\n".encode())
        os.kill(os.getpid(), signal.SIGKILL)

    def watch(event: str, args: tuple) -> None:
        nonlocal count
        if event in WATCHED and args and str(run) in str(args[0]):
            count += 1
            if count == events:
                die(f"{event} {os.path.relpath(str(args[0]).removeprefix('file://').split('?')[0], run)}")

    sys.addaudithook(watch)
    if seconds is not None:
        threading.Thread(target=lambda: (time.sleep(seconds), die("time")), daemon=True).start()
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    code = gsi_main(["run", str(config), "--log", "quiet"])
    os.write(say, f"done {count}\n".encode())
    os._exit(code)


def start(config: Path, run: Path, events: int | None = None, seconds: float | None = None) -> tuple[int, str]:
    """(exit code, -9 when killed; what it said last)."""
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            child(config, run, events, seconds, theirs)
        finally:
            os._exit(70)
    os.close(theirs)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with open(ours, "rb") as f:
        return code, f.read().decode().strip()


def result(run: Path) -> dict:
    """All of a run that does not depend on when it ran."""
    from test_loop import dump, train_rows

    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    timed = ("time/", "engine/", "train/seconds")
    return {
        "rollouts": dump(run),
        "evaluations": dump(run, "evaluations"),
        "train": {n: train_rows(run, n) for n in (1, 2)},
        "evals": {n: json.loads((run / f"iter_{n}" / "eval.json").read_text()) for n in (0, 1, 2)},
        "metrics": [{k: v for k, v in line.items() if not k.startswith(timed)} for line in lines],
        "files": sorted(str(p.relative_to(run)) for p in run.rglob("*") if p.is_file() and p.suffix not in (".sqlite-wal", ".sqlite-shm")),
    }


def torture(folder: Path, kills: int, seed: int, say=print) -> collections.Counter:
    """Raises AssertionError where anything differs. Returns how many kills fell where."""
    rng, where = random.Random(seed), collections.Counter()
    calm, config = {}, {}
    for strategy in STRATEGIES:
        evaluate = {"validation": 0.2, "tasks": [{"name": "chain", "args": {"seed": 77, "per_level": 1}}]}
        for name in ("calm", "killed"):
            path = folder / f"{strategy}-{name}.yaml"
            path.write_text(yaml.safe_dump(scripted.config(folder / strategy / name / "run", strategy=strategy, evaluate=evaluate)))
            config[strategy, name] = path
        started = time.monotonic()
        code, said = start(config[strategy, "calm"], folder / strategy / "calm" / "run")
        assert code == 0, (code, said)
        calm[strategy] = result(folder / strategy / "calm" / "run"), int(said.split()[1]), time.monotonic() - started
    done = round_ = runs = 0
    while done < kills:
        strategy = STRATEGIES[round_ % len(STRATEGIES)]
        round_ += 1
        expected, events, seconds = calm[strategy]
        run, code, seen = folder / strategy / "killed" / "run", -9, 0
        while code != 0:
            if done >= kills:
                how = {}
            elif rng.random() < 0.5:
                how = {"events": rng.randint(1, max(2, events // 6))}
            else:
                how = {"seconds": rng.uniform(0.0, seconds / 6)}
            code, said = start(config[strategy, "killed"], run, **how)
            assert code in (0, -signal.SIGKILL), f"exit code {code} after {done} kills (seed {seed}): {said}"
            done += code != 0
            if code:
                where[said] += 1
            if (run / "ledger.sqlite").exists() and (run / "run.json").exists():
                rows = committed(run)
                assert rows >= seen, "a committed row was lost"
                seen = rows
        runs += 1
        found = result(run)
        for key in expected:
            assert found[key] == expected[key], f"{strategy}: {key} differ after {done} kills (seed {seed})"
        say(f"{strategy}: {done} kills so far, {len(found['rollouts'])} rollouts, {len(found['evaluations'])} evaluations: equal")
        run.rename(run.with_name(f"run-{round_}"))
    say(f"{done} kills in {runs} runs, seed {seed}; every run equals the undisturbed one, no other file is left")
    return where


def committed(run: Path) -> int:
    import sqlite3

    db = sqlite3.connect(f"{(run / 'ledger.sqlite').as_uri()}?mode=ro", uri=True)
    try:
        if not db.execute("select count(*) from sqlite_master where name = 'evaluations'").fetchone()[0]:
            return 0
        return sum(db.execute(f"select count(*) from {t}").fetchone()[0] for t in ("rollouts", "evaluations"))
    finally:
        db.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        fell = torture(Path(scratch), args.kills, args.seed)
    for what, n in fell.most_common():
        print(f"  {n:3d} x {what}")
    print(f"{time.monotonic() - began:.0f} s")
