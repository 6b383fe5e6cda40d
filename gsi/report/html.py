"""`gsi report`: one self-contained HTML file, written from the run folders alone; opens from disk and loads nothing.

Every figure is prepared in Python, as a plot with its table; the files in `page/` lay it out. Nothing of a run can run in the page: text is
escaped, data travels as JSON, and the page's policy lets only its own scripts run, named by their hashes, and no request leave.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import math
import shlex
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

import gsi
from gsi.report import comparison, cost, guided, overview, plots, tail, words
from gsi.report.parts import Figure, Section, clean, cut, shown
from gsi.report.read import RunView, dig, read_run, whole
from gsi.report.samples import FIELDS, Packed, pack
from gsi.report.tally import Tally
from gsi.types import GsiError

LIMIT = 15_000_000  # bytes of a report
PAGE = Path(__file__).parent / "page"
# what a report can show beyond what every run has, and what it takes
EXPECTED = {
    "coverage-tokens": "coverage against tokens (no rollouts, or the number of questions is not recorded)",
    "lengths": "lengths (no rollouts)",
    "perplexity": "perplexity (the metrics hold no tail/perplexity figures)",
    "accuracy": "accuracy (nothing was evaluated yet)",
}


@dataclass(frozen=True)
class Source:
    """Where a page's samples come from: packed into it, or a URL of `gsi view`."""

    total: int
    says: str
    blocks: Sequence[Markup] = ()
    index: str | None = None
    source: str | None = None
    math: bool = False


