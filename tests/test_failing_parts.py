"""Engines, teachers and trainings that hang, drip, answer garbage or turn out to be another model; weights that change on disk under a run."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import scripted
import yaml
from fake_server import Answer, FakeServer, completion
from test_loop import QUIET, dump
from test_openai_engine import Work, after_probe, connect, requests, run

import gsi
from gsi.cli import main
from gsi.config.sampling import Teacher
from gsi.engines import client as client_module
from gsi.guidance.teacher import OpenAITeacher
from gsi.stall import Watched
from gsi.train import launch
from gsi.types import GsiError, TrainJob

HERE = Path(__file__).parent
ENV = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
MESSAGES = [{"role": "user", "content": "What is 2 + 2 ?"}]


@pytest.fixture(autouse=True)
def fast(monkeypatch):
    monkeypatch.setattr(client_module, "BACKOFF", 0.01)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def teacher(url, **settings):
    return OpenAITeacher(Teacher(**{"url": url, "model": "fake", "retries": 0, "timeout": 20, **settings}))


# --------------------------------------------------------------------------------------- hangs


def test_an_engine_that_never_comes_back_ends_the_command_which_goes_on_later(tmp_path):
    settings = scripted.config(tmp_path / "run", iterations=1)
    hangs = settings | {"engine": {"kind": "scripted", "function": f"{HERE / 'stubborn.py'}:never_ends", "stall": 0.5}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(hangs))
    command = [sys.executable, "-m", "gsi", "run", str(tmp_path / "config.yaml"), "--log", "quiet"]
    done = subprocess.run(command, env=ENV | {"AT_WORK": str(tmp_path / "at-work")}, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "it hangs" in done.stderr
    assert "engine.stall" in done.stderr
    assert main(["run", str(tmp_path / "config.yaml"), "engine.stall=0", "--log", "quiet"]) == 0


def test_a_server_that_never_answers_stops_the_run_though_each_request_might_wait_longer():
    free = threading.Event()

    def script(body, n):
        free.wait(20)
        return "late"

    with FakeServer(after_probe(script)) as server:
        engine = connect(server, timeout=600)
        try:
            with (
                pytest.raises(GsiError, match=r"engine openai: it hangs: 3 requests.*engine\.stall"),
                Watched(Work(requests(3)), engine, "openai", 0.3) as work,
            ):
                engine.run(work)
        finally:
            free.set()
            engine.close()


def job(tmp_path: Path, **settings) -> TrainJob:
    (tmp_path / "train.parquet").write_bytes(b"")
    return TrainJob(
        str(tmp_path / "train.parquet"),
        "m",
        "t",
        str(tmp_path / "out"),
        str(tmp_path / "work"),
        0,
        {"processes": 1, "micro_batch_size": 1, "parallel": "ddp", "device": "auto"} | settings,
    )


@pytest.mark.parametrize(
    ("visible", "device", "seen"),
    [
        (None, "auto", "0"),
        (None, "cuda:1", "1"),
        ("3,5", "cuda", "3"),
        ("GPU-8f2e,GPU-11aa", "cuda:1", "GPU-11aa"),
        ("", "auto", ""),
        ("3,5", "cpu", "3,5"),
        ("3,5", "cuda:2", ""),  # torch sees none then, and the training says so
    ],
)
def test_a_training_of_one_process_sees_one_gpu(tmp_path, monkeypatch, visible, device, seen):
    """transformers would spread one process over all it sees, which TRL refuses."""
    code = """
import json, os, sys
device = json.load(open(sys.argv[1]))["settings"]["device"]
print(json.dumps({"gsi": "done", "figures": {"seen": os.environ.get("CUDA_VISIBLE_DEVICES"), "device": device}}))
"""
    (monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False) if visible is None else monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible))
    monkeypatch.setattr(launch, "_command", lambda job, file: [sys.executable, "-c", code, str(file)])
    figures = launch.TrlTrainer().train(job(tmp_path, device=device))
    assert (figures["seen"], figures["device"]) == (seen, device.partition(":")[0])


@pytest.mark.parametrize("more", [{"processes": 2, "parallel": "ddp"}, {"cluster": {"address": None, "folder": None}}], ids=["two", "Ray"])
def test_a_training_of_several_processes_sees_all_gpus(tmp_path, monkeypatch, more):
    code = """
