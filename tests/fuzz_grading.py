"""Fuzzing the checker: random and mutated responses of every task. No crash, no hang, no execution.

`make fuzz` runs 100,000 of them; FUZZ=N sets another number. The tests run 2,000 (test_grading.py).
"""

import os
import random
import sys
import time
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from gsi.types import STATUSES, Query
from gsi.verify import CHECKERS, make_grader
from gsi.verify.compare import Case, read
from gsi.verify.steps import check_steps

CASES = [case for path in sorted(Path(__file__).parent.glob("grading_cases*.jsonl")) for case in read(path, None)]
CANARY = Path(os.environ.get("TMPDIR", "/tmp")) / f"gsi-fuzz-canary-{os.getpid()}"
PIECES = [
    "\\boxed{", "}", "{", "$", "$$", "\\frac", "\\sqrt", "####", "The answer is", "answer:", "(", ")", "[", "]", "=", "<", ">", "^", "_", "\\", "%", "**",
    "\n", "\n\n", "Question:", "no wait", "not", "or", "\\begin{pmatrix}", "\\end{pmatrix}", "&", "\\\\", "9" * 60, "1e999", "1/0", "10^{10^{10}}", "\\cup",
    "\\infty", "-", "−", "\u0000", "\ud800", "\u202e", "٣", "½", "\u200b" * 50, "((((", "}}}}", "\\int_0^1", "\\sum_{n=1}^{\\infty}", "!", "...", "1,2,3",
    f"__import__('os').system('touch {CANARY}')", f"open('{CANARY}','w')", "{{7*7}}", "%s%n", "\x1b[2J", "<<1+1=3>>", "\\overline{3}", "x", "A", "(B)", "e", "i",
]  # fmt: skip


def mutate(rng: random.Random, text: str) -> str:
    """A response with pieces cut, doubled, swapped or put in."""
    for _ in range(rng.randint(1, 6)):
        at, to = sorted((rng.randint(0, len(text)), rng.randint(0, len(text))))
        kind = rng.randrange(5)
        if kind == 0:
            text = text[:at] + text[to:]
        elif kind == 1:
            text = text[:to] + text[at:to] * rng.choice((1, 1, 2, 40)) + text[to:]
        elif kind == 2:
            text = text[:at] + rng.choice(PIECES) * rng.choice((1, 1, 1, 3, 200)) + text[at:]
        elif kind == 3:
            other = rng.choice(CASES).response
            text = text[:at] + other[rng.randint(0, len(other)) :]
        else:
            text = text[:at] + chr(rng.choice((rng.randint(0, 127), rng.randint(128, 0x2FFF)))) + text[at:]
    return text[:60_000]


def fuzz(n: int, seed: int = 0, limit: float = 30.0) -> dict[str, int]:
    """Grades n mutated responses; returns how often each status came. Raises AssertionError on a crash, a hang or an execution.

    The limit is what one inline check may take, far above what it does, so that a slow machine does not fail.
    """
    rng, counts, slowest = random.Random(seed), dict.fromkeys(STATUSES, 0), (0.0, "")
    grader = make_grader(dict.fromkeys(CHECKERS), workers=1, timeout=2.0)
    try:
        for start in range(0, n, 500):
            futures = []
            for _ in range(min(500, n - start)):
                case: Case = rng.choice(CASES)
                response = mutate(rng, case.response)
                gold = case.answer if rng.random() < 0.9 else mutate(rng, case.answer)[:300]
                query = Query("fuzz", case.task, case.question, gold, options=case.options)
                began = time.thread_time()  # of this thread, whatever else the machine does
                futures.append((grader.submit(query, response), case.task, gold, response))
                slowest = max(slowest, (time.thread_time() - began, response))
                assert slowest[0] < limit, ("slow", slowest)
            for future, task, gold, response in futures:
                verdict = future.result(timeout=600)
                counts[verdict.status] += 1
                # a worker that runs out of memory is the limit at work; any other error is a crash of ours
                assert verdict.status != "error" or "MemoryError" in verdict.detail, (task, gold, response, verdict)
        assert not CANARY.exists(), "something in a response was executed"
    finally:
        grader.close()
    print(f"slowest inline check: {slowest[0] * 1000:.0f} ms for {slowest[1][:80]!r}", file=sys.stderr)
    return counts


@settings(max_examples=int(os.environ.get("FUZZ_HYPOTHESIS", "200")), deadline=None, database=None, phases=[Phase.generate],
          suppress_health_check=list(HealthCheck))  # fmt: skip
@given(st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=20), st.integers().map(str)), max_size=30).map("".join))
def any_text_has_a_verdict(text: str) -> None:
    check_steps(text)
    for task, answer in (("gsm8k", "12"), ("theoremqa", "[1, 2]"), ("theoremqa", "True"), ("aqua", "B"), ("math", "\\text{east}")):
        options = ("1", "2 km", "\\frac{1}{2}", "none of these") if task == "aqua" else None
        found = CHECKERS[task](text, Query("fuzz", task, "How many?", answer, options=options))
        assert hasattr(found, "gold") or found.status in STATUSES


if __name__ == "__main__":
    number = int(os.environ.get("FUZZ", "100000"))
    any_text_has_a_verdict()
    print({status: count for status, count in fuzz(number, seed=int(os.environ.get("SEED", "1"))).items() if count})
