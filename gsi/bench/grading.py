"""`gsi bench grading`: graded responses per second against math-verify called directly, and programs per second."""

from __future__ import annotations

import random
import time
from typing import Any

from gsi.types import GsiError, Query

Line = dict[str, Any]


def grading(n: int = 2000, n_latex: int = 300, n_programs: int = 60, seed: int = 0) -> Line:
    """Graded responses per second against math-verify called directly, in one process and one run.

    Distinct responses, half of them wrong, cold cache; plain numbers are model-like solutions of a few sentences, LaTeX answers
    are fractions, roots and polynomials. Ours is the grader of a run with one worker, without the process check that
    math-verify does not do either. Programs: simple ones per second in two sandbox workers.
    """
    rng = random.Random(seed)
    plain, latex = [_plain(rng, i) for i in range(n)], [_latex(rng) for _ in range(n_latex)]
    line: Line = {}
    for name, task, pairs in (("plain", "gsm8k", plain), ("latex", "math", latex)):
        mine, theirs = _ours(task, pairs), _theirs(pairs)
        line |= {f"{name}_per_s": round(mine, 1), f"{name}_math_verify_per_s": round(theirs, 1), f"{name}_ratio": round(mine / theirs, 2)}
    try:
        from gsi.verify.program import program_rate

        line["programs_per_s"] = round(program_rate(n_programs, workers=2), 1)
    except GsiError as e:
        line |= {"programs_per_s": None, "programs_reason": str(e)}
    return line


def _plain(rng: random.Random, i: int) -> tuple[str, str]:
    """(answer, response)"""
    a, b, c = rng.randint(2, 90), rng.randint(2, 90), rng.randint(2, 9)
    answer = (a + b) * c
    said = answer if i % 2 else answer + rng.randint(1, 50)
    ending = (
        f"The answer is {said}",
        f"#### {said}",
        f"So the total is $\\boxed{{{said}}}$.",
        f"**Answer:** {said}",
        f"She made ${said:,} in total.",
    )
    return str(
        answer
    ), f"On day {i} she sold {a} + {b} = {a + b} cakes.\nEach cost ${c}, so she made {a + b} * {c} = ${answer}.\n{ending[i % 5]}"


def _latex(rng: random.Random) -> tuple[str, str]:
    a, b, c, d = (rng.randint(2, 99) for _ in range(4))
    gold, same = rng.choice(
        [
            (f"\\frac{{{a}}}{{{b}}}", f"\\dfrac{{{a * c}}}{{{b * c}}}"),
            (f"{a}\\sqrt{{{b}}}", f"\\sqrt{{{a * a * b}}}"),
            (f"{a}x^2 + {b}x + {c}", f"{c} + {b}x + {a}x^2"),
            (f"\\left( {a}, \\frac{{{b}}}{{{c}}} \\right)", f"({a}, \\frac{{{b * d}}}{{{c * d}}})"),
        ]
    )
    return (
        gold,
        f"Simplifying, we get $y = {d}$ and therefore the answer is $\\boxed{{{same if rng.random() < 0.5 else same + f' + {d}'}}}$.",
    )


def _ours(task: str, pairs: list[tuple[str, str]]) -> float:
    from gsi.verify import make_grader

    grader = make_grader({task: None}, workers=1, steps=False)
    try:
        grader.submit(
            Query("warm", "math" if task == "math" else task, "", "\\sqrt{2}" if task == "math" else "1"), "\\boxed{\\sqrt{3}}"
        ).result()
        grader.submit(
            Query("warm", task, "", "1"), "On day 0 she sold nothing.\nSo she made $0 in total."
        ).result()  # patterns are compiled once
        started = time.perf_counter()
        futures = [grader.submit(Query(str(i), task, "", answer), response) for i, (answer, response) in enumerate(pairs)]
        for future in futures:
            future.result()
        return len(pairs) / (time.perf_counter() - started)
    finally:
        grader.close()


def _theirs(pairs: list[tuple[str, str]]) -> float:
    from math_verify import parse, verify

    verify(parse("$\\sqrt{2}$"), parse("\\boxed{\\sqrt{3}}"))
    started = time.perf_counter()
    for answer, response in pairs:
        verify(parse(f"${answer}$"), parse(response))
    return len(pairs) / (time.perf_counter() - started)
