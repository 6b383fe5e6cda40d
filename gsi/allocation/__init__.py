"""Who gets the next attempt: one small file per policy, joined by name here."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gsi.allocation.bayes import Bayes
from gsi.allocation.belief import Beta, beliefs, plain_counts
from gsi.allocation.fixed import Fixed
from gsi.allocation.prop2diff import Prop2Diff
from gsi.allocation.quota import Quota
from gsi.allocation.stepwise import Stepwise
from gsi.allocation.until import Until
from gsi.config import Config
from gsi.types import Allocation, GsiError, Past, Query


@dataclass(frozen=True)
class Memory:
    """What earlier iterations say, read when a policy first asks for it and then frozen."""

    past: Callable[[], Past]
    queries: Sequence[Query]
    iteration: int  # the ledger's, sampled now

    def failed(self) -> Callable[[], dict[str, float]]:
        """Query id -> failure rate of its plain attempts."""
        return functools.cache(
            lambda: {q: wrong / (right + wrong) for q, (right, wrong) in plain_counts(self.past(), self.iteration).items()}
        )

    def beliefs(self, discount: float) -> Callable[[], dict[str, Beta]]:
        return functools.cache(lambda: beliefs(self.queries, plain_counts(self.past(), self.iteration, discount)))


def _until(c: Config, helped: bool) -> Until:
    return Until(c.sample.k, c.sample.wanted, c.sample.max_extra or 0, helped, c.accept)


def _bayes(c: Config, memory: Memory) -> Bayes:
    a = c.allocation
    return Bayes(
        c.sample.k, c.sample.wanted, c.sample.max_extra or 0, c.guidance.kind != "none", memory.beliefs(a.discount), memory.iteration, c.seed,
        a.hopeless, a.saturated, a.skip, a.explore, c.accept,
    )  # fmt: skip


ALLOCATIONS: dict[str, Callable[[Config, Memory], Allocation]] = {
    "none": lambda c, m: Fixed(0),
    "fixed": lambda c, m: Fixed(c.sample.k),
    "stepwise": lambda c, m: Stepwise(
        c.sample.k, c.sample.wanted, c.sample.max_extra or 0, c.accept, c.allocation.group, c.allocation.probes, m.past()
    ),
    "quota": lambda c, m: Quota(c.sample.k, c.sample.wanted, c.sample.max_extra or 0, c.accept),
    "floor": lambda c, m: _until(c, True),
    "dart_uniform": lambda c, m: _until(c, False),
    "dart_prop2diff": lambda c, m: Prop2Diff(c.sample.k, c.sample.wanted, c.sample.max_extra or 0, m.failed(), c.accept),
    "bayes": _bayes,
}


def build(config: Config, past: Callable[[], Past] = dict, queries: Sequence[Query] = (), iteration: int = 0) -> Allocation:
    """The allocation of a run.

    Args:
        past: reads what earlier iterations tried, for policies that remember.
        queries: all that may be sampled, with their levels.
        iteration: the ledger's iteration that is sampled.

    Raises GsiError for a kind that is not in `ALLOCATIONS`.
    """
    kind = config.allocation.kind
    if kind not in ALLOCATIONS:
        raise GsiError(f"allocation.kind: unknown {kind!r}; there are {', '.join(ALLOCATIONS)}")
    return ALLOCATIONS[kind](config, Memory(past, queries, iteration))


def bounds(config: Config) -> tuple[int, int]:
    """(fewest, most) attempts that a query of this run may get in an iteration."""
    s, kind = config.sample, config.allocation.kind
    most = s.k + (s.max_extra or 0)
    return {
        "none": (0, 0),
        "fixed": (s.k, s.k),
        "quota": (s.k, most),
        "stepwise": (min(config.allocation.probes, s.k), most),
        "floor": (min(s.wanted, most), most),
        "dart_uniform": (min(s.wanted, most), most),
        "dart_prop2diff": (min(1, s.wanted), most),
        "bayes": (0 if config.allocation.skip else min(s.wanted, config.allocation.explore), most),
    }[kind or "fixed"]
