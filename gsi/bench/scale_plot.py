"""`python -m gsi.bench.scale_plot LINES.jsonl FIGURE.svg`: lines that `gsi.bench.scale` printed as a figure, processor time and memory by rollouts."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gsi.bench.scale import LIMIT, PHASES
from gsi.report.plots import COLOURS, GREY, Spec, for_files


def plot(lines: Sequence[Mapping[str, Any]]) -> Spec:
    """Both axes logarithmic; the dashed line is in proportion to the rollouts, through the largest run's sampling, or the memory that is allowed."""
    lines = sorted(lines, key=lambda line: line["rollouts"])
    last = lines[-1]
    seconds = [{"x": line["rollouts"], "y": line[f"{p}_cpu_s"], "s": p} for line in lines for p in PHASES]
    memory = [{"x": line["rollouts"], "y": line[f"{p}_peak_mb"], "s": p} for line in lines for p in PHASES]
    ends = (lines[0]["rollouts"], last["rollouts"])
    proportion = [{"x": x, "y": last["sample_cpu_s"] * x / last["rollouts"]} for x in ends]
    return {
        "hconcat": [
            _panel("Processor seconds by phase; dashed: in proportion", seconds, proportion),
            _panel(f"Peak memory by the end of a phase, MB; dashed: {LIMIT}", memory, [{"x": x, "y": LIMIT} for x in ends]),
        ],
    }


def _panel(title: str, rows: list[Spec], guide: list[Spec]) -> Spec:
    x = {
        "field": "x",
        "type": "quantitative",
        "scale": {"type": "log"},
        "axis": {"title": "rollouts", "format": "~s", "labelOverlap": True},
    }
    y = {"field": "y", "type": "quantitative", "scale": {"type": "log"}, "axis": {"title": None, "format": ",~g", "labelOverlap": True}}
    colour = {"field": "s", "type": "nominal", "title": None, "scale": {"domain": list(PHASES), "range": list(COLOURS[: len(PHASES)])}}
    return {
        "title": title,
        "width": 300,
        "height": 220,
        "layer": [
            {"data": {"values": guide}, "mark": {"type": "line", "strokeDash": [4, 4], "color": GREY}, "encoding": {"x": x, "y": y}},
            {"data": {"values": rows}, "mark": {"type": "line", "point": True}, "encoding": {"x": x, "y": y, "color": colour}},
        ],
    }


def main(arguments: Sequence[str]) -> int:
    import vl_convert

    source, target = map(Path, arguments)
    printed = [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines() if line.startswith("{")]
    measured = [line for line in printed if "rollouts" in line]  # not what was extrapolated
    target.write_text(vl_convert.vegalite_to_svg(for_files(plot(measured))), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
