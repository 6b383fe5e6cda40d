"""The size of a model from its files, without loading it."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path


def count_parameters(model: str) -> int:
    """Parameters by the headers of the safetensors files of a directory, or of a hub model that is in the local cache; 0 = unknown."""
    folder = Path(model)
    if not folder.is_dir():
        from huggingface_hub import snapshot_download

        try:
            folder = Path(snapshot_download(model, local_files_only=True, allow_patterns="*.safetensors"))
        except (OSError, ValueError):  # not in the cache, or no name of the hub
            return 0
    total = 0
    for path in folder.glob("*.safetensors"):
        with path.open("rb") as f:
            header = json.loads(f.read(struct.unpack("<Q", f.read(8))[0]))
        total += sum(math.prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")
    return total
