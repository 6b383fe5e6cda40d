"""The tracker's run of a run folder: where training's figures go, and the loop's own, once per iteration."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gsi.train import tracking

if TYPE_CHECKING:
    from gsi.context import Context


def where(ctx: Context, n: int) -> dict[str, Any] | None:
    """Settings of gsi.train.tracking for iteration n, behind the steps of the iterations before; None = no tracker."""
    kind, state = ctx.config.report_to, ctx.folder.state.setdefault("tracking", {})
    if kind == "none":
        return None
    if kind not in state:
        state[kind] = {"id": tracking.new_identity(kind, ctx.folder.path), "logged": []}
        ctx.folder.save()
    offset = sum(int(ctx.folder.info(m, "train").get("figure/steps", 0)) for m in range(n))
    return tracking.settings(kind, ctx.folder.path, state[kind]["id"], offset)


def log_iteration(ctx: Context, n: int, lines: Sequence[dict[str, Any]]) -> None:
    """Logs iteration n's line of metrics.jsonl, if that has not been done."""
    place, line = where(ctx, n + 1), next((x for x in lines if x["iteration"] == n), None)
    if place and line and n not in (logged := ctx.folder.state["tracking"][place["kind"]]["logged"]):
        with tempfile.TemporaryDirectory() as scratch:
            tracking.log(place, line, Path(scratch))
        logged.append(n)
        ctx.folder.save()
