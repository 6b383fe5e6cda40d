"""No pickle, no shell, no secret in a file, no way out of the run folder: looked for in the source and tried on real files."""

import ast
import json
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import closure
import models
import pytest
import scripted
import yaml
from fake_server import Answer, FakeServer
from test_loop import QUIET

import gsi
from gsi.cli import main
from gsi.config import ConfigError, load_config
from gsi.runfolder.state import read_state, write_state
from gsi.types import GsiError

ROOT = Path(__file__).parent.parent
FORBIDDEN = {
    "pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "commands",
}  # fmt: skip


def calls(path: Path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield node.lineno, "import", [a.name.split(".")[0] for a in node.names], {}
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.lineno, "import", [node.module.split(".")[0]], {}
        elif isinstance(node, ast.Call):
            yield node.lineno, ast.unparse(node.func), node.args, {k.arg: ast.unparse(k.value) for k in node.keywords}


OWN_CHILDREN = {  # speak with processes that they started
    "gsi/engines/process.py",  # over pipes that nobody else holds
    "gsi/engines/cluster.py",  # through Ray, which pickles what its calls carry anyway
}


def test_the_source_has_no_pickle_no_shell_and_no_unsafe_loader():
    found = []
    for path in sorted((ROOT / "gsi").rglob("*.py")):
        for line, name, arguments, named in calls(path):
            bad = (
                (name == "import" and not FORBIDDEN.isdisjoint(arguments) and path.relative_to(ROOT).as_posix() not in OWN_CHILDREN)
                or (name in ("eval", "exec", "os.system", "os.popen", "subprocess.getoutput") and path.name != "program_worker.py")
                or (name.startswith("yaml.") and name not in ("yaml.safe_load", "yaml.safe_dump"))
                or named.get("shell", "False") != "False"
                or named.get("trust_remote_code", "False") != "False"
                or (name == "torch.load" and named.get("weights_only") != "True")
                or (re.search(r"AutoModel\w*\.from_pretrained$", name) and named.get("use_safetensors") != "True")
                or (name.endswith("load") and named.get("allow_pickle", "False") != "False")
            )
            found += [f"{path.relative_to(ROOT)}:{line} {name}"] if bad else []
    assert not found, "\n".join(found)


class Trap:
    """Unpickling it makes a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_weights_in_a_pickle_are_refused_and_never_read(tmp_path):
    from gsi.engines.loading import load_model, pick_device

    folder = models.build(tmp_path / "model")
    for file in Path(folder).glob("*.safetensors*"):
        file.unlink()
    (Path(folder) / "pytorch_model.bin").write_bytes(pickle.dumps({"lm_head.weight": Trap(tmp_path / "sprung")}))
    with pytest.raises(GsiError, match="safetensors"):
        load_model(str(folder), pick_device("cpu"), "float32")
    assert not (tmp_path / "sprung").exists()


def test_secrets_are_in_no_file_even_where_a_server_repeats_them(tmp_path, monkeypatch):
    """A teacher that puts the key it was sent into its errors, and a run that ends with one; and one that goes well."""
    key = "sk-canary-9f31c0ffee"
    for name in ("TEACHER_KEY", "HF_TOKEN", "WANDB_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.setenv(name, key)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")

    def script(body, n):
        if n == 4:
            return Answer(f"bad request of the holder of {key}", status=400)
        return "Think again, step by step."

    with FakeServer(script) as server:
        teacher = {"url": server.url, "model": "fake", "api_key_env": "TEACHER_KEY", "retries": 0, "concurrency": 1}
        config = scripted.config(tmp_path / "run", strategy="interactive", iterations=1, teacher=teacher)
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
        command = [sys.executable, "-m", "gsi", "run", str(tmp_path / "config.yaml"), "--log", "json"]
        env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        ended = [subprocess.run(command, env=env, capture_output=True, check=False) for _ in range(2)]
        assert [e.returncode for e in ended] == [2, 0], ended[1].stderr
        assert any(key in k for k in server.keys), "the key was sent"
    assert b"***" in ended[0].stderr
    files = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert {"ledger.sqlite", "config.yaml", "run.json", "metrics.jsonl", "report.html"} <= {p.name for p in files}
    assert not [p for p in files if key.encode() in p.read_bytes()]
    assert not [e for e in ended if key.encode() in e.stdout + e.stderr]


@pytest.mark.parametrize("where", ["teacher", "engine"])
def test_a_login_in_a_url_is_refused_because_configs_are_stored(tmp_path, where):
    changes = {
        "teacher": {"url": "http://me:hunter2@host/v1", "model": "m"},
        "engine": {"kind": "openai", "url": "https://me:hunter2@host/v1"},
    }
    with pytest.raises(ConfigError, match=rf"{where}.*api_key_env") as e:
        load_config(scripted.config(tmp_path / "run", **{where: changes[where]}))
    assert "hunter2" not in str(e.value)


@pytest.mark.parametrize("name", ["../../victim.txt", "iter_1/../../victim.txt", "/etc/hostname"])
def test_a_run_json_that_names_files_outside_is_refused(tmp_path, capsys, name):
    gsi.run(
        scripted.config(tmp_path / "run", iterations=1, tasks=[{"name": "chain", "args": {"seed": 1, "per_level": 1}}], sample={"k": 1}),
        reporter=QUIET,
    )
    (tmp_path / "victim.txt").write_text("mine")
    state = read_state(tmp_path / "run")
    state["stages"]["iter_1/train"]["files"][name] = {"size": 1, "sha256": "0"}
    write_state(tmp_path / "run", state)  # with a checksum that is right
    assert main(["doctor", str(tmp_path / "run")]) == 2
    assert main(["curate", str(tmp_path / "run"), "--iteration", "1"]) == 2
    assert "no file of this run" in capsys.readouterr().err
    assert (tmp_path / "victim.txt").read_text() == "mine"


def test_an_import_writes_only_into_its_folder(tmp_path, capsys):
    (tmp_path / "samples.jsonl").write_text(json.dumps({"question": "1 + 1?", "answer": "2", "response": "2"}) + "\n")
    assert main(["import", str(tmp_path / "samples.jsonl"), str(tmp_path / "in" / "run"), "--task", "../../out"]) == 2
    assert "unknown task" in capsys.readouterr().err
    assert not list(tmp_path.rglob("out*"))


def test_the_demos_dependencies_are_pinned_with_hashes():
    """requirements-demo.txt (`make hashes`) holds what constraints.txt pins of what gsi needs, and a hash for every one."""
    entries = (ROOT / "requirements-demo.txt").read_text().replace("\\\n", " ").splitlines()
    found = {e.split("==")[0]: e for e in entries if "==" in e}
    assert set(found) == closure.closure()
    for name, entry in found.items():
        assert entry.split()[0] == f"{name}=={closure.pins()[name]}"
        assert re.findall(r"--hash=sha256:[0-9a-f]{64}\b", entry)
