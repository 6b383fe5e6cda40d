"""How often wrong everyday responses are accepted: `python -m gsi.verify.acceptance DATA_DIR [--n 3000]`.

Wrong responses are made from real ones, for all six tasks: a reference rationale whose answer was changed in the last place (by one, by ten
times, two digits swapped, another number of the text, another sign), the rationale of another question, the right solution with another
letter, a solution that joins two numbers of the question by the wrong operation, a guess, in everyday wordings. Prints, for each task and kind, wrongly
accepted of all as one JSON line, and before it one line for every acceptance, to be read: some of them are right after all.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path

from gsi.types import Query
from gsi.verify import CHECKERS, make_grader
from gsi.verify.remainder import rows

Wrong = tuple[str, Query, str]  # kind, query, response

WORDINGS = (
    "The answer is {}", "The answer is {}.", "#### {}", "**Answer:** {}", "So the answer is ${}$.", "Therefore, the final answer is $\\boxed{{{}}}$.", "**{}**",
    "Final Answer: The final answer is $\\boxed{{{}}}$. I hope it is correct.", "\\[\\boxed{{{}}}\\]", "Answer: {}", "### Final Answer\n{}", "Thus, we get {}.",
    "<think>\nLet me see. It could be {gold}? No.\n</think>\n\nThe answer is {}.", "The answer is: {}\n\nQuestion: What is 3 + 4?\nAnswer: 3 + 4 = 7. The answer is 7",
)  # fmt: skip
_NUMBER = re.compile(r"(?<![\w.,\\])\d[\d,]*(?:\.\d+)?(?![\w%])")


def value(text: str) -> Fraction | None:
    """An independent and simple reading of a plain number, to be sure that a response is wrong."""
    text = re.sub(r"\\(?:text|mbox)\s*\{[^{}]*\}|\^\{?\\circ\}?|^\s*[a-z]\s*=", "", text)
    text = re.sub(r"\\[!,]|[\\,$%\s]", "", text.replace("\\frac", "@").replace("\\dfrac", "@")).replace("@", "\\frac")
    if m := re.fullmatch(r"(-?)\\[dt]?frac\{(-?\d+)\}\{(\d+)\}", text):
        text = f"{m[1]}{m[2]}/{m[3]}"
    try:
        return Fraction(text)
    except (ValueError, ZeroDivisionError):
        return None


def changed(rng: random.Random, gold: str, text: str) -> Iterator[str]:
    """Other answers near this one; only such as cannot be equal to it (by 5 % at least where TheoremQA allows an error)."""
    right = value(gold)
    if right is None:
        for m in list(re.finditer(r"\d+", gold))[:3]:
            yield gold[: m.start()] + str(int(m[0]) + rng.choice((1, 2, 10))) + gold[m.end() :]
        if not re.search(r"[\d\\]", gold):
            yield rng.choice(["none", "5", "12"])
        return
    candidates = [right + 1, right - 1, right * 10, -right, right + rng.randint(2, 30), right * 2, right / 2, right / 10, right * 100]
    candidates += [v for m in _NUMBER.finditer(text) if (v := value(m[0])) is not None]
    digits = str(abs(right.numerator))
    if len(digits) > 1:
        candidates.append(Fraction(int(digits[1] + digits[0] + digits[2:]), right.denominator))
    for v in rng.sample(candidates, len(candidates)):
        if abs(v - right) > Fraction(5, 100) * abs(right) or (
            v != right and right.denominator == 1 and abs(right) < 10**6 and "." not in gold
        ):
            yield (
                str(v.numerator)
                if v.denominator == 1
                else (f"{float(v):.6g}" if rng.random() < 0.7 else f"\\frac{{{v.numerator}}}{{{v.denominator}}}")
            )


def ending(rng: random.Random, said: str, gold: str) -> str:
    wording = rng.choice(WORDINGS)
    return wording.format(said, gold=gold)


def body(rationale: str) -> str:
    """A solution without its last statement of the answer."""
    text = re.sub(r"(?i)\s*(?:so\s+|therefore,?\s+)?the (?:final )?answer is.*\Z", "", rationale, flags=re.DOTALL)
    return text if text != rationale else "\n".join(rationale.splitlines()[:-1])


def exact(query: Query, said: str) -> bool:
    """Whether a changed answer is surely wrong for this task."""
    a, b = value(query.answer), value(said)
    if a is None or b is None:
        return re.sub(r"\s", "", query.answer) != re.sub(r"\s", "", said)
    return a != b if query.task != "theoremqa" else abs(a - b) > Fraction(5, 100) * abs(a)


# --------------------------------------------------------------------------------------- kinds of wrong responses


def answer_changed(rng: random.Random, query: Query, others: Sequence[Query]) -> str | None:
    if query.options:
        letter = rng.choice([c for c in "ABCDE"[: len(query.options)] if c != query.answer])
        option = query.options[ord(letter) - 65]
        named = rng.choice([letter, f"({letter})", f"({letter}) {option}", f"option {letter}", f"{letter}) {option}"])
        return f"{body(query.rationale or '')}\n{ending(rng, named, query.answer)}".strip()
    said = next(iter(changed(rng, query.answer, query.question + (query.rationale or ""))), None)
    return None if said is None or not exact(query, said) else f"{body(query.rationale or '')}\n{ending(rng, said, query.answer)}".strip()


def everywhere(rng: random.Random, query: Query, others: Sequence[Query]) -> str | None:
    """The rationale as it is written, with the answer changed in every place where it stands."""
    if not query.rationale or query.options:
        return None
    said = next(iter(changed(rng, query.answer, query.question)), None)
    if said is None or not exact(query, said) or query.answer not in query.rationale:
        return None
    text = re.sub(rf"(?<![\w.,]){re.escape(query.answer)}(?![\w]|[.,]\d)", lambda m: said, query.rationale)
    last = text.rpartition("answer is")[2]
    same = bare(last) == bare(query.answer) or (value(query.answer) is not None and value(last) == value(query.answer))
    return None if bare(query.answer) in bare(text[-120:]) or same else text  # there in another spelling too


def bare(text: str) -> str:
    text = re.sub(r"\\text\s*\{([^{}]*)\}", "", text.replace("\\$", "").replace("and", ""))
    return re.sub(r"[\s,{}$]|\\[!,;]|\\left|\\right|\^\\circ|\\%|(?<![a-z])[a-z]=|\.00?\b|(?<=\\)[dt](?=frac)", "", text)


def of_another(rng: random.Random, query: Query, others: Sequence[Query]) -> str | None:
    """The solution of another question of the task."""
    other = rng.choice(others)
    if not other.rationale or not exact(query, other.answer):
        return None
    if query.options and other.options:
        said = other.options[ord(other.answer) - 65] if len(other.answer) == 1 and ord(other.answer) - 65 < len(other.options) else ""
        if said == query.options[ord(query.answer) - 65]:
            return None
    return other.rationale


def wrong_operation(rng: random.Random, query: Query, others: Sequence[Query]) -> str | None:
    """Two numbers of the question, joined by an operation that does not give the answer."""
    numbers = [v for m in _NUMBER.finditer(re.split(r"Answer Choices", query.question)[0]) if (v := value(m[0])) is not None and v < 10**6]
    if len(numbers) < 2:
        return None
    a, b = rng.sample(numbers, 2)
    sign, function = rng.choice(OPERATIONS)
    if sign == "/" and not b:
        return None
    result = function(a, b)
    shown = str(result.numerator) if result.denominator == 1 else f"{float(result):.2f}"
    unit = rng.choice(["", " dollars", " apples", " in total", " km"])
    gold = query.options[ord(query.answer) - 65] if query.options else query.answer
    there = [v for v in (value(gold), *(value(x) for x in re.findall(r"-?\d[\d,]*(?:\.\d+)?", gold))) if v is not None]
    tolerance = Fraction(5, 100) if query.task == "theoremqa" else Fraction(1, 10**6)
    if not there or any(abs(v - (value(shown) or 0)) <= tolerance * max(abs(v), Fraction(1)) for v in there):
        return None
    show = f"{float(a):g} {sign} {float(b):g} = {shown}"
    return rng.choice([
        f"{show}{unit}", f"We calculate {show}{unit}.\nThe answer is {shown}", f"So there are {shown}{unit}.", f"To find the answer, we compute:\n\n{show}\n\n**{shown}{unit}**",
        f"He has {float(a):g} and {float(b):g}, so {show}{unit} in the end.", f"\\[ {show} \\]\nThus the result is \\boxed{{{shown}}}.",
    ])  # fmt: skip


OPERATIONS: tuple[tuple[str, Callable[[Fraction, Fraction], Fraction]], ...] = (
    ("+", lambda a, b: a + b), ("-", lambda a, b: a - b), ("*", lambda a, b: a * b), ("/", lambda a, b: a / b),
)  # fmt: skip


def guess(rng: random.Random, query: Query, others: Sequence[Query]) -> str | None:
    """The answer of another question, stated alone."""
    other = rng.choice(others).answer
    return ending(rng, other, query.answer) if exact(query, other) else None


KINDS: dict[str, Callable[[random.Random, Query, Sequence[Query]], str | None]] = {
    "answer changed": answer_changed, "changed everywhere": everywhere, "of another question": of_another, "wrong operation": wrong_operation, "guess": guess,
}  # fmt: skip


def wrong_responses(folder: Path, n: int, seed: int = 0) -> Iterator[Wrong]:
    """About n wrong responses per task, the kinds in turn as far as the task's data allow them."""
    by_task: dict[str, dict[str, Query]] = {}
    for row in rows(folder, ["answer"]):
        if "_pot" not in row.file:
            by_task.setdefault(row.query.task, {}).setdefault(row.query.question, row.query)
    for task, found in sorted(by_task.items()):
        rng, queries = random.Random(f"{seed} {task}"), list(found.values())
        made = tries = 0
        while made < n and tries < 20 * n:
            kind = list(KINDS)[tries % len(KINDS)]
            tries += 1
            query = rng.choice(queries)
            if query.options and not ("A" <= query.answer <= chr(64 + len(query.options))):
                continue
            response = KINDS[kind](rng, query, queries)
            if response and not (query.rationale and response.strip() == query.rationale.strip()):
                made += 1
                yield kind, query, response


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m gsi.verify.acceptance", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="a folder of .jsonl or .jsonl.gz files, named after their tasks")
    parser.add_argument("--n", type=int, default=3000, help="wrong responses per task (default 3000)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    grader = make_grader(dict.fromkeys(CHECKERS), 1, 5.0, steps=False)
    asked: Counter[tuple[str, str]] = Counter()
    accepted: Counter[tuple[str, str]] = Counter()
    statuses: Counter[str] = Counter()
    try:
        waiting = [
            (kind, query, response, grader.submit(query, response))
            for kind, query, response in wrong_responses(args.folder, args.n, args.seed)
        ]
        for kind, query, response, future in waiting:
            verdict = future.result()
            asked[query.task, kind] += 1
            statuses[verdict.status] += 1
            if verdict.correct:
                accepted[query.task, kind] += 1
                shown = {
                    "task": query.task,
                    "kind": kind,
                    "id": query.id,
                    "gold": query.answer,
                    "extracted": verdict.extracted,
                    "end": response[-300:],
                }
                print(json.dumps(shown, ensure_ascii=False))
    finally:
        grader.close()
    for task in sorted({task for task, _ in asked}):
        kinds = {kind: f"{accepted[t, kind]} of {n}" for (t, kind), n in asked.items() if t == task}
        print(
            json.dumps({"task": task, "accepted": sum(accepted[task, k] for k in kinds), "of": sum(asked[task, k] for k in kinds)} | kinds)
        )
    print(json.dumps({"task": "all", "accepted": accepted.total(), "of": asked.total(), "statuses": dict(statuses)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
