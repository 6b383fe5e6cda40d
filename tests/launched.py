"""A server to be launched as a process of its own: `launched.py PORT MODEL [--slow S] [--die N] [--stubborn] [--child]`.

It answers as `scripted.respond` does, for the chain questions of `scripted.config`, with the model's skill.json.
"""

import argparse
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import scripted
from fake_server import Answer, FakeServer

from gsi import tasks
from gsi.config.data import Task
from gsi.types import Query, Request, Sampling, Text

CHARACTERS = sorted(set("\n" + "".join(chr(i) for i in range(32, 127))))  # the tokenizer of `models`, without loading torch
END = 0


def encode(text: str) -> tuple[int, ...]:
    return tuple(CHARACTERS.index(c) + 2 for c in text)


def decode(ids: list[int]) -> str:
    return "".join(CHARACTERS[i - 2] for i in ids)


def world() -> dict[str, Query]:
    """Queries of the scripted world by their rendered prompt."""
    return {f"{q.question} ": q for q in tasks.load(Task(name="chain", args={"seed": 1, "per_level": 4})).queries}


def answer(queries: dict[str, Query], body: dict, model: str) -> Answer:
    """What the scripted function says to a completion request. Hinted prompts are not understood."""
    text = decode(body["prompt"]) if isinstance(body["prompt"], list) else body["prompt"]
    prompt = next((p for p in queries if text.startswith(p)), None)
    if prompt is None:  # the probe
        return Answer("?")
    request = Request(queries[prompt], 0, 0, Text(prompt), Text(text[len(prompt) :]), Sampling(body["temperature"]), body["seed"])
    response = scripted.respond(request, model)
    return Answer(response, ids=(*encode(response), END))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("model")
    parser.add_argument("--slow", type=float, default=0, help="seconds until it listens")
    parser.add_argument("--die", type=int, default=0, help="exit at this request")
    parser.add_argument("--stubborn", action="store_true", help="ignore SIGTERM")
    parser.add_argument("--child", action="store_true", help="have a child that ignores SIGTERM")
    parser.add_argument("--pids", help="file to append the process ids to")
    args = parser.parse_args()
    print(f"loading {args.model}", flush=True)
    pids = [os.getpid()]
    if args.stubborn:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if args.child:
        code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(600)"
        child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        assert child.stdout.readline()
        pids.append(child.pid)
    if args.pids:
        with Path(args.pids).open("a") as f:
            f.write("".join(f"{pid}\n" for pid in pids))
    time.sleep(args.slow)
    queries = world()

    def script(body, n):
        if args.die and n >= args.die:
            print("CUDA error: out of memory", file=sys.stderr, flush=True)
            os._exit(17)
        return answer(queries, body, args.model)

    with FakeServer(script, models=[args.model], port=args.port):
        threading.Event().wait()


if __name__ == "__main__":
    main()
