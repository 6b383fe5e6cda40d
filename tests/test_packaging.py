"""What a person who installs gsi sees first: versions, completion, a schema for editors, and three commands to a report."""

import json
import subprocess
from pathlib import Path

import pytest
import yaml
from models import build

import gsi
from gsi.cli import main
from gsi.config import Config, load_config

ROOT = Path(__file__).parent.parent


def test_the_schema_knows_every_key_of_the_recipes(capsys):
    assert main(["schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert set(schema["properties"]) == {info.alias or name for name, info in Config.model_fields.items()}
    assert "from" in schema["$defs"]["Train"]["properties"]
    for path in (ROOT / "configs").rglob("*.yaml"):
        assert set(yaml.safe_load(path.read_text())) <= set(schema["properties"])


@pytest.mark.parametrize(
    ("typed", "expected"), [("gsi exp", "export"), ("gsi export --ne", "--negatives"), ("gsi tasks --col", "--columns")]
)
def test_a_shell_completes(typed, expected, capsys):
    assert main(["completion", "bash"]) == 0
    words = typed.split()
    script = capsys.readouterr().out + f'\nCOMP_WORDS=({typed}); COMP_CWORD={len(words) - 1}; _gsi; echo "${{COMPREPLY[@]}}"'
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [expected]


def test_the_citation_names_this_version():
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == gsi.__version__


def test_workflows_test_the_pythons_that_are_supported():
    found = yaml.safe_load((ROOT / ".github" / "workflows" / "test.yml").read_text())
    assert found["jobs"]["test"]["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13"]


@pytest.mark.slow
def test_from_questions_of_ones_own_to_a_report_in_three_commands(tmp_path, capsys):
    """After `pip install`: check the data, run, report."""
    model = build(tmp_path / "model", context=256)
    rows = [{"question": f"Say {i}.", "answer": str(i), "rationale": f"The answer is {i}"} for i in range(12)]
    data = tmp_path / "mine.jsonl"
    data.write_text("".join(json.dumps(r) + "\n" for r in rows))
    config = tmp_path / "config.yaml"
    config.write_text(
        yaml.safe_dump(
            {
                "model": str(model),
                "output_dir": str(tmp_path / "run"),
                "iterations": 1,
                "strategy": "state_reset",
                "tasks": [{"name": "auto", "path": str(data)}],
                "warm_start": {"epochs": 40, "learning_rate": 0.003},
                "sample": {"k": 2, "wanted": 1, "max_extra": 2, "max_new_tokens": 24},
                "train": {"batch_size": 8, "learning_rate": 0.003},
                "evaluate": {"validation": 2},
            }
        )
    )
    assert load_config(config).tasks[0].name == "auto"
    assert main(["tasks", "check", str(data)]) == 0
    assert "12 of 12 questions are usable" in capsys.readouterr().out
    assert main(["run", str(config), "--log", "quiet"]) == 0
    assert main(["report", str(tmp_path / "run")]) == 0
    assert (tmp_path / "run" / "report.html").stat().st_size > 10_000
    assert (tmp_path / "run" / "iter_1" / "model" / "model.safetensors").exists()
