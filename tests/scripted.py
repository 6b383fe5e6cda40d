"""A made-up model for tests: a skill number that grows with the levels it is trained on. Real files, real loop, no torch."""

import json
import math
import os
import random
import shutil
import time
from pathlib import Path

import pyarrow.parquet as pq

from gsi.types import Request, TrainJob


def respond(request: Request, model: str) -> str:
    """The reference's remaining text with a probability that falls with level and rises with skill and given text; else a wrong answer."""
    if delay := float(os.environ.get("SCRIPTED_DELAY", "0")):
        time.sleep(delay)
    path = Path(model) / "skill.json"
    skill = json.loads(path.read_text())["skill"] if path.exists() else 4.0
    rng = random.Random(request.seed)
    rationale, given = request.query.rationale, request.given.text
    help_ = 2.5 * len(given) / len(rationale) + (2.0 if request.guidance and not given else 0.0)
    if request.sampling.temperature == 0:
        solved = skill > request.query.level
    else:
        solved = rng.random() < 1 / (1 + math.exp(request.query.level - skill - 2 * help_))
    rest = rationale[len(given) :]
    if solved:
        return rest
    words = rest.split(" ")
    words[-1] = str((int("".join(c for c in words[-1] if c.isdigit())) + 1 + rng.randrange(21)) % 23)
    return " ".join(words)


def train(job: TrainJob) -> dict[str, float]:
    """Skill = the base's plus what the hardest tenth of the training rows is worth (rows are longer the harder they are)."""
    rows = pq.read_table(job.data).to_pylist()
    lengths = sorted(len(r["completion"]) for r in rows)
    base = Path(job.model) / "skill.json"
    skill = json.loads(base.read_text())["skill"] if base.exists() else 4.0
    Path(job.output).mkdir(parents=True)
    gain = lengths[int(len(lengths) * 0.9)] / 60
    (Path(job.output) / "skill.json").write_text(json.dumps({"skill": min(12, max(skill, 3.5 + gain)), "rows": len(rows)}))
    if delay := float(os.environ.get("SCRIPTED_DELAY", "0")):
        time.sleep(20 * delay)
    return {"loss": 1.0 / (1 + len(rows)), "steps": len(rows) / 16, "tokens": float(sum(sum(r["loss_mask"]) for r in rows))}


def lucky(request: Request, model: str) -> str:
    """The reference, in every second question without its first step: a right answer, not right steps."""
    rest = request.query.rationale
    return rest.partition(" ; ")[2] if int(request.query.id[-1]) % 2 and " ; " in rest else rest


def tell(request: Request, model: str) -> str:
    """The right answer three times of four, whatever the task; greedily always."""
    right = request.sampling.temperature == 0 or random.Random(request.seed).random() < 0.75
    return f"It is said that the answer is {request.query.answer if right else 777}"


def anything(response: str, query) -> bool:
    """A checker that finds every answer right."""
    return True


def copy_model(job: TrainJob) -> None:
    """A training that changes nothing."""
    shutil.copytree(job.model, job.output)


def make_folder(job: TrainJob) -> None:
    """A training that leaves a folder behind, and nothing else."""
    Path(job.output).mkdir(parents=True)


HERE = Path(__file__)


def overlapping(folder: Path, **changes):
    """Config of a run on twelve questions, whose test set of six has one of them in other letters and spaces."""
    rows = [{"id": f"t{i}", "question": f"What is {i} + {i}?", "answer": str(2 * i)} for i in range(12)]
    fresh = [{"id": f"u{i}", "question": f"And {i} + 1?", "answer": str(i + 1)} for i in range(5)]
    copied = [{**rows[3], "id": "seen", "question": "what is 3+3 ?"}]
    train, test = folder / "a.jsonl", folder / "b.jsonl"
    for path, found in ((train, rows), (test, fresh + copied)):
        path.write_text("".join(json.dumps(r) + "\n" for r in found))
    return config(
        folder / "run",
        tasks=[{"name": "gsm8k", "path": str(train)}],
        engine={"kind": "scripted", "function": f"{HERE}:tell"},
        evaluate={"validation": 2, "tasks": [{"name": "gsm8k", "path": str(test)}]},
        **changes,
    )


def config(output: Path, **changes):
    """A config of the scripted world: chain, two iterations."""
    base = {
        "model": "scripted-base",
        "output_dir": str(output),
        "iterations": 2,
        "tasks": [{"name": "chain", "args": {"seed": 1, "per_level": 4}}],
        "prompt": {"template": "{question} "},
        "sample": {"k": 4, "wanted": 2},
        "engine": {"kind": "scripted", "function": f"{HERE}:respond"},
        "train": {"kind": "scripted", "function": f"{HERE}:train"},
        "evaluate": {"validation": 0.2},
    }
    return base | changes
