"""The teacher of `interactive` in the lab: a stronger tiny model behind an OpenAI-compatible chat server on this machine.

    python -m gsi.lab.teacher lab:dag-strong:1 --port 8177      # until it is stopped; a study starts and stops its own

It reads the messages of `gsi.guidance.interactive` as any teacher would, solves the question itself (greedily, once per question) and compares: the
first step of the student's attempt that does not agree with its own solution is what it speaks of, by saying from what that quantity is
made, without a value. So what it knows is what its model knows: where the model is wrong, so is the teacher.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gsi.guidance.interactive import ASK
from gsi.lab import dag, dag_check
from gsi.lab.command import end
from gsi.types import GsiError, Query

# the fields of ASK, wherever its wording puts them
_READ = re.compile(re.sub(r"\\\{(question|attempt|answer)\\\}", r"(?P<\1>.*?)", re.escape(ASK)), re.DOTALL)
MAX_NEW_TOKENS = 160


def explain(question: str, attempt: str, solution: str) -> str:
    """What the teacher says, from its own `solution`: how the first quantity is made on which the attempt and it differ."""
    problem = dag_check.parse(Query("", "dag", question, ""))
    own, student = _results(solution), _results(attempt)
    wrong = next((letter for letter, value in student.items() if own.get(letter) != value), None)
    missing = next((letter for letter in own if letter not in student), problem.target)
    letter = wrong if wrong is not None else missing
    known = {letter for run in problem.runs for letter in run.letters}
    return dag.feedback(problem, letter if letter in known else problem.target)


def _results(text: str) -> dict[str, str]:
    """Letter -> value of every step, in order; a step is `LETTER ... VALUE`."""
    steps = [step.split() for step in text.split(" ; ")]
    return {step[0]: step[-1] for step in steps if len(step) > 2}


class Solver:
    """Greedy solutions of one lab model, each question solved once. Thread-safe."""

    def __init__(self, model: Path):
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        torch.set_num_threads(1)
        self._tokenizer = AutoTokenizer.from_pretrained(model)
        self._model: Any = AutoModelForCausalLM.from_pretrained(model, use_safetensors=True).eval()
        self._known: dict[str, tuple[str, int]] = {}
        self._lock = threading.Lock()

    def solve(self, question: str) -> tuple[str, int]:
        """(solution, tokens generated)."""
        import torch

        with self._lock:
            if question not in self._known:
                ids = torch.tensor([self._tokenizer(question)["input_ids"]])
                with torch.inference_mode():
                    out = self._model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=MAX_NEW_TOKENS)
                made = out[0, ids.shape[1] :]
                self._known[question] = str(self._tokenizer.decode(made, skip_special_tokens=True)), len(made)
            return self._known[question]


def app(name: str, solver: Solver) -> Any:
    """The server's application: `/v1/models` and `/v1/chat/completions`. Something that is no request of a student gets `OK`."""
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.requests import Request
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    async def models(request: Request) -> JSONResponse:
        return JSONResponse({"object": "list", "data": [{"id": name, "object": "model"}]})

    async def chat(request: Request) -> JSONResponse:
        body = await request.json()
        asked = _READ.fullmatch(body["messages"][-1]["content"])
        text, made = "OK", 1
        if asked:
            solution, made = await run_in_threadpool(solver.solve, asked["question"])
            text = explain(asked["question"], asked["attempt"], solution)
        read = sum(len(m["content"].split()) for m in body["messages"])
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
        usage = {"prompt_tokens": read, "completion_tokens": made, "total_tokens": read + made}
        return JSONResponse(
            {"id": "0", "object": "chat.completion", "created": int(time.time()), "model": name, "choices": [choice], "usage": usage}
        )

    return Starlette(routes=[Route("/v1/models", models), Route("/v1/chat/completions", chat, methods=["POST"])])


@contextlib.contextmanager
def served(model: str, port: int, seconds: float = 900.0) -> Iterator[None]:
    """A teacher in a process of its own while the block runs. Raises GsiError where the port is taken or it does not start."""
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            raise GsiError(f"teacher.port: {port} is in use on this machine; name another one in the study")
    command = [sys.executable, "-m", "gsi.lab.teacher", model, "--port", str(port)]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, encoding="utf-8", env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    try:
        deadline = time.monotonic() + seconds
        while not _answers(port):
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                said = process.stderr.read()[-1000:].strip() if process.stderr else ""
                raise GsiError(f"the study's teacher {model} did not start:\n{said or f'no answer on port {port} within {seconds:.0f} s'}")
            time.sleep(0.2)
        yield
    finally:
        process.terminate()
        process.communicate()


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models", timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


def main() -> int:
    parser = argparse.ArgumentParser(description="Serves a lab model of the task dag as a teacher.")
    parser.add_argument("model", help="lab:dag-strong:SEED")
    parser.add_argument("--port", type=int, required=True)
    args = parser.parse_args()
    import uvicorn

    from gsi.lab.base import parse, resolve

    if parse(args.model)[0] != "dag":
        raise GsiError(f"{args.model}: only models of the task dag can teach")
    solver = Solver(resolve(args.model))
    uvicorn.run(app(args.model, solver), host="127.0.0.1", port=args.port, log_level="warning")
    return 0


if __name__ == "__main__":
    end(main)
