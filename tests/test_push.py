"""What `gsi push` writes and uploads: the exact files, and a local stand-in for the hub that takes them."""

import base64
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import scripted
import yaml

import gsi
from gsi.cli import main
from gsi.progress import Reporter

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("push")
    config = scripted.overlapping(folder, model="some/base")
    return gsi.run(config, reporter=Reporter("quiet")).path


def test_the_files_that_would_be_uploaded(run, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["push", str(run), "--to", str(out)]) == 0
    assert sorted(p.name for p in (out / "model").iterdir()) == ["README.md", "gsi_config.yaml", "skill.json"]
    assert pq.read_table(out / "train" / "train.parquet").equals(pq.read_table(run / "iter_2" / "train.parquet"))
    ledger = pq.read_table(out / "ledger" / "rollouts.parquet").to_pylist()
    assert len(ledger) == sum(json.loads(line).get("sample/rollouts", 0) for line in (run / "metrics.jsonl").read_text().splitlines())
    assert {"query_id", "response", "response_ids", "status", "seed"} <= ledger[0].keys()
    assert len(pq.read_table(out / "ledger" / "queries.parquet")) == 12 + 5
    card = (out / "model" / "README.md").read_text()
    head = yaml.safe_load(card.split("---")[1])
    assert (head["base_model"], head["library_name"]) == ("some/base", "transformers")
    result = json.loads((run / "iter_2" / "eval.json").read_text())["test"]["gsm8k"]
    low, high = result["interval"]
    assert (
        f"| gsm8k | test | iteration 2 | {result['pass@1']:.1%} | {low:.1%} to {high:.1%} | 5 (1 left out: also training questions) |"
        in card
    )
    assert "gsi run gsi_config.yaml" in card
    assert "tokens sampled" in card
    for part in ("train", "ledger"):
        head = yaml.safe_load((out / part / "README.md").read_text().split("---")[1])
        assert all((out / part / c["data_files"]).exists() for c in head["configs"])
    assert main(["push", str(run), "--to", str(out)]) == 2
    assert main(["push", str(run), "--to", str(tmp_path / "x"), "--iteration", "7"]) == 2
    assert "no model of iteration 7" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("strategy", "iteration", "whose"),
    [
        ("vanilla", "1", "its own verified solutions to"),
        ("vanilla", "0", "reference solutions to"),
        ("sft_refs_all", "1", "reference solutions to"),
        ("sft_refs_hard", "1", "its own verified solutions and reference solutions to"),
    ],
)
def test_cards_say_whose_solutions_were_trained_on(tmp_path, strategy, iteration, whose):
    run = gsi.run(
        scripted.config(tmp_path / "run", strategy=strategy, iterations=1, warm_start={}, keep_models="all"), reporter=Reporter("quiet")
    ).path
    assert main(["push", str(run), "--to", str(tmp_path / "out"), "--iteration", iteration]) == 0
    assert f"it was trained on\n{whose} chain" in (tmp_path / "out" / "model" / "README.md").read_text()
    assert f"The rows are {whose} chain" in (tmp_path / "out" / "train" / "README.md").read_text()


def test_a_run_that_has_trained_nothing_has_nothing_to_push(tmp_path, capsys):
    samples = tmp_path / "s.jsonl"
    samples.write_text(json.dumps({"question": "1+1?", "answer": "2", "response": "The answer is 2"}) + "\n")
    run, out = tmp_path / "run", tmp_path / "out"
    assert main(["import", str(samples), str(run), "--task", "gsm8k"]) == 0
    for options in ([], ["--iteration", "1"]):
        assert main(["push", str(run), "--to", str(out), *options]) == 2
        said = capsys.readouterr().err
        assert (
            f"{run}: nothing was trained yet, so there is no model to push; train one first, with `gsi run {run / 'config.yaml'}`" in said
        )
    assert not out.exists()


def forgets(request, model):
    """Hard questions are solved by the models before iter_2 only; greedily all by all."""
    gone = request.sampling.temperature and request.query.level > 2 and request.iteration >= 2
    return f"The answer is {777 if gone else request.query.answer}"


def forgets_and_began_weak(request, model):
    return "The answer is 777" if not request.iteration and not request.sampling.temperature else forgets(request, model)


def keep_data(job):
    """A training whose model says what it was trained on."""
    Path(job.output).mkdir(parents=True)
    (Path(job.output) / "data.txt").write_text(Path(job.data).parent.name)


def rolled_back(folder: Path, function: str) -> Path:
    """A run of three iterations, the last of which was rolled back."""
    rows = [{"question": f"What is {i} + 1?", "answer": str(i + 1), "level": 1 + i % 4} for i in range(200)]
    (folder / "d.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    config = scripted.config(
        folder / "run", iterations=3, tasks=[{"name": "gsm8k", "path": str(folder / "d.jsonl"), "hard_levels": [3, 4]}], keep_models="all", monitor={"on_alarm": "rollback"},
        engine={"kind": "scripted", "function": f"{__file__}:{function}"}, train={"kind": "scripted", "function": f"{__file__}:keep_data"}, sample={"k": 2, "wanted": 1}, evaluate={"validation": 20},
    )  # fmt: skip
    return gsi.run(config, reporter=Reporter("quiet")).path


