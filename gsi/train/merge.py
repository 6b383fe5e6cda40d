"""Weights between two models: `gsi merge A B --weight 0.5 --output DIR`, tensor by tensor, where the files allow it without building either."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from gsi import weights
from gsi.types import GsiError


def merge(a: str | Path, b: str | Path, weight: float, output: str | Path) -> int:
    """Writes (1 - weight) x a + weight x b to `output`, with a's config, tokenizer and dtypes; returns the number of tensors mixed.

    Computed in float32. Integer tensors must be equal. Raises GsiError for models of different shape and an output that exists.
    """
    if not 0 <= weight <= 1:
        raise GsiError(f"merge: weight {weight} is not between 0 and 1")
    target = Path(output)
    if target.exists():
        raise GsiError(f"merge: {target} exists; choose another --output")
    first, second, alike = _compare(a, b)
    part = target.with_name(target.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    mixed = (_mix_files if alike else _mix_loaded)(first, second, weight, part)
    for item in first.iterdir():
        if item.is_file() and item.suffix not in (".safetensors", ".bin", ".pt", ".pth") and (alike or item.name != weights.INDEX):
            shutil.copy2(item, part / item.name)
    part.rename(target)
    return mixed


def check(a: str | Path, b: str | Path) -> None:
    """Raises GsiError where a model trained from `a` could not be merged with `b`. No weights are read."""
    _compare(a, b)


def _compare(a: str | Path, b: str | Path) -> tuple[Path, Path, bool]:
    """Both folders, and whether their files name the same tensors. Raises GsiError for models of different shape.

    Files may differ where models do not: a tied head is stored or left out, names lack a prefix (GPT-2 on the hub), tables that are computed
    today are there. Then the models that transformers makes of the two configs are compared.
    """
    first, second = _folder(a), _folder(b)
    ours, theirs = ({name: shape for name, (_, shape) in weights.tensors(folder).items()} for folder in (first, second))
    alike = ours.keys() == theirs.keys()
    if not alike:
        ours, theirs = _built(first), _built(second)
    if odd := sorted(ours.keys() ^ theirs.keys()):
        raise GsiError(f"merge: {a} and {b} are not of the same architecture: {len(odd)} tensors are in one only, first {odd[0]}")
    for name, shape in ours.items():
        if shape != theirs[name]:
            raise GsiError(f"merge: {name} is {shape} in {a} and {theirs[name]} in {b}")
    return first, second, alike


def _mix_files(first: Path, second: Path, weight: float, output: Path) -> int:
    from safetensors import safe_open
    from safetensors.torch import save_file

    where, mixed = weights.tensors(second), 0
    for path in weights.files(first):
        tensors = {}
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118 - no mapping
                with safe_open(where[name][0], "pt") as other:
                    tensors[name] = _mix(name, file.get_tensor(name), other.get_tensor(name), weight)
            save_file(tensors, output / path.name, metadata=file.metadata() or {"format": "pt"})
        mixed += len(tensors)
    return mixed


def _mix_loaded(first: Path, second: Path, weight: float, output: Path) -> int:
    """As transformers loads the two, in the dtype of the first one's config, and as it writes them."""
    model = _load(first)
    ours, theirs = _distinct(model), _distinct(_load(second))
    for name, x in ours.items():
        x.copy_(_mix(name, x, theirs[name], weight))
    model.save_pretrained(output)
    return len(ours)


def _mix(name: str, x: Any, y: Any, weight: float) -> Any:
    if x.is_floating_point():
        return ((1 - weight) * x.float() + weight * y.float()).to(x.dtype)
    if x.equal(y):
        return x
    raise GsiError(f"merge: {name} holds {x.dtype} (quantized?) and differs; merge models stored in floating point")


def _load(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", use_safetensors=True, output_loading_info=True)
    except (OSError, ValueError) as e:
        raise GsiError(f"merge: {folder} cannot be loaded: {str(e).splitlines()[0]}") from e
    model, info = loaded
    if missing := sorted(info["missing_keys"]):
        raise GsiError(f"merge: {folder} lacks {len(missing)} tensors of its architecture, first {missing[0]}")
    return model


def _built(folder: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors that transformers makes by a model's config."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        with torch.device("meta"):
            empty = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
    except (OSError, ValueError) as e:
        raise GsiError(f"merge: {folder} cannot be loaded: {str(e).splitlines()[0]}") from e
    return {name: tuple(x.shape) for name, x in _distinct(empty).items()}


def _distinct(model: Any) -> dict[str, Any]:
    """Parameters and stored buffers, each tied one once."""
    tied = {name for name, _ in model.named_parameters(remove_duplicate=False)} - {name for name, _ in model.named_parameters()}
    return {name: x for name, x in model.state_dict().items() if name not in tied}


def _folder(model: str | Path) -> Path:
    """A directory with safetensors files, or a hub model in the local cache or from the hub."""
    folder = Path(model)
    if not folder.is_dir():
        from huggingface_hub import snapshot_download

        wanted = ["*.safetensors", "*.json", "*.jinja", "*.model", "*.txt"]
        try:
            folder = Path(snapshot_download(str(model), allow_patterns=wanted, ignore_patterns="consolidated*"))
        except (OSError, ValueError) as e:
            raise GsiError(f"merge: {model} is neither a directory nor a model of the hub: {str(e).splitlines()[0]}") from e
    if not weights.files(folder):
        raise GsiError(f"merge: {model} has no safetensors files")
    return folder
