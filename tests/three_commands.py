"""From questions of one's own to a report in three commands, each a process, with a tiny model: `PYTHON tests/three_commands.py FOLDER`.

PYTHON is the one of the environment whose `gsi` is tried; `make package` runs this in the clean environments of the wheel and the sdist.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import yaml
from models import build

QUESTIONS = [{"question": f"Say {i}.", "answer": str(i), "rationale": f"The answer is {i}"} for i in range(12)]


def prepare(folder: Path) -> None:
    """mine.jsonl, config.yaml and a model that learns to answer in its warm start."""
    folder.mkdir(parents=True, exist_ok=True)
    build(folder / "model", context=256)
    (folder / "mine.jsonl").write_text("".join(json.dumps(q) + "\n" for q in QUESTIONS))
    config = {
        "model": "model", "output_dir": "runs/mine", "iterations": 1, "strategy": "state_reset", "tasks": [{"name": "auto", "path": "mine.jsonl"}],
        "warm_start": {"epochs": 40, "learning_rate": 0.003}, "sample": {"k": 2, "wanted": 1, "max_extra": 2, "max_new_tokens": 24},
        "train": {"batch_size": 8, "learning_rate": 0.003}, "evaluate": {"validation": 2},
    }  # fmt: skip
    (folder / "config.yaml").write_text(yaml.safe_dump(config))


def three_commands(folder: Path) -> str:
    """Runs them; returns what the first printed. Raises CalledProcessError where one fails."""
    said = [
        subprocess.run([sys.executable, "-m", "gsi", *words.split()], cwd=folder, check=True, capture_output=True, text=True).stdout
        for words in ("tasks check mine.jsonl", "run config.yaml", "report runs/mine")
    ]
    assert "12 of 12 questions are usable" in said[0], said[0]
    assert (folder / "runs" / "mine" / "report.html").stat().st_size > 10_000
    assert (folder / "runs" / "mine" / "iter_1" / "model" / "model.safetensors").exists()
    return said[1]


if __name__ == "__main__":
    import gsi

    target = Path(sys.argv[1]).resolve()
    prepare(target)
    print(three_commands(target))
    print(f"three commands to a report: done with gsi {gsi.__version__} from {Path(gsi.__file__).parent}")
