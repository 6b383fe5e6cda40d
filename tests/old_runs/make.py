"""Makes the fixture of this version: `cd tests && python old_runs/make.py NAME` writes old_runs/NAME.tar.gz (before a release: NAME = its number).

A run of one iteration in the scripted world, without what a machine would show of itself. `test_upgrade.py` opens all of them.
"""

import json
import os
import sys
import tarfile
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # the engine is the function scripted:respond

import yaml

import gsi
from gsi.progress import Reporter


def main(target: Path) -> None:
    rows = [{"id": f"q{i}", "question": f"{i} plus 3 ?", "answer": str(i + 3), "rationale": f"{i} + 3 = {i + 3} .\nThe answer is {i + 3}", "level": 1 + i % 5} for i in range(12)]  # fmt: skip
    Path("data.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    config = {
        "model": "scripted-base", "output_dir": "run", "iterations": 1, "tasks": [{"name": "gsm8k", "path": "data.jsonl"}],
        "prompt": {"template": "{question} "}, "sample": {"k": 2, "wanted": 1}, "strategy": "state_reset", "keep_models": "all",
        "engine": {"kind": "scripted", "function": "scripted:respond"}, "train": {"kind": "scripted", "function": "scripted:train"},
        "evaluate": {"validation": 2},
    }  # fmt: skip
    Path("config.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    gsi.run(config, reporter=Reporter("quiet"))
    Path("run/run.lock").unlink()
    with tarfile.open(target, "w:gz") as tar:
        for name in ("config.yaml", "data.jsonl", "run"):
            tar.add(name, filter=lambda info: info.replace(uid=0, gid=0, uname="", gname=""))


if __name__ == "__main__":
    target = Path(__file__).resolve().parent / f"{sys.argv[1]}.tar.gz"
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)
        main(target)
