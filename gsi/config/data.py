"""Config of the questions: training and test tasks, how answers are graded, what is evaluated."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from gsi.config.section import Section


class Columns(Section):
    """Which column of the data holds what; `a.b` is a field inside a column. Left out: our own name, else a built-in task's, else TRL's."""

    id: str = "id"
    question: str = "question"
    answer: str = "answer"
    rationale: str = "rationale"
    level: str = "level"
    options: str = "options"


class Task(Section):
    name: str  # gsm8k, svamp, math, math500, theoremqa, aqua, mathqa, auto, a lab task (chain), or a name of your own
    path: str | None = None  # file: .jsonl, .json, .csv, .tsv (.gz too) or .parquet
    hub: str | None = None  # data set id on the Hugging Face hub, `id` or `id:configuration`
    split: str = "train"
    columns: Columns = Columns()
    limit: Annotated[int, Field(ge=0)] = 0  # only the first N rows; 0 = all
    weight: Annotated[float, Field(gt=0)] | None = None  # share in a mixture, as 2 beside 1; null = every question
    check: str | None = None  # own checker `module:function` or `file.py:function`: (response, query) -> bool or Verdict; one per name
    programs: bool = False  # responses are Python programs (program-of-thought), run isolated
    marked: bool = False  # only a marked answer counts (`#### 7`, a box, `The answer is 7`): the strictest reading of a built-in task
    shuffle_options: bool = False  # multiple choice: attempts show the options in orders of their own (training and evaluation never do)
    hard_levels: tuple[int, ...] = ()  # levels that count as hard, one list per name; empty = the task's own declaration
    args: dict[str, Any] = Field({})  # of a generated (lab) task, e.g. {per_level: 100, seed: 1}


class Strata(Section):
    """Tasks without levels get five, by how often the initial model solves a query; the last counts as hard."""

    draws: Annotated[int, Field(ge=0)] = 0  # attempts per query of training, validation and test sets, used for nothing else; 0 = no strata


class Grading(Section):
    workers: Annotated[int, Field(ge=1)] = 1  # killable processes for answers that need symbolic mathematics
    timeout: Annotated[float, Field(gt=0)] = 5.0  # seconds per response
    actors: Annotated[int, Field(ge=0)] | None = (
        None  # engine ray: how many actors grade, each with `workers`; null = one per node, 0 = the driver
    )
    allow_unisolated_programs: bool = False  # run model-written programs without a sandbox where none is installed


class Evaluate(Section):
    tasks: list[Task] = Field([])  # test sets: evaluated at the end only, on the final and on the chosen iteration
    overlap: Literal["leave_out", "count"] = "leave_out"  # test questions that are also training questions: left out, or only counted
    validation: Annotated[float, Field(ge=0)] = 0.05  # cut from the training queries; below 1 a share, else a number
    trajectory: bool = False  # evaluate the test sets after every iteration, for studies; nothing is ever chosen on them
    pass_at_k: tuple[Annotated[int, Field(ge=1)], ...] = (1,)  # 1 = greedy accuracy; more = also draws max(k) samples, for pass@k and maj@k
    avg_at_k: Annotated[int, Field(ge=0)] = 0  # accuracy = mean over k samples, for models that should not decode greedily; 0 = greedy
    max_new_tokens: Annotated[int, Field(ge=1)] | None = None  # null = sample.max_new_tokens
    perplexity_rows: Annotated[int, Field(ge=0)] = 128  # references, and rows of each training set, scored under the base model; 0 = none