def write_report(runs: list[Path], output: Path, figures: Path | None = None) -> Path:
    """Writes the report of one run or several to `output` and returns its path; with `figures`, every plot as files into that folder.

    Raises GsiError where a path is no run folder, or something cannot be written. What a run folder lacks is named in the report.
    """
    if not runs:
        raise GsiError("report: name at least one run folder")
    views = [read_run(Path(path)) for path in runs]
    names = comparison.names_of(views)
    with ExitStack() as open_:
        tallies = [_tally(view, open_) for view in views]
        made = [build(view, name, f"r{i}", tally) for i, (view, name, (tally, _)) in enumerate(zip(views, names, tallies, strict=True), 1)]
        for run, (_, problem) in zip(made, tallies, strict=True):
            run["missing"] += [problem] if problem else []
        several = (
            compared([comparison.side(*of) for of in zip(names, views, [t for t, _ in tallies], strict=True)]) if len(views) > 1 else None
        )
        if figures is not None:
            from gsi.report.files import write_figures

            write_figures(_figures(made, several), figures)
        blocks, room = data(made, several), LIMIT
        room -= sum(map(len, blocks.values())) + sum(len(s) for s in _library(math=True)) + 400_000 * len(made)
        for run, (tally, _) in zip(made, tallies, strict=True):
            run["samples"] = _packed(pack(tally, max(100_000, room // len(made)))) if tally else Source(0, "")
            if run["samples"].index:
                blocks[f"{run['prefix']}-index"] = Markup(run["samples"].index)
    math = any(run["samples"].math for run in made)
    scripts = [*_library(math), script("plots.js"), script("samples.js")]
    page = render(
        "report.html", runs=made, comparison=several, title=f"gsi report: {', '.join(names)}", data=blocks, math=math, live=None, home=None,
        scripts=[Markup(f"<script>{s}</script>") for s in scripts], policy=_policy(scripts),
    )  # fmt: skip
    _write(output, page)
    return output


def _write(output: Path, page: str) -> None:
    part = output.with_name(output.name + ".part")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(page, encoding="utf-8")
        part.replace(output)
    except OSError as e:
        raise GsiError(f"report: {output} cannot be written: {e.strerror}; choose another --output") from e


def _tally(view: RunView, open_: ExitStack) -> tuple[Tally | None, str | None]:
    try:
        return open_.enter_context(Tally(view.path, view.config.get("accept"), view.state.get("seed") or 0)), None
    except GsiError as e:
        return None, f"ledger.sqlite: {e}"


# --------------------------------------------------------------------------------------- what a page needs of a run


def build(run: RunView, name: str, prefix: str, tally: Tally | None) -> dict[str, Any]:
    """Everything the page shows of one run, but its samples."""
    sections = [overview.section(run), tail.section(run, tally), cost.section(run, tally), guided.section(run, tally)]
    have = {part.id for s in sections for part in s.parts if isinstance(part, Figure)}
    absent = [what for key, what in EXPECTED.items() if key not in have]
    if tally and not tally.queries():
        absent.append("gold answers and references (written by a gsi that did not keep them in the ledger)")
    if not run.metrics:
        absent.append("figures of finished iterations (there is none yet)")
    return {
        "name": name,
        "prefix": prefix,
        "sentence": words.result(run) if run.metrics else "No iteration has figures yet.",
        "tail": words.tail(run),
        "progress": _progress(run, tally),
        "tiles": overview.tiles(run),
        "warnings": overview.warnings(run),
        "missing": list(run.missing),
        "absent": absent,
        "facts": {
            "strategy": run.strategy,
            "model": run.config.get("model"),
            "tasks": ", ".join(str(dig(t, "name")) for t in run.config.get("tasks") or []) or None,
            "accepted are": {"steps": "right answers with right steps", "answer": "right answers"}.get(str(run.config.get("accept"))),
            "iterations": run.config.get("iterations"),
            "seed": run.state.get("seed"),
            "started": run.state.get("created_at"),
            "forked from": run.state.get("forked_from"),
            "programs": {"True": "run isolated", "False": "run WITHOUT isolation, as the config allows"}.get(
                str(run.state.get("programs_isolated"))
            ),
        },
        "sections": sections,
        "samples": Source(0, ""),
        "command": f"gsi run {shlex.quote(str(run.path / 'config.yaml'))} output_dir=NEW",
        "batch": _first_batch(run),
        "config": yaml.safe_dump(run.config, sort_keys=False, allow_unicode=True),
        "versions": {key: run.state.get(key) for key in ("gsi", "git_sha", "seed")} | (dig(run.state, "versions") or {}),
    }


def _first_batch(run: RunView) -> dict[str, Any] | None:
    """The first training batch of the last iteration that trained, as the trainer wrote it: rows in pieces, trained or context."""
    found = [path for path in run.path.glob("iter_*/first_batch.json") if whole(path.parent.name[5:])]
    if not found:
        return None
    path = max(found, key=lambda p: int(p.parent.name[5:]))
    try:
        rows = json.loads(path.read_text(encoding="utf-8", errors="replace"))["rows"]
        shown = [
            {
                "row": clean(str(row["row"])),
                "weight": row["weight"],
                "pieces": [(bool(piece["trained"]), piece["tokens"], clean(cut(str(piece["text"]), 2000))) for piece in row["pieces"]],
            }
            for row in rows[:8]
        ]
    except (OSError, ValueError, KeyError, TypeError):
        return {"iteration": path.parent.name[5:], "rows": [], "total": 0}
    return {"iteration": path.parent.name[5:], "rows": shown, "total": len(rows)}


def _progress(run: RunView, tally: Tally | None) -> str:
    order, left = run.stages()
    drawn = int(tally("SELECT count(*) FROM slim")[0][0]) if tally else 0
    more = f" The ledger holds {drawn:,} rollouts so far." if drawn > run.total("sample/rollouts") else ""
    if not run.config or not left:
        return more.strip()
    return f"Not finished: {len(order) - len(left)} of {len(order)} stages are done; left: {', '.join(left[:8])}{', …' if len(left) > 8 else ''}.{more}"


def _packed(p: Packed) -> Source:
    if p.rows == p.total:
        says = f"All {p.total:,} rollouts of the ledger."
    else:
        says = f"{p.rows:,} of {p.total:,} rollouts: a sample from every stratum (iteration, level, accepted or not, plain or guided), so that this file stays below 15 MB; every figure above counts all. `gsi view` pages all."
    return Source(p.total, says, [Markup(b) for b in p.blocks], p.index, math=p.math)


def compared(sides: Sequence[comparison.Side]) -> dict[str, Any]:
    """The comparison as the page shows it."""
    section = comparison.section(sides)
    says = {part.id: part.says for part in section.parts if isinstance(part, Figure)}
    return {"section": section, "sentence": comparison.headline(sides), "second": says.get("equal-tokens-coverage", "")}


def _figures(made: Sequence[dict[str, Any]], several: dict[str, Any] | None) -> list[tuple[str, Figure]]:
    sections: list[tuple[str, Section]] = [(run["name"], s) for run in made for s in run["sections"]]
    sections += [("comparison", several["section"])] if several else []
    return [(name, part) for name, s in sections for part in s.parts if isinstance(part, Figure)]


# --------------------------------------------------------------------------------------- the page


def data(made: Sequence[dict[str, Any]], several: dict[str, Any] | None) -> dict[str, Markup]:
    """Blocks of JSON that the page's scripts read."""
    found = {"theme": plots.theme(), "fields": FIELDS} | {f"plots-{run['prefix']}": specs(run["sections"]) for run in made}
    if several:
        found["plots-compare"] = specs([several["section"]])
    return {name: json_block(value) for name, value in found.items()}


def specs(sections: Sequence[Section]) -> dict[str, Any]:
    return {part.id: part.spec for s in sections for part in s.parts if isinstance(part, Figure)}


def json_block(value: Any) -> Markup:
    """JSON that can stand inside a script element: no tag can begin or end in it."""
    text = json.dumps(_cleaned(value), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))


def _cleaned(value: Any) -> Any:
    if isinstance(value, dict):
        return {_cleaned(k): _cleaned(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_cleaned(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return clean(value) if isinstance(value, str) else value


def render(template: str, **values: Any) -> str:
    # templates of our own filled with text of strangers: everything is escaped, and `shown` sees every value before that
    env = Environment(
        loader=PackageLoader("gsi", "report/page"), autoescape=True, finalize=shown, undefined=StrictUndefined, trim_blocks=True
    )
    style = Markup(f"<style>\n{(PAGE / 'page.css').read_text(encoding='utf-8')}</style>")
    return env.get_template(template).render(
        style=style, gsi=gsi.__version__, now=datetime.now(UTC).isoformat(timespec="seconds"), **values
    )


def script(name: str) -> str:
    return (PAGE / name).read_text(encoding="utf-8")


@functools.cache
def vega() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script, from the package that also draws figures as files."""
    import vl_convert

    bundle = vl_convert.javascript_bundle("window.gsiVega = { embed: vegaEmbed };")
    return "(()=>{" + bundle.replace("</script", "<\\/script").replace("<!--", "\\x3c!--") + "\n})();"


def _library(math: bool) -> list[str]:
    return [vega(), *([script("vendor/temml.min.js")] if math else [])]


def _policy(scripts: Sequence[str]) -> str:
    hashes = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in scripts)
    return f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
