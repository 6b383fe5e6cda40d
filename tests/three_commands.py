"""From questions of one's own to a report in three commands, with a tiny model: `PYTHON tests/three_commands.py FOLDER`.

PYTHON is the one of the environment whose `gsi` is tried; `make package` runs this in the clean environments of the wheel and the sdist, every command a process.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
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


def three_commands(folder: Path, gsi: Callable[[list[str]], str]) -> str:
    """Runs them; `gsi` runs one and returns what it printed. Returns what the run printed."""
    said = [gsi(words.split()) for words in ("tasks check mine.jsonl", "run config.yaml", "report runs/mine")]
    assert "12 of 12 questions are usable" in said[0], said[0]
    assert (folder / "runs" / "mine" / "report.html").stat().st_size > 10_000
    assert (folder / "runs" / "mine" / "iter_1" / "model" / "model.safetensors").exists()
    return said[1]


if __name__ == "__main__":
    import gsi

    target = Path(sys.argv[1]).resolve()
    prepare(target)

    def process(words: list[str]) -> str:
        return subprocess.run([sys.executable, "-m", "gsi", *words], cwd=target, check=True, stdout=subprocess.PIPE, text=True).stdout

    print(three_commands(target, process))
    print(f"three commands to a report: done with gsi {gsi.__version__} from {Path(gsi.__file__).parent}")
