"""What a person who installs gsi sees first: versions, completion, a schema for editors, and three commands to a report."""

import json
import subprocess
from pathlib import Path

import pytest
import yaml
from three_commands import prepare, three_commands

import gsi
from gsi.cli import main
from gsi.config import Config

ROOT = Path(__file__).parent.parent


def test_the_schema_knows_every_key_of_the_recipes(capsys):
    assert main(["schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert set(schema["properties"]) == {info.alias or name for name, info in Config.model_fields.items()}
    assert "from" in schema["$defs"]["Train"]["properties"]
    for path in (ROOT / "configs").rglob("*.yaml"):
        assert set(yaml.safe_load(path.read_text())) <= set(schema["properties"])
    assert schema["title"] == "gsi config"
    sample = schema["$defs"]["Sample"]["properties"]  # what an editor shows is the comment beside the key
    assert sample["k"]["description"] == "plain attempts that every query gets"
    said = [d for part in schema["$defs"].values() for d in part.get("properties", {}).values() if "description" in d]
    assert len(said) > 100


def test_env_says_what_a_bug_report_needs(capsys, monkeypatch):
    monkeypatch.setenv("GSI_CACHE", str(Path.home() / "cache"))
    assert main(["env"]) == 0
    said = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())
    assert said["gsi"].startswith(gsi.__version__)
    assert {"python", "torch", "trl", "platform", "cores", "memory", "free disk here", "gpus", "bubblewrap", "variables"} <= set(said)
    assert str(Path.home()) not in "".join(said.values())


def test_gsi_alone_lists_its_commands(capsys):
    assert main([]) == 2
    assert "guided self-improvement" in (out := capsys.readouterr().out).lower()
    assert "run the whole loop" in out


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("gsi exp", "export"),
        ("gsi export --ne", "--negatives"),
        ("gsi tasks --col", "--columns"),
        ("gsi tasks ov", "overlap"),
        ("gsi export --to gr", "grpo"),
        ("gsi --ver", "--version"),
    ],
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


@pytest.mark.docs
def test_from_questions_of_ones_own_to_a_report_in_three_commands(tmp_path, monkeypatch, capsys):
    """Check the data, run, report; `make package` does the same with processes in clean environments."""
    monkeypatch.chdir(tmp_path)
    prepare(tmp_path)

    def call(words: list[str]) -> str:
        assert main(words) == 0
        return capsys.readouterr().out

    three_commands(tmp_path, call)
