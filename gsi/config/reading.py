"""From a YAML file and `a.b=c` overrides to a config, or to an error that says where it is, what is allowed and what was meant."""

from __future__ import annotations

import os
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from gsi.config.engines import Engine
from gsi.config.section import ConfigError, Section, nearest
from gsi.config.tree import Config

STORED = 2**63  # what SQLite and Parquet hold


def load_config(source: str | Path | Mapping[str, Any], overrides: Sequence[str] = ()) -> Config:
    """Reads a YAML file (or takes a mapping), applies `a.b=c` overrides and checks everything.

    Values of overrides are YAML: `sample.k=4`, `train.from=last`, `tasks.0.path=x.jsonl`, `warm_start=null`.
    Raises ConfigError.
    """
    if isinstance(source, Mapping):
        data, name = dict(source), "config"
    elif not isinstance(source, str | os.PathLike):
        raise ConfigError(f"config: expected the path of a YAML file or a mapping of keys to values, found {type(source).__name__}")
    else:
        name = str(source)
        try:
            data = yaml.safe_load(Path(source).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ConfigError(f"{name}: no such file") from None
        except (OSError, UnicodeDecodeError) as e:
            raise ConfigError(f"{name}: cannot be read: {e}") from None
        except yaml.YAMLError as e:
            raise ConfigError(f"{name}: not valid YAML: {e}") from None
        if not isinstance(data, dict):
            raise ConfigError(f"{name}: expected a mapping of keys to values, found {type(data).__name__}")
    for item in overrides:
        _override(data, item)
    check_data(data, name)
    try:
        return Config.model_validate(data)
    except ValidationError as e:
        raise ConfigError("\n".join(f"{name}: {explain(err)}" for err in e.errors())) from None


def check_data(data: Any, name: str) -> None:
    """Raises ConfigError for a mapping or list that holds itself, as no walk through it would end, and for texts and numbers that cannot be stored."""
    for path, part, holds_itself in _walk(data, "", frozenset(), set()):
        if holds_itself:
            raise ConfigError(f"{name}: {path} holds itself (a YAML alias inside its own anchor); write it out")
        if isinstance(part, str) and any("\ud800" <= c <= "\udfff" for c in part):
            raise ConfigError(f"{name}: {path} holds half of a surrogate pair, which is no text and cannot be stored; replace it")
        if isinstance(part, int) and not -STORED <= part < STORED:
            raise ConfigError(f"{name}: {path} is a whole number beyond 64 bits, which cannot be stored; make it smaller")


def _walk(value: Any, path: str, above: frozenset[int], seen: set[int]) -> Iterator[tuple[str, Any, bool]]:
    """(path, value, whether it holds itself) of everything below; what stands in several places comes once."""
    if not isinstance(value, Mapping | list | tuple) or id(value) in seen:
        return
    above |= {id(value)}
    for key, part in value.items() if isinstance(value, Mapping) else enumerate(value):
        deeper = f"{path}.{key}" if path else str(key)
        yield deeper, part, id(part) in above
        yield from _walk(part, deeper, above, seen)
    seen.add(id(value))


def _override(data: dict[str, Any], item: str) -> None:
    path, eq, raw = item.partition("=")
    if not eq or not path:
        raise ConfigError(f"override {item!r}: expected key=value, for example sample.k=4")
    try:
        value = yaml.safe_load(raw)
    except yaml.YAMLError as e:
        raise ConfigError(f"override {item!r}: the value is not valid YAML: {e}") from None
    node: Any = data
    *parents, last = path.split(".")
    for part in parents:
        if isinstance(node, list):
            node = node[_index(node, part, item)]
            continue
        if node.get(part) is None:
            node[part] = {}
        elif isinstance(node[part], Mapping):
            node[part] = dict(node[part])
        elif isinstance(node[part], Sequence) and not isinstance(node[part], str):
            node[part] = [dict(x) if isinstance(x, Mapping) else x for x in node[part]]
        node = node[part]
        if not isinstance(node, dict | list):
            raise ConfigError(f"override {item!r}: {part!r} holds {node!r}, not a section")
    if isinstance(node, list):
        node[_index(node, last, item)] = value
    else:
        node[last] = value


def _index(node: list[Any], part: str, item: str) -> int:
    if not part.isdigit() or int(part) >= len(node):
        raise ConfigError(f"override {item!r}: {part!r} is no index of a list of {len(node)}")
    return int(part)


def explain(error: Any, root: type[BaseModel] | None = None) -> str:
    """One line for one pydantic error: key, what is wrong, what is allowed."""
    loc = [p for p in error["loc"] if p not in ("transformers", "vllm", "openai", "scripted", "ray")]  # tags of the engine union
    where = ".".join(str(p) for p in loc)
    if error["type"] == "extra_forbidden":
        known = _keys_at(root or Config, list(error["loc"][:-1]))
        others = [k.model_fields["kind"].default for k in typing.get_args(typing.get_args(Engine)[0]) if loc[-1] in k.model_fields]
        having = f"; engine {' and '.join(others)} has it" if loc[0] == "engine" and others else ""
        return f"unknown key {where!r}{nearest(str(loc[-1]), known)}{having}; known here: {', '.join(known)}"
    if error["type"] == "missing":
        return f"missing key {where!r}"
    if error["type"] == "value_error":
        return (f"{where}: " if where else "") + str(error["ctx"]["error"])
    return f"{where}: {error['msg'][0].lower()}{error['msg'][1:]}, got {error['input']!r}"


def _keys_at(model: Any, path: list[Any]) -> list[str]:
    """The keys that the section at `path` knows (for messages)."""
    sections = [model]
    for part in path:
        found = []
        for section in sections:
            for name, info in section.model_fields.items():
                if part in (name, info.alias):
                    found += _sections_in(info.annotation)
        if found:
            sections = [s for s in found if s.model_fields] or sections
        else:  # a list index or a union tag
            tagged = [s for s in sections if "kind" in s.model_fields and s.model_fields["kind"].default == part]
            sections = tagged or sections
    return sorted({info.alias or name for s in sections for name, info in s.model_fields.items()})


def _sections_in(annotation: Any) -> list[Any]:
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias) and issubclass(annotation, Section):
        return [annotation]
    return [s for arg in typing.get_args(annotation) for s in _sections_in(arg)]
