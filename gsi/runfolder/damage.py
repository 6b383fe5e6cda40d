"""What a crash or a disk did to a run folder: refused where something is damaged, removed where it is only unfinished."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gsi import checksums
from gsi.ledger import STRATA_SPLITS, Ledger, unborn
from gsi.runfolder.state import sums_of
from gsi.types import GsiError


def refuse_damage(path: Path, state: Mapping[str, Any]) -> None:
    """What a run compares when it opens. Raises GsiError naming every damaged file."""
    bad = checksums.compare(path, sums_of(state), checksums.SMALL)
    ledger = path / "ledger.sqlite"
    if not ledger.exists() or unborn(ledger):
        if any(info.get("ledger_rows") for info in state["stages"].values()):
            bad.append(f"{ledger}: {'holds no tables' if ledger.exists() else 'is missing'}")
    else:
        opened = Ledger(ledger, read_only=True)
        wrong = opened.problems() if ledger.stat().st_size <= 4 * checksums.SMALL else []
        lost = {} if wrong else lost_rows(opened, state)
        opened.close()
        bad += wrong + [f"{ledger}: {stage}: {lost} of {all_} rows are lost" for stage, (lost, all_) in lost.items()]
    if bad:
        raise GsiError(damage_text(path, bad))


def lost_rows(ledger: Ledger, state: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """(rows that the ledger lacks, rows that there were) of the stages that are done, and of `strata`, as far as any are missing."""
    counts: dict[str, tuple[int, int]] = {}  # rows there, rows there were
    for key, info in state["stages"].items():
        if (rows := info.get("ledger_rows")) is None:
            continue
        if key == "test":
            counts[key] = sum(ledger.count(int(n), "test") for n in rows), sum(rows.values())
        else:
            n, stage = int(key.split("/")[0][5:]), key.split("/")[1]
            counts[key] = ledger.count(n - 1) if stage == "sample" else ledger.count(n, "validation"), rows
    if (rows := state.get("strata", {}).get("ledger_rows")) is not None:
        counts["strata"] = sum(ledger.count(0, split) for split in STRATA_SPLITS), rows
    return {key: (wanted - there, wanted) for key, (there, wanted) in counts.items() if there < wanted}


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