import json, os
print(json.dumps({"gsi": "done", "figures": {"seen": os.environ.get("CUDA_VISIBLE_DEVICES")}}))
"""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    monkeypatch.setattr(launch, "_command", lambda job, file: [sys.executable, "-c", code])
    assert launch.TrlTrainer().train(job(tmp_path, **more))["seen"] == "3,5"


def test_a_training_that_hangs_is_ended_and_named(tmp_path, monkeypatch):
    code = 'import time; print(\'{"gsi": "step", "step": 1, "steps": 9}\', flush=True); time.sleep(600)'
    monkeypatch.setattr(launch, "_command", lambda job, file: [sys.executable, "-c", code])
    with pytest.raises(GsiError, match=r"training: it hangs: .*train\.stall.*goes on from its last checkpoint"):
        launch.TrlTrainer().train(job(tmp_path, stall=1.5))


# --------------------------------------------------------------------------------------- slow drips


class Drip:
    """A server that sends a whole answer, one byte at a time, for ever: every single wait is short."""

    def __enter__(self) -> str:
        self._socket = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._accept, daemon=True).start()
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}/v1"

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        client.recv(65536)
        try:
            client.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\n\r\n{")
            while True:
                client.sendall(b" ")
                time.sleep(0.05)
        except OSError:  # the client has hung up
            client.close()


def test_answers_that_drip_are_given_up_on():
    with Drip() as url:
        with pytest.raises(GsiError, match=r"no answer within 0\.5 s.*teacher\.timeout"):
            teacher(url, timeout=0.5).ask(MESSAGES)
        with pytest.raises(GsiError, match="the answer took too long"):
            connect(url, timeout=0.5, retries=0)


# --------------------------------------------------------------------------------------- garbage

BODY = {
    "choices": [{"index": 0, "text": "4", "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 5, "completion_tokens": 1},
    "model": "fake",
}


def choice(**changes):
    return BODY | {"choices": [BODY["choices"][0] | changes]}


GARBAGE = [
    b"", b"null", b"[]", b"7", b'"text"', b"<html>", b"\xff\xfe\x00", b'{"choices": null}', b'{"choices": 3}', b'{"choices": [null]}', b"[" * 100_000,
    choice(text=None), choice(text=[1]), choice(text={"a": 1}), choice(finish_reason=["stop"]), choice(finish_reason={}), choice(finish_reason=7),
    choice(token_ids=["a"]), choice(token_ids=[-1]), choice(token_ids=[1.5]), choice(token_ids=[None]),
]  # fmt: skip
ODD = [  # an answer all the same
    choice(message="hello"),
    choice(token_ids={}), choice(token_ids=[2**30]), choice(text="half \ud800 a pair"), BODY | {"usage": "many"}, BODY | {"usage": {"prompt_tokens": "five", "completion_tokens": None}},
    BODY | {"usage": {"prompt_tokens": -5, "completion_tokens": 1e300, "prompt_tokens_details": [1]}}, BODY | {"model": None}, BODY | {"model": 7},
]  # fmt: skip


def raw(body) -> Answer:
    return Answer(raw=body if isinstance(body, bytes) else json.dumps(body).encode())


def test_garbage_from_an_engines_server_is_data():
    everything = GARBAGE + ODD
    with FakeServer(after_probe(lambda body, n: raw(everything[int(body["seed"]) - 2**62]))) as server:
        answers = run(connect(server, retries=0), requests(len(everything)))
    for body, answer in zip(everything, answers, strict=True):
        assert answer.finish_reason == ("error" if any(body is g for g in GARBAGE) else "stop"), (body, answer)
        answer.text.encode("utf-8")
        assert answer.generated_tokens >= 0
        assert (answer.prompt_tokens or 0) >= 0


def test_garbage_from_a_teacher_is_an_error_or_an_empty_count():
    chat = completion({"messages": [{"content": "hi"}], "model": "fake"}, 0, Answer("It is 4."))

    def with_content(content):
        return chat | {"choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content}}]}

    for body in (
        b"",
        b"null",
        b"[]",
        b"7",
        b"<html>",
        b"\xff\xfe",
        {"choices": 3},
        {"choices": [None]},
        with_content([1]),
        with_content(7),
        with_content({}),
    ):
        with FakeServer(lambda request, n, body=body: raw(body)) as server, pytest.raises(GsiError, match="no chat completion"):
            teacher(server.url).ask(MESSAGES)
    for body in (with_content("half \ud800"), chat | {"usage": {"prompt_tokens": "x"}}, chat | {"usage": 3}, chat | {"model": 7}):
        with FakeServer(lambda request, n, body=body: raw(body)) as server:
            reply = teacher(server.url).ask(MESSAGES)
        reply.text.encode("utf-8")
        assert reply.prompt_tokens >= 0
        assert isinstance(reply.model, str)


# --------------------------------------------------------------------------------------- another model


def test_a_server_that_answers_as_another_model_stops_the_run():
    answer = after_probe(lambda body, n: raw(BODY | {"model": "fake" if n < 3 else "other"}))
    with FakeServer(answer) as server, pytest.raises(GsiError, match="answers as 'other' now, and as 'fake' before"):
        run(connect(server, concurrency=1), requests(10))
    chat = completion({"messages": [{"content": "hi"}], "model": "fake"}, 0, Answer("It is 4."))
    with FakeServer(lambda body, n: raw(chat | {"model": f"fake-{n // 2}"})) as server:
        asked = teacher(server.url)
        asked.ask(MESSAGES)
        asked.ask(MESSAGES)
        with pytest.raises(GsiError, match="answered as 'fake-1', and as 'fake-0' before"):
            asked.ask(MESSAGES)


def based(tmp_path: Path, **changes):
    (tmp_path / "base").mkdir(exist_ok=True)
    if not (tmp_path / "base" / "skill.json").exists():
        (tmp_path / "base" / "skill.json").write_text('{"skill": 4.0}')
    return scripted.config(tmp_path / "run", model=str(tmp_path / "base"), **changes)


def test_a_base_model_that_changed_is_refused(tmp_path):
    gsi.run(based(tmp_path, iterations=1), reporter=QUIET)
    kept = dump(tmp_path / "run")
    (tmp_path / "base" / "skill.json").write_text('{"skill": 9.0}')
    with pytest.raises(GsiError, match=r"skill\.json: is not what was written[\s\S]*not the model that this run began with"):
        gsi.run(based(tmp_path), reporter=QUIET)
    assert dump(tmp_path / "run") == kept
    (tmp_path / "base" / "skill.json").write_text('{"skill": 4.0}')
    gsi.run(based(tmp_path), reporter=QUIET)


@pytest.mark.parametrize(
    "changes",
    [
        {"train": {"kind": "scripted", "function": f"{HERE / 'stubborn.py'}:tampers_with_base"}},
        {"train": {"kind": "scripted", "function": f"{scripted.HERE}:train", "from": "last"},
         "engine": {"kind": "scripted", "function": f"{HERE / 'stubborn.py'}:draws_and_tampers"}},
    ],
    ids=["base", "trained"],
)  # fmt: skip
def test_weights_that_change_while_the_run_is_at_work_are_not_used(tmp_path, changes):
    with pytest.raises(GsiError, match=r"skill\.json: (is not what was written|has \d+ bytes)"):
        gsi.run(based(tmp_path, iterations=3, **changes), reporter=QUIET)
