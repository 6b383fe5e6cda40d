"""How a model is spread over processes: layouts by name, one YAML file each beside this one, or a file of your own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from gsi.types import GsiError

LAYOUTS = ("single", "ddp", "fsdp2", "zero2", "zero3")


def read_layout(settings: dict[str, Any]) -> dict[str, Any]:
    """The layout of `train.parallel`: {} for plain DDP, `fsdp: {...}` or `deepspeed: {...}`. Raises GsiError for a file that is none."""
    name = settings["parallel"]
    path = Path(__file__).parent / "layouts" / f"{name}.yaml" if name in LAYOUTS else Path(name)
    try:
        layout = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, yaml.YAMLError) as e:
        raise GsiError(f"train.parallel: {name!r} is neither one of {', '.join(LAYOUTS)} nor a YAML file that can be read: {e}") from None
    if not isinstance(layout, dict) or set(layout) - {"fsdp", "deepspeed"}:
        raise GsiError(
            f"train.parallel: {name!r} must hold `fsdp:` (fields of transformers' DistributedConfig) or `deepspeed:` (its configuration)"
        )
    return {key: value or {} for key, value in layout.items()}