@pytest.mark.parametrize("options", [[], ["--iteration", "3"]])
def test_a_rolled_back_iteration_goes_with_what_its_model_was_trained_on(tmp_path, options):
    run, out = rolled_back(tmp_path, "forgets_and_began_weak"), tmp_path / "out"
    assert json.loads((run / "run.json").read_text())["models"]["3"] == "iter_1/model"
    assert main(["push", str(run), "--to", str(out), *options]) == 0
    assert (out / "model" / "data.txt").read_text() == "iter_1"
    for name in ("train", "dropped"):
        assert (out / "train" / f"{name}.parquet").read_bytes() == (run / "iter_1" / f"{name}.parquet").read_bytes()
    model, train = ((out / part / "README.md").read_text() for part in ("model", "train"))
    assert "after 1 of 3 iterations" in model
    assert "# What iteration 1 of run was trained on" in train
    for card in (model, train):
        assert "spoke against training iteration 3, so its model is that of iteration 1 again" in card
    for name, said in (("1", "after 1 of 3 iterations"), ("2", "after 2 of 3 iterations")):
        assert main(["push", str(run), "--to", str(tmp_path / name), "--iteration", name]) == 0
        card = (tmp_path / name / "model" / "README.md").read_text()
        assert said in card
        assert "Rolled back" not in card


def test_a_run_that_went_back_to_its_base_pushes_no_other_model_unasked(tmp_path, capsys):
    run, out = rolled_back(tmp_path, "forgets"), tmp_path / "out"
    assert json.loads((run / "run.json").read_text())["models"]["3"] == "scripted-base"
    for options in ([], ["--iteration", "3"]):
        assert main(["push", str(run), "--to", str(out), *options]) == 2
        said = capsys.readouterr().err
        assert f"{run}: iteration 3 was rolled back to the model that the run began with (scripted-base)" in said
        assert "name another with --iteration: kept are 1, 2" in said
        assert not out.exists()
    assert main(["push", str(run), "--to", str(out), "--iteration", "2"]) == 0
    assert (out / "model" / "data.txt").read_text() == "iter_2"


@pytest.fixture
def hub():
    """Takes repositories and commits as the hub's API does, every file inline; `files` holds what arrived."""
    files: dict[str, bytes] = {}
    created: list[dict] = []

    class Hub(BaseHTTPRequestHandler):
        def say(self, status: int, body: object = None) -> None:
            data = json.dumps(body or {}).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        def do_GET(self):
            self.say(200, {"sha": "0" * 40, "siblings": [], "id": "me/run", "name": "me"})

        do_HEAD = do_GET

        def do_POST(self):
            length = self.headers.get("Content-Length")
            raw = self.rfile.read(int(length)) if length else self.chunks()
            if self.headers.get("Authorization") != "Bearer hf_right":
                return self.say(401, {"error": "Invalid credentials"})
            if self.path.endswith("/repos/create"):
                body = json.loads(raw)
                created.append(body)
                kind = "datasets/" if body.get("type") == "dataset" else ""
                return self.say(200, {"url": f"http://{self.headers['Host']}/{kind}me/{body['name']}", "name": body["name"]})
            if "/preupload/" in self.path:
                return self.say(
                    200, {"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in json.loads(raw)["files"]]}
                )
            if "/commit/" in self.path:
                repo = self.path.split("/commit/")[0].removeprefix("/api/")
                for line in raw.splitlines():
                    entry = json.loads(line)
                    if entry["key"] == "file":
                        files[f"{repo}/{entry['value']['path']}"] = base64.b64decode(entry["value"]["content"])
                return self.say(
                    200,
                    {
                        "commitUrl": f"http://{self.headers['Host']}/me/run/commit/1",
                        "commitOid": "1" * 40,
                        "success": True,
                        "hookOutput": "",
                    },
                )
            return self.say(200, {"errors": [], "warnings": []})

        def chunks(self) -> bytes:
            found = b""
            while size := int(self.rfile.readline().strip() or b"0", 16):
                found += self.rfile.read(size)
                self.rfile.readline()
            return found

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", files, created
    server.shutdown()


def push(run: Path, endpoint: str, token: str) -> subprocess.CompletedProcess:
    env = {
        **os.environ,
        "HF_HUB_OFFLINE": "0",
        "HF_ENDPOINT": endpoint,
        "HF_TOKEN": token,
        "NO_PROXY": "127.0.0.1",
        "HF_HUB_DISABLE_XET": "1",
    }
    command = [sys.executable, "-m", "gsi", "push", str(run), "--repo", "me/run"]
    return subprocess.run(command, env=env | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, cwd=ROOT)


def test_everything_arrives_at_a_hub(run, hub, tmp_path):
    endpoint, files, created = hub
    done = push(run, endpoint, "hf_right")
    assert done.returncode == 0, done.stderr
    assert [(c["name"], c.get("type", "model"), c["visibility"]) for c in created] == [
        ("run", "model", "private"),
        ("run-train", "dataset", "private"),
        ("run-ledger", "dataset", "private"),
    ]
    assert main(["push", str(run), "--to", str(tmp_path / "out")]) == 0
    names = {"model": "models/me/run", "train": "datasets/me/run-train", "ledger": "datasets/me/run-ledger"}
    expected = {f"{repo}/{p.name}": p.read_bytes() for part, repo in names.items() for p in (tmp_path / "out" / part).iterdir()}
    assert set(files) == set(expected)
    assert all(files[name] == content for name, content in expected.items() if not name.endswith(".parquet"))


def test_a_hub_that_refuses_or_is_not_there(run, hub):
    done = push(run, hub[0], "hf_wrong")
    assert done.returncode == 2
    assert "the hub refused" in done.stderr
    assert "hf auth login" in done.stderr
    done = push(run, "http://127.0.0.1:9", "hf_right")
    assert done.returncode == 2
    assert "--to DIR" in done.stderr
