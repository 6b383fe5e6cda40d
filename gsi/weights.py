"""The weights of a model as its files have them, without loading it."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

INDEX = "model.safetensors.index.json"
_EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "embed_in.weight")


def files(folder: Path) -> list[Path]:
    """The safetensors files that transformers loads; others may lie beside them (Mistral's consolidated.safetensors)."""
    if (folder / "model.safetensors").exists():
        return [folder / "model.safetensors"]
    if (folder / INDEX).exists():
        named = set(json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values())
        return sorted(folder / name for name in named if (folder / name).exists())
    return sorted(folder.glob("*.safetensors"))


def tensors(folder: Path) -> dict[str, tuple[Path, tuple[int, ...]]]:
    """File and shape of every tensor, by the headers of the files."""
    found: dict[str, tuple[Path, tuple[int, ...]]] = {}
    for path in files(folder):
        with path.open("rb") as f:
            header = json.loads(f.read(struct.unpack("<Q", f.read(8))[0]))
        found |= {name: (path, tuple(tensor["shape"])) for name, tensor in header.items() if name != "__metadata__"}
    return found


def count_parameters(model: str) -> int:
    """Parameters of a directory, or of a hub model that is in the local cache; 0 = unknown."""
    folder = Path(model)
    if not folder.is_dir():
        from huggingface_hub import snapshot_download

        try:
            folder = Path(snapshot_download(model, local_files_only=True, allow_patterns="*.safetensors"))
        except (OSError, ValueError):  # not in the cache, or no name of the hub
            return 0
    shapes = {name: shape for name, (_, shape) in tensors(folder).items() if not _is_buffer(name, shape)}
    if _tied(folder) and any(name.endswith(_EMBEDDINGS) for name in shapes):
        shapes.pop("lm_head.weight", None)  # stored once more
    return sum(map(math.prod, shapes.values()))


def _is_buffer(name: str, shape: tuple[int, ...]) -> bool:
    """Tables that older files carry: rotary frequencies, causal masks of shape (1, 1, context, context)."""
    return name.endswith(("inv_freq", "masked_bias")) or (len(shape) == 4 and name.endswith((".attn.bias", "attention.bias")))


def _tied(folder: Path) -> bool:
    path = folder / "config.json"
    config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return bool(config.get("tie_word_embeddings", config.get("text_config", {}).get("tie_word_embeddings")))
