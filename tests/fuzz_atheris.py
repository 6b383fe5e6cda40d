"""Coverage-guided fuzzing of `grade` with atheris (Linux; `pip install atheris`): no crash, no hang, no execution.

`make fuzz` runs it for ATHERIS seconds (60) where atheris is installed. An input is two bytes that choose a case of the tables (task,
answer, question, options) and a response in UTF-8. Arguments are libFuzzer's, for example `-max_total_time=600 CORPUS_DIR`.
"""

import contextlib
import sys
import tempfile
import time
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["gsi.verify"]):
    from gsi.verify import answers, arithmetic, checks, choices, numbers, shapes, steps, words  # noqa: F401

import fuzz_grading

from gsi.verify import grade

SLOW = 20.0  # seconds; a worker is stopped after 5, and what is read in place takes milliseconds


def one(data: bytes) -> None:
    """One verdict. Raises AssertionError for what must not be."""
    if len(data) < 3:
        return
    case = fuzz_grading.CASES[int.from_bytes(data[:2], "big") % len(fuzz_grading.CASES)]
    response = data[2:].decode("utf-8", "surrogateescape" if data[0] & 1 else "replace")
    began = time.monotonic()
    verdict = grade(response, case.answer, case.task, case.options, case.question)
    assert verdict.status in fuzz_grading.STATUSES
    assert verdict.status != "error" or "MemoryError" in verdict.detail, (case.task, case.answer, response, verdict)
    with contextlib.suppress(ValueError):
        shapes.shape(response[:1000])  # what a worker reads, here where its branches are seen
    steps.check_steps(response)
    assert time.monotonic() - began < SLOW, ("slow", case.task, response)
    assert not fuzz_grading.CANARY.exists(), ("executed", response)


def corpus(folder: Path) -> None:
    """The responses of the tables as seeds."""
    for i, case in enumerate(fuzz_grading.CASES):
        (folder / f"{i:05}").write_bytes(i.to_bytes(2, "big") + case.response.encode("utf-8", "replace"))


def dictionary(path: Path) -> None:
    pieces = [p for p in fuzz_grading.PIECES if len(p.encode("utf-8", "replace")) <= 60]
    path.write_text("".join('"' + "".join(f"\\x{b:02x}" for b in p.encode("utf-8", "replace")) + '"\n' for p in pieces))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "seeds").mkdir()
        corpus(Path(folder) / "seeds")
        dictionary(Path(folder) / "words")
        atheris.Setup([*sys.argv, "-max_len=4000", "-timeout=60", f"-dict={folder}/words", f"{folder}/seeds"], one)
        atheris.Fuzz()
