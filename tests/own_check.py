"""A user's own functions, loaded by path in tests: a checker, and engines that misbehave."""

import itertools
import os
import re
import time
from pathlib import Path

from gsi.types import Completion, Request, Verdict

_calls = itertools.count()


def check(response: str, query) -> bool:
    numbers = re.findall(r"\d+", response)
    return bool(numbers) and numbers[-1] == query.answer


def hangs(response: str, query) -> bool:
    """Takes for ever on one response."""
    if response == "hang":
        time.sleep(600)
    return response == query.answer


def where(response: str, query) -> Verdict:
    """Right where the length is odd, and the name of the process that started the worker."""
    started_by = Path(f"/proc/{os.getppid()}/cmdline").read_text().split("\0")[0]
    return Verdict("correct" if len(response) % 2 else "wrong", detail=started_by)


def reads_it_all(response: str, query) -> bool:
    """Right where the whole response and the whole rationale have come through."""
    return len(response) == 15_000 and len(query.rationale) == 1_000_000 and query.options == ("ä", "b")


def respond(request: Request, model: str) -> str:
    return f"The answer is {request.query.answer}"


def dumb(request: Request, model: str) -> str:
    return "I do not know"


def breaks(request: Request, model: str) -> str:
    if next(_calls) >= 20:
        raise RuntimeError("the engine died")
    return "no idea"


def mixed(request: Request, model: str):
    if request.query.level == 1:
        return Completion("cut o", (1, 2, 3), "length", 3)
    if request.query.level == 2:
        return Completion("", (), "error", 0, detail="server said 500")
    if request.query.level == 3:
        return Completion("", (), "too_long", 0)
    return request.query.rationale
