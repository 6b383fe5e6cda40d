"""Strategies by name: what is sampled and guided, what is trained on, and what an arm may see of the data.

The six of the paper (arXiv 2411.00750, with the settings of its released code), then the controls without which they mean
little. Any part can be set apart in the config (`allocation.kind`, `guidance.kind`, `curate.references`, ...), and every
number under `sample`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Strategy:
    allocation: str
    guidance: str = "none"
    max_extra: int = 0
    sees: str = "nothing"  # nothing | answer | rationale | teacher | first wrong step (the checker's; all arms are graded by it)
    references: str = "none"  # rows made from references: all | short (queries under quota) | prefixes (what state reset hands over)
    match: str | None = None  # rows are brought to another run's: levels (repeated to its histogram) | rows (drawn to its number)
    sham: bool = False  # hints are made from another query
    asks_itself: bool = False  # `teacher: {kind: self}` where the config names no teacher
    verdicts: bool = True  # False: as many rows per query as were accepted, drawn from all attempts
    max_extra_programs: int | None = None  # where every task's responses are programs; None = the same


PAPER: dict[str, Strategy] = {
    "vanilla": Strategy("fixed"),
    "brute_force": Strategy("quota", max_extra=128, max_extra_programs=32),
    "answer_driven": Strategy("quota", "answer_driven", 8, "answer"),
    "rationale_driven": Strategy("quota", "rationale_driven", 8, "rationale"),
    "interactive": Strategy("quota", "interactive", 8, "teacher"),
    "state_reset": Strategy("quota", "state_reset", 8, "rationale"),
}

CONTROLS: dict[str, Strategy] = {
    "sft_refs_all": Strategy("none", sees="rationale", references="all"),
    "sft_refs_hard": Strategy("fixed", sees="rationale", references="short"),
    "refs_truncated": Strategy("fixed", sees="rationale", references="prefixes"),
    "repeat_hard": Strategy("fixed", match="levels"),
    "matched_random": Strategy("quota", max_extra=128, match="rows"),
    "random_kept": Strategy("fixed", verdicts=False),
    "sham_hint": Strategy("quota", "state_reset", 8, "rationale", sham=True),
}

OURS: dict[str, Strategy] = {  # docs/guidance.md, docs/curation.md
    "adaptive": Strategy("stepwise", "adaptive", 8, "rationale"),
    "ladder": Strategy("stepwise", "ladder", 8, "rationale", asks_itself=True),
    "own_prefix": Strategy("stepwise", "own_prefix", 24, "first wrong step"),  # three times k, as in studies/search.yaml
    "own_correction": Strategy("quota", "own_correction", 8, "answer", asks_itself=True),
    "dart_uniform": Strategy("dart_uniform", max_extra=128),  # arXiv 2407.13690, as is the next; the cap is brute_force's
    "dart_prop2diff": Strategy("dart_prop2diff", max_extra=128),
    "bayes": Strategy("bayes", "state_reset", 8, "rationale"),
}

STRATEGIES = PAPER | OURS | CONTROLS
