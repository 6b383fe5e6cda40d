"""What a crash or a disk did to a run folder: refused where something is damaged, removed where it is only unfinished."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gsi import checksums
from gsi.ledger import Ledger, unborn
from gsi.runfolder.state import sums_of
from gsi.types import GsiError


def refuse_damage(path: Path, state: Mapping[str, Any]) -> None:
    """What a run compares when it opens. Raises GsiError naming every damaged file."""
    bad = checksums.compare(path, sums_of(state), checksums.SMALL)
    ledger = path / "ledger.sqlite"
    if not ledger.exists() or unborn(ledger):
        if any(info.get("ledger_rows") for info in state["stages"].values()):
            bad.append(f"{ledger}: {'holds no tables' if ledger.exists() else 'is missing'}")
    elif ledger.stat().st_size <= 4 * checksums.SMALL:
        opened = Ledger(ledger, read_only=True)
        bad += opened.problems()
        opened.close()
    if bad:
        raise GsiError(damage_text(path, bad))


def damage_text(path: Path, bad: list[str]) -> str:
    more = [f"... and {len(bad) - 10} more"] if len(bad) > 10 else []
    return "\n".join([*bad[:10], *more, f"Nothing of it is used. `gsi doctor {path}` repairs what can be repaired and keeps the rest"])


def remove_leftovers(path: Path) -> None:
    """Removes what a killed process was writing under another name: the stages write it anew."""
    for item in [*path.glob("*.part"), *path.glob("iter_*/*.part"), *path.glob("iter_*/model.part*")]:
        if item.is_dir():
            shutil.rmtree(item)
        else:
            item.unlink(missing_ok=True)
