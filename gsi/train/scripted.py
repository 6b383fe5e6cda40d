"""A trainer that is a function, for tests and dry runs of a whole loop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gsi.types import TrainJob


@dataclass(frozen=True)
class ScriptedTrainer:
    """`function(job)` writes job.output and returns figures, or None."""

    function: Callable[[TrainJob], dict[str, float] | None]

    def train(self, job: TrainJob, progress: Any = None, say: Any = None) -> dict[str, float]:
        return self.function(job) or {}
