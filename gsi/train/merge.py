"""Weights between two models: `gsi merge A B --weight 0.5 --output DIR`, tensor by tensor, without building either model."""

from __future__ import annotations

import shutil
from pathlib import Path

from gsi.types import GsiError


def merge(a: str | Path, b: str | Path, weight: float, output: str | Path) -> int:
    """Writes (1 - weight) x a + weight x b to `output`, with a's config, tokenizer and dtypes; returns the number of tensors mixed.

    Computed in float32. Integer tensors must be equal. Raises GsiError for models of different shape and an output that exists.
    """
    from safetensors import safe_open
    from safetensors.torch import save_file

    if not 0 <= weight <= 1:
        raise GsiError(f"merge: weight {weight} is not between 0 and 1")
    first, second, target = _folder(a), _folder(b), Path(output)
    if target.exists():
        raise GsiError(f"merge: {target} exists; choose another --output")
    where = {name: path for path in sorted(second.glob("*.safetensors")) for name in _names(path)}
    files = sorted(first.glob("*.safetensors"))
    ours = {name for path in files for name in _names(path)}
    if ours != set(where):
        odd = sorted(ours ^ set(where))
        raise GsiError(f"merge: {a} and {b} are not of the same architecture: {len(odd)} tensors are in one only, first {odd[0]}")
    part = target.with_name(target.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    for item in first.iterdir():
        if item.is_file() and item.suffix not in (".safetensors", ".bin", ".pt", ".pth"):
            shutil.copy2(item, part / item.name)
    for path in files:
        mixed = {}
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118 - no mapping
                x = file.get_tensor(name)
                with safe_open(where[name], "pt") as other:
                    y = other.get_tensor(name)
                if x.shape != y.shape:
                    raise GsiError(f"merge: {name} is {tuple(x.shape)} in {a} and {tuple(y.shape)} in {b}")
                if x.is_floating_point():
                    mixed[name] = ((1 - weight) * x.float() + weight * y.float()).to(x.dtype)
                elif x.equal(y):
                    mixed[name] = x
                else:
                    raise GsiError(f"merge: {name} holds {x.dtype} (quantized?) and differs; merge models stored in floating point")
            save_file(mixed, part / path.name, metadata=file.metadata() or {"format": "pt"})
    part.rename(target)
    return len(ours)


def _folder(model: str | Path) -> Path:
    """A directory with safetensors files, or a hub model in the local cache or from the hub."""
    folder = Path(model)
    if not folder.is_dir():
        from huggingface_hub import snapshot_download

        try:
            folder = Path(snapshot_download(str(model), allow_patterns=["*.safetensors", "*.json", "*.jinja", "*.model", "*.txt"]))
        except (OSError, ValueError) as e:
            raise GsiError(f"merge: {model} is neither a directory nor a model of the hub: {str(e).splitlines()[0]}") from e
    if not any(folder.glob("*.safetensors")):
        raise GsiError(f"merge: {model} has no safetensors files")
    return folder


def _names(path: Path) -> list[str]:
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        return list(file.keys())
