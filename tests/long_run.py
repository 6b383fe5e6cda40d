"""Peak memory of a whole run of many queries, and of reading a large file: every number in a process of its own.

    python tests/long_run.py --queries 100000     # the loop with scripted engine and training: sample, curate, train, evaluate, metrics
    python tests/long_run.py --file 500           # MB of JSONL whose rows carry more than is used of them

Prints one JSON line each: peak_mib is what the whole process held at most, engine (a function of a few lines) and Python included.
"""

import argparse
import json
import resource
import sys
import tempfile
import time
from pathlib import Path

import yaml

HERE = Path(__file__)
WORDS = "Natalia has a basket of apples from the market and gives some of them to a neighbour every day of the week. " * 2


def respond(request, model):
    """The rest of the reference; every third query needs help, and every seventh response is wrong."""
    number = int(request.query.id)
    if (number % 3 == 0 and not request.given.text) or request.seed % 7 == 0:
        return "I think that the answer is 12345."
    return request.query.rationale[len(request.given.text) :]


def train(job):
    Path(job.output).mkdir(parents=True)
    return {"loss": 0.0}


def write_rows(path: Path, queries: int, unused: int = 0) -> None:
    """GSM8K-like rows: a question of 220 characters, a solution of 8 lines, and `unused` characters that no column of ours is for."""
    with path.open("w", encoding="utf-8") as f:
        for i in range(queries):
            steps = "".join(f"On day {d} there are {i} + {d} = {i + d} apples in the basket.\n" for d in range(1, 8))
            f.write(
                json.dumps(
                    {
                        "id": str(i),
                        "question": f"{i}: {WORDS}",
                        "answer": str(i + 7),
                        "rationale": f"{steps}The answer is {i + 7}.",
                        "html": "x" * unused,
                    }
                )
                + "\n"
            )


def run(folder: Path, queries: int) -> dict:
    import gsi
    from gsi.progress import Reporter

    write_rows(folder / "data.jsonl", queries)
    config = {
        "model": "scripted-base", "output_dir": str(folder / "run"), "iterations": 1, "strategy": "state_reset", "prompt": {"template": "{question} "},
        "tasks": [{"name": "gsm8k", "path": str(folder / "data.jsonl")}], "sample": {"k": 1, "wanted": 1, "max_extra": 1},
        "engine": {"kind": "scripted", "function": f"{HERE}:respond"}, "train": {"kind": "scripted", "function": f"{HERE}:train"},
        "evaluate": {"validation": min(1000, queries // 10)},
    }  # fmt: skip
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    result = gsi.run(str(folder / "config.yaml"), reporter=Reporter("lines"))
    line = result.metrics[-1]
    return {
        "rollouts": line["sample/rollouts"],
        "rows": line["train/rows"],
        "ledger_mib": (folder / "run" / "ledger.sqlite").stat().st_size >> 20,
    }


def read(folder: Path, megabytes: int) -> dict:
    from gsi import tasks
    from gsi.config.data import Task

    rows = 2000
    write_rows(folder / "data.jsonl", rows, unused=(megabytes << 20) // rows)
    loaded = tasks.load(Task(name="gsm8k", path=str(folder / "data.jsonl")))
    return {"file_mib": (folder / "data.jsonl").stat().st_size >> 20, "rows": len(loaded.queries)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--queries", type=int)
    parser.add_argument("--file", type=int, metavar="MB")
    args = parser.parse_args()
    began, cpu = time.monotonic(), time.process_time()
    with tempfile.TemporaryDirectory() as scratch:
        found = run(Path(scratch), args.queries) | {"queries": args.queries} if args.queries else read(Path(scratch), args.file)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    print(
        json.dumps(
            found | {"peak_mib": round(peak), "seconds": round(time.monotonic() - began), "cpu_seconds": round(time.process_time() - cpu)}
        )
    )
