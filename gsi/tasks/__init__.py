"""The tasks that are built in: where their data lives and how a row there becomes one of ours.

`TASKS` is the whole registry. Any other name works too, with data of your own (`path` or `hub`) and, where answers need
it, a `check` of your own. Reading, checking and splitting are in `data.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gsi.config.data import Columns
from gsi.lab import chain, dag, gsm_symbolic, multiply
from gsi.tasks.choices import lettered, with_choices
from gsi.tasks.endings import last_boxed
from gsi.tasks.fields import LeftOut
from gsi.types import Query

OURS = Columns()
Fields = dict[str, Any]  # one row as read, under our own names (question, answer, rationale, level, options); None = not there


@dataclass(frozen=True)
class TaskSpec:
    about: str  # one line for people
    hub: str | None = None  # data set on the Hugging Face hub, used where a config gives neither path nor hub
    configuration: str | None = None  # of that data set
    columns: Columns = OURS  # names there; our own names are always understood as well
    answer_from: Callable[[Fields], Fields] | None = (
        None  # cuts the answer out where it is no column of its own; leaves our own form as it is
    )
    hard_levels: tuple[int, ...] = ()
    steps: bool = False  # its check also says if the steps of a rationale hold
    generated: Callable[..., list[Query]] | None = None  # lab tasks: (seed, per_level[, levels]) -> queries
    chance: Callable[[int], float] | None = (
        None  # level -> probability that a guess among all possible answers is right; None = no finite set
    )
    split: str | None = None  # the only one that the hub's data set has
    member: str | None = None  # column that marks the rows which belong to it in a file of a larger set


def _gsm8k(row: Fields) -> Fields:
    """`solution with <<2+2=4>> marks #### 1,234` -> rationale without the marks, answer `1234`."""
    if not isinstance(row["answer"], str) or "####" not in row["answer"]:
        return row
    solution, _, answer = row["answer"].rpartition("####")
    rationale = row["rationale"] or re.sub(r"<<[^<>]*>>", "", solution).strip()
    return {**row, "answer": answer.strip().replace(",", ""), "rationale": rationale}


def _math(row: Fields) -> Fields:
    """The answer is the content of the last box of the solution."""
    if row["answer"] is not None or not isinstance(row["rationale"], str):
        return row
    answer = last_boxed(row["rationale"])
    if not answer:
        raise LeftOut("the solution has no \\boxed{...} with an answer in it")
    return {**row, "answer": answer}


def _choices(row: Fields) -> Fields:
    """Options lose their letters, the answer's letter becomes upper case, and the question shows the options.

    AQuA has `["A)125", ...]`; MathQA has one text, `a ) 24 , b ) 120`, and its rationale in quotation marks.
    """
    options, answer, question, rationale = row["options"], row["answer"], row["question"], row["rationale"]
    if isinstance(options, str) and re.match(r"\s*a\s*\)", options):
        options = re.split(r"(?:^|,)\s*[a-e]\s*\)\s*", options.strip())[1:]
        options = [option.strip() for option in options]
        rationale = rationale.strip('"') if isinstance(rationale, str) else rationale
    if isinstance(options, list) and all(isinstance(o, str) and re.match(rf"{letter}\s*\)", o) for letter, o in lettered(options)):
        options = [re.sub(r"^[A-Z]\s*\)\s*", "", o).strip() for o in options]
    if isinstance(answer, str) and re.fullmatch(r"[a-e]", answer.strip()):
        answer = answer.strip().upper()
    if isinstance(question, str) and isinstance(options, list) and options:
        question = with_choices(question, options)
    return {**row, "options": options, "answer": answer, "question": question, "rationale": rationale}


def _of_dag(level: int) -> float:
    return 1 / dag.MODULUS


TASKS: dict[str, TaskSpec] = {
    "gsm8k": TaskSpec("grade school word problems, whole-number answers", "openai/gsm8k", "main", answer_from=_gsm8k, steps=True),
    "svamp": TaskSpec("one-step word problems", "ChilleD/SVAMP", columns=Columns(question="question_concat", answer="Answer"), steps=True),
    "math": TaskSpec(
        "competition problems in LaTeX, levels 1 to 5",
        "DigitalLearningGmbH/MATH-lighteval",  # the original split: 7500 train, 5000 test
        "default",
        Columns(question="problem", rationale="solution"),
        _math,
        hard_levels=(5,),
        steps=True,
    ),
    "math500": TaskSpec(
        "the 500 test problems of MATH that most papers report (OpenAI's PRM800K split)",
        "HuggingFaceH4/MATH-500",
        split="test",
        member="in_math500",
        columns=Columns(id="unique_id", question="problem", rationale="solution"),
        answer_from=_math,
        hard_levels=(5,),
        steps=True,
    ),
    "theoremqa": TaskSpec(
        "university questions: numbers, lists, true or false; some need a picture that is not given",
        "TIGER-Lab/TheoremQA",
        split="test",
        columns=Columns(question="Question", answer="Answer"),
    ),
    "aqua": TaskSpec("algebra, five choices", "deepmind/aqua_rat", "raw", Columns(answer="correct"), _choices, steps=True),
    "mathqa": TaskSpec(
        "word problems, five choices, built on aqua; known to contain wrong answers",
        "regisss/math_qa",  # the rows of allenai/math_qa as parquet; that one needs a script, which `datasets` no longer runs
        columns=Columns(question="Problem", answer="correct", rationale="Rationale"),
        answer_from=_choices,
        steps=True,
    ),
    "chain": TaskSpec(
        "lab: named-chain arithmetic, levels 1 to 10",
        hard_levels=chain.HARD_LEVELS,
        steps=True,
        generated=chain.queries,
        chance=lambda level: chain.CHANCE,
    ),
    "dag": TaskSpec(
        "lab: dependency problems with several right solutions, levels 1 to 8",
        hard_levels=dag.HARD_LEVELS,
        steps=True,
        generated=dag.queries,
        chance=_of_dag,
    ),
    "dag_long": TaskSpec("lab: dag, held out, levels 9 and 10", hard_levels=dag.LONGER, steps=True, generated=dag.longer, chance=_of_dag),
    "dag_joined": TaskSpec("lab: dag, held out, two runs joined", hard_levels=(5, 6), steps=True, generated=dag.joined, chance=_of_dag),
    "dag_spare": TaskSpec(
        "lab: dag, held out, a run that is not needed", hard_levels=(6, 7), steps=True, generated=dag.with_spare, chance=_of_dag
    ),
    "multiply": TaskSpec(
        "lab: long multiplication with several right schemes, levels 1 to 9",
        hard_levels=multiply.HARD_LEVELS,
        steps=True,
        generated=multiply.queries,
        chance=multiply.chance,
    ),
    "multiply_long": TaskSpec(
        "lab: multiply, held out, levels 10 and 11",
        hard_levels=multiply.LONGER,
        steps=True,
        generated=multiply.longer,
        chance=multiply.chance,
    ),
    "gsm_symbolic": TaskSpec(
        "lab: word problems drawn from templates, levels 1 to 7 by calculations; needs the extra `lab`",
        hard_levels=gsm_symbolic.HARD_LEVELS,
        steps=True,
        generated=gsm_symbolic.queries,
    ),
}


def checks_steps(name: str) -> bool:
    """Whether the checker of a built-in task says if the steps of a rationale hold (`accept: steps` needs that).

    It says nothing (None) where no step can be checked; such a response does not count under `accept: steps`.
    """
    return name in TASKS and TASKS[name].steps


from gsi.tasks.data import TaskData, from_queries, load  # noqa: E402  (needs TASKS)
from gsi.tasks.golds import Problem, check_golds  # noqa: E402
from gsi.tasks.mixture import mix, split_validation  # noqa: E402

__all__ = [
    "TASKS", "Problem", "TaskData", "TaskSpec", "check_golds", "checks_steps", "from_queries", "last_boxed", "load", "mix", "split_validation",
]  # fmt: skip
