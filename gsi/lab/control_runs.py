"""`gsi compare RUN --controls`: the control arms of a run, each a run of its own beside it, with the same model, data, seed and settings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from gsi.config import Config, load_config
from gsi.loop import run
from gsi.progress import Reporter
from gsi.strategies import CONTROLS
from gsi.types import GsiError


def control_configs(folder: Path) -> dict[str, Config]:
    """The config of every control arm of a finished run, in `RUN-controls/ARM`. Raises GsiError where `folder` is no run."""
    source = folder / "config.yaml"
    if not source.exists():
        raise GsiError(f"{folder}: no config.yaml in it; name the folder of a run")
    base = load_config(source)
    found = {}
    for name, strategy in CONTROLS.items():
        data: dict[str, Any] = base.dump() | {"strategy": name, "output_dir": str(folder.with_name(f"{folder.name}-controls") / name)}
        # what the run's own strategy filled in is the control's to fill in
        data["allocation"] = {"kind": None}
        data["guidance"] = data["guidance"] | {"kind": None, "sham": None}
        if strategy.sham and base.guidance.kind in ("answer_driven", "rationale_driven", "state_reset"):
            data["guidance"]["kind"] = base.guidance.kind
        data["sample"] = data["sample"] | {"max_extra": None}
        data["curate"] = data["curate"] | {
            "references": None,
            "verdicts": None,
            "match": None,
            "like": str(folder) if strategy.match else None,
        }
        data["control"] = not strategy.verdicts
        if strategy.allocation == "none":
            data["iterations"] = 1  # every iteration would train the base on the same rows
        found[name] = load_config(data)
    return found


def run_controls(folder: Path, say: Callable[[str], None], reporter: Reporter | None = None) -> list[Path]:
    """Runs the controls that are not finished yet; their folders. One that the data cannot serve is left out, and that is said."""
    folders = []
    configs = control_configs(folder)
    say(f"controls of {folder}: {', '.join(configs)}; each resumes where it was")
    for name, config in configs.items():
        try:
            folders.append(run(config, reporter=reporter).path)
        except GsiError as e:
            say(f"{name}: left out: {e}")
    return folders
