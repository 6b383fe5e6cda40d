"""What the documentation site makes from the code when it is built: the pages of commands and config keys; and links out of docs/.

Loaded by mkdocs (mkdocs.yml). A link that leads nowhere in the repository stops the build.
"""

from __future__ import annotations

import argparse
import ast
import html
import io
import re
import tokenize
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent
LISTED = re.compile(r"[\w-]+\.md")


MADE = {"config.md", "commands.md"}


def on_config(config: Any) -> Any:
    """The nav without pages that are not there; pages that it does not name come last, under the title they have."""
    there = {p.name for p in Path(config.docs_dir).glob("*.md")}
    more = sorted(there - set(LISTED.findall(str(config.nav))))
    config.nav = _present(config.nav, there | MADE) + ([{"More": more}] if more else [])
    return config


def _present(entries: list[Any], there: set[str]) -> list[Any]:
    kept: list[Any] = []
    for entry in entries:
        if isinstance(entry, str):
            kept += [entry] if entry in there else []
            continue
        for title, target in entry.items():
            if isinstance(target, list):
                kept.append({title: _present(target, there)})
            elif target in there:
                kept.append({title: target})
    return kept


def on_files(files: Files, config: Any) -> Files:
    files.append(File.generated(config, "config.md", content=config_page()))
    files.append(File.generated(config, "commands.md", content=commands_page()))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """A link to a file outside of docs/ becomes its text and its path in the repository, as the site does not hold it."""

    def outside(match: re.Match[str]) -> str:
        text, target = match.groups()
        path = (ROOT / "docs" / target.partition("#")[0]).resolve()
        if not path.exists() or ROOT not in path.parents:
            raise PluginError(f"docs/{page.file.src_uri}: the link to {target} leads nowhere")
        name = str(path.relative_to(ROOT))
        return f"`{name}`" if text.strip("`/") in name else f"{text} (`{name}`)"

    return re.sub(r"\[([^\]\n]+)\]\((\.\./[^)\s]+)\)", outside, markdown)


# --------------------------------------------------------------------------------------- config keys


SECTIONS = ("tree", "data", "sampling", "engines", "training", "cost")  # the files of gsi/config/ that hold keys, in the page's order


def config_page() -> str:
    """Every section of gsi/config/ as a table: key, type, default, and the comment beside it."""
    parts = [
        "# Config keys",
        "",
        "Made from `gsi/config/` when this site is built. Defaults are the paper's settings. `gsi schema` prints the same as a JSON schema, "
        "with which an editor completes and checks a config.",
        "",
    ]
    for name in SECTIONS:
        parts += _tables((ROOT / "gsi" / "config" / f"{name}.py").read_text(encoding="utf-8"))
    return "\n".join(parts)


def _tables(source: str) -> list[str]:
    """The sections of one file."""
    comments = {
        token.start[0]: token.string.lstrip("# ")
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT and "fmt:" not in token.string
    }
    lines = source.splitlines()
    parts = []
    for node in ast.parse(source).body:
        if not isinstance(node, ast.ClassDef):
            continue
        parts += [f"## {node.name}" if node.name != "Config" else "## Top level", "", ast.get_docstring(node) or "", ""]
        parts += ["| key | type | default | what |", "|---|---|---|---|"]
        for item in node.body:
            if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
                own = [comments[i] for i in range(item.lineno, (item.end_lineno or item.lineno) + 1) if i in comments]
                above = item.lineno - 1
                if not own and lines[above - 1].strip().startswith("#"):
                    own = [comments[above]]
                key, default = _key_and_default(item)
                cells = (f"`{key}`", _code(_type(ast.unparse(item.annotation))), _code(default), html.escape(" ".join(own), quote=False))
                parts.append("| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |")
        parts.append("")
    return parts


def _key_and_default(item: ast.AnnAssign) -> tuple[str, str]:
    assert isinstance(item.target, ast.Name)
    key, value = item.target.id, item.value
    if value is None:
        return key, "required"
    if isinstance(value, ast.Call) and getattr(value.func, "id", "") == "Field":
        for keyword in value.keywords:
            if keyword.arg == "alias" and isinstance(keyword.value, ast.Constant):
                key = str(keyword.value.value)
        return key, ast.unparse(value.args[0]) if value.args else "its own defaults"
    if isinstance(value, ast.Call):
        return key, "its own defaults"
    text = ast.unparse(value)
    return key, {"None": "null", "True": "true", "False": "false"}.get(text, text)


def _type(text: str) -> str:
    """`Annotated[int, Field(ge=1)]` -> `int, ge=1`; `Literal['a', 'b']` -> `'a' | 'b'`."""
    text = re.sub(r"Annotated\[(.+?), Field\((.*?)\)\]", r"\1, \2", text)
    return re.sub(r"Literal\[([^\]]*)\]", lambda m: m.group(1).replace(", ", " | "), text)


def _code(text: str) -> str:
    text = text.replace(" | None", " or null").replace(" | ", " or ")  # a bar would end the table's cell
    return f"`{text}`" if text not in ("required", "its own defaults") else text


# --------------------------------------------------------------------------------------- commands


def commands_page() -> str:
    """Every command with its arguments, from the parser itself."""
    from gsi.cli import make_parser

    actions = next(a for a in make_parser()._actions if isinstance(a, argparse._SubParsersAction))
    parts = ["# Commands", "", "Made from the command line's own parser when this site is built; `gsi COMMAND --help` says the same.", ""]
    parts += ["Exit codes: 0 done, 1 a bug, 2 something to fix (config, data, model), 3 nothing accepted, 130 interrupted.", ""]
    for name, sub in actions.choices.items():
        usage = " ".join(sub.format_usage().removeprefix("usage: ").split())
        parts += [f"## gsi {name}", "", f"{html.escape(sub.description or '', quote=False)}.", "", "```text", usage, "```", ""]
        rows = [a for a in sub._actions if not isinstance(a, argparse._HelpAction)]
        if rows:
            parts += ["| argument | what |", "|---|---|"]
        for a in rows:
            shown = ", ".join(a.option_strings) or (a.metavar if isinstance(a.metavar, str) else a.dest)
            value = "" if a.nargs == 0 or not a.option_strings else " " + (a.metavar if isinstance(a.metavar, str) else a.dest.upper())
            value = value if a.choices is None else " " + "{" + ",".join(map(str, a.choices)) + "}"
            parts.append(f"| `{shown}{value}` | {html.escape(a.help or '', quote=False)} |".replace("%%", "%"))
        parts.append("")
    return "\n".join(parts)
