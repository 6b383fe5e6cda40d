"""Who gets the next attempt: one small file per policy, joined by name here."""

from __future__ import annotations

from collections.abc import Callable

from gsi.allocation.fixed import Fixed
from gsi.allocation.quota import Quota
from gsi.allocation.stepwise import Stepwise
from gsi.config import Config
from gsi.types import Allocation, GsiError, Past

ALLOCATIONS: dict[str, Callable[[Config, Callable[[], Past]], Allocation]] = {
    "none": lambda c, past: Fixed(0),
    "fixed": lambda c, past: Fixed(c.sample.k),
    "stepwise": lambda c, past: Stepwise(
        c.sample.k, c.sample.wanted, c.sample.max_extra or 0, c.accept, c.allocation.group, c.allocation.probes, past()
    ),
    "quota": lambda c, past: Quota(c.sample.k, c.sample.wanted, c.sample.max_extra or 0, c.accept),
}


def build(config: Config, past: Callable[[], Past] = dict) -> Allocation:
    """The allocation of a run. `past()` reads what earlier iterations tried, for policies that remember. Raises GsiError for a kind that is not in `ALLOCATIONS`."""
    kind = config.allocation.kind
    if kind not in ALLOCATIONS:
        raise GsiError(f"allocation.kind: unknown {kind!r}; there are {', '.join(ALLOCATIONS)}")
    return ALLOCATIONS[kind](config, past)
