"""`gsi profile` and `gsi grade`: how often a model is right, and whether responses are."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from gsi.commands import Add
from gsi.types import GsiError, Query


def add(command: Add) -> None:
    p = command("profile", _profile, "how often a model solves each question: no training, resumable")
    p.add_argument("model", help="directory or hub id")
    p.add_argument("data", help="JSONL file, built-in task or hub id")
    p.add_argument("overrides", nargs="*", metavar="a.b=c")
    p.add_argument("--task", help="how answers are checked: a built-in task; default: the data's name if it is one, else auto")
    p.add_argument("--output", default="profile", help="folder of the results (default: profile)")

    p = command("grade", _grade, "grade JSONL {response, answer, options?, question?, task?} from standard input")
    p.add_argument("--task", default="auto", help="task of lines that name none (default: auto)")
    p.add_argument("--programs", action="store_true", help="responses are Python programs: run each isolated, grade its answer")
    p.add_argument(
        "--marked", action="store_true", help="only a marked answer counts (`#### 7`, a box, `The answer is 7`), as `tasks[].marked`"
    )
    p.set_defaults(json=True)


def _profile(args: argparse.Namespace) -> None:
    from gsi.profiling import profile

    profile(args.model, args.data, args.output, args.task, args.overrides)


def _grade(args: argparse.Namespace) -> None:
    """Order is kept; grading runs ahead of the output by a bounded number of lines."""
    from collections import deque

    from gsi.verify import CHECKERS, make_grader, with_programs

    grader = with_programs(
        make_grader(dict.fromkeys(CHECKERS), workers=2, timeout=5.0, steps=False), CHECKERS if args.programs else (), workers=2
    )
    waiting: deque[Any] = deque()

    def flush(down_to: int) -> None:
        while len(waiting) > down_to:
            row, future = waiting.popleft()
            verdict = future.result()
            row |= {"correct": verdict.correct, "status": verdict.status, "extracted": verdict.extracted}
            if args.programs:
                row["detail"] = verdict.detail  # ok, or how the program failed
            print(json.dumps(row, ensure_ascii=False))

    try:
        for number, line in enumerate(sys.stdin, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                task, response, answer = row.get("task") or args.task, row["response"], row["answer"]
                answer = str(answer) if isinstance(answer, int | float) else answer  # `"answer": 42`
                if not isinstance(response, str) or not isinstance(answer, str):
                    raise TypeError("`response` and `answer` must be text")
                options = tuple(map(str, row["options"])) if row.get("options") else None
            except (ValueError, KeyError, TypeError, AttributeError) as e:
                flush(0)
                what = f"field {e} is missing" if isinstance(e, KeyError) else str(e)
                raise GsiError(
                    f"standard input, line {number}: {what}; expected JSON with response, answer and optionally options, question, task"
                ) from None
            if task not in CHECKERS:
                flush(0)
                raise GsiError(f"standard input, line {number}: unknown task {task!r}; there are {', '.join(CHECKERS)}")
            query = Query(f"line-{number}", task, row.get("question") or "", answer, options=options, marked=args.marked)
            waiting.append((row, grader.submit(query, response)))
            flush(256)
        flush(0)
    except UnicodeDecodeError as e:
        raise GsiError(
            f"standard input: byte {e.start} of what was read is not valid UTF-8; convert it, for example with iconv -t UTF-8"
        ) from None
    finally:
        grader.close()
