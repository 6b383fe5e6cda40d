"""`gsi schema`: the JSON schema of the config, with the comments beside the keys as descriptions, which an editor shows."""

from __future__ import annotations

import inspect
import io
import tokenize
from typing import Any

from pydantic import BaseModel

from gsi.config import Config


def schema() -> dict[str, Any]:
    found = Config.model_json_schema(by_alias=True)
    sections = {cls.__name__: cls for cls in _sections(Config)}
    for name, part in {"Config": found, **found.get("$defs", {})}.items():
        if name in sections:
            said = comments(sections[name])
            for key, entry in part.get("properties", {}).items():
                entry.pop("title", None)  # pydantic's: the key again
                if key in said:
                    entry["description"] = said[key]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **found, "title": "gsi config"}


def _sections(cls: type[BaseModel]) -> set[type[BaseModel]]:
    """The class and all that its fields are made of."""
    found: set[type[BaseModel]] = set()

    def walk(kind: Any) -> None:
        if isinstance(kind, type) and issubclass(kind, BaseModel) and kind not in found:
            found.add(kind)
            for field in kind.model_fields.values():
                walk(field.annotation)
        for part in getattr(kind, "__args__", ()):
            walk(part)

    walk(cls)
    return found


def comments(cls: type[BaseModel]) -> dict[str, str]:
    """key -> the comment on its lines in the source, or on the line above them."""
    import ast

    source = inspect.cleandoc("\n" + inspect.getsource(cls))
    texts = {
        token.start[0]: token.string.lstrip("# ")
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT and "fmt:" not in token.string and "type:" not in token.string
    }
    lines, found = source.splitlines(), {}
    (node,) = ast.parse(source).body
    assert isinstance(node, ast.ClassDef)
    for item in node.body:
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
            own = [texts[i] for i in range(item.lineno, (item.end_lineno or item.lineno) + 1) if i in texts]
            if not own and lines[item.lineno - 2].strip().startswith("#"):
                own = [texts[item.lineno - 1]]
            field = cls.model_fields.get(item.target.id)
            if own and field is not None:
                found[field.alias or item.target.id] = " ".join(own)
    return found
