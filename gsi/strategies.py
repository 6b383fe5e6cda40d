"""Strategies by name: a strategy is an allocation, a guidance and how many extra attempts they may spend.

The six of the paper (arXiv 2411.00750, with the settings of its released code). Either half can be set apart in
the config (`allocation.kind`, `guidance.kind`), and every number under `sample`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Strategy:
    allocation: str
    guidance: str
    max_extra: int


STRATEGIES: dict[str, Strategy] = {
    "vanilla": Strategy("fixed", "none", 0),
    "brute_force": Strategy("quota", "none", 128),
    "answer_driven": Strategy("quota", "answer_driven", 8),
    "rationale_driven": Strategy("quota", "rationale_driven", 8),
    "interactive": Strategy("quota", "interactive", 8),
    "state_reset": Strategy("quota", "state_reset", 8),
}
