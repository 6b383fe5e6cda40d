"""Plots as Vega-Lite specifications. The page draws them with the Vega it carries, `gsi report --figures` with the same library in Python.

Colours are names of the page's CSS variables, so one drawing serves light, dark and print; files get the light ones.
A spec holds its rows, has no size, and answers to the signals `hidden` (names of series switched off) and, where it can
be zoomed, `grid_x` and `grid_y`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Spec = dict[str, Any]
Rows = Sequence[Mapping[str, Any]]

# light values of the variables in page/page.css, for files; chosen to differ in lightness too, after Okabe and Ito
LIGHT = {
    "--c1": "#0b62a4", "--c2": "#c2500b", "--c3": "#00795c", "--c4": "#8a4f9e", "--c5": "#a87500", "--c6": "#2191c9", "--c0": "#5b6470",
    "--i1": "#86b8e2", "--i2": "#5c9bd2", "--i3": "#3a7dbd", "--i4": "#2262a3", "--i5": "#134985", "--i6": "#0a3263",
    "--fg": "#1b1f24", "--soft": "#59626d", "--line": "#d9dee5", "--bg": "#ffffff", "--heat": "#2f7fc1",
}  # fmt: skip
COLOURS = tuple(f"var(--c{i})" for i in (1, 2, 3, 4, 5, 6))
GREY = "var(--c0)"
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down")
DASHES = ([1, 0], [6, 3], [2, 2], [8, 3, 2, 3], [4, 2], [1, 3])
MOST_LINES = 6  # iterations shown as lines of their own


def theme(files: bool = False) -> Spec:
    """Vega-Lite config. With `files`, colours are resolved when the spec is written out."""
    text = {"labelColor": "var(--soft)", "titleColor": "var(--fg)", "labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": 500}
    return {
        "font": "DejaVu Sans, Arial, sans-serif" if files else "system-ui, sans-serif",
        "background": "var(--bg)" if files else "transparent",
        "aria": False,  # the page says what a plot shows in words and as a table
        "view": {"stroke": None},
        "axis": text | {"domainColor": "var(--line)", "tickColor": "var(--line)", "gridColor": "var(--line)", "gridOpacity": 0.6, "labelPadding": 6, "titlePadding": 10},
        "axisX": {"grid": False},
        "axisY": {"domain": False, "ticks": False, "tickCount": 5},
        "title": {"color": "var(--fg)", "fontSize": 14, "fontWeight": 600, "anchor": "start", "offset": 12},
        "legend": text | {"orient": "bottom", "title": None, "symbolStrokeWidth": 2, "columns": 4, "disable": not files},
        "header": {"labelColor": "var(--fg)", "titleColor": "var(--fg)"},
        "line": {"strokeWidth": 2.25, "strokeJoin": "round"},
        "bar": {"cornerRadiusEnd": 1.5},
    }  # fmt: skip


def for_files(spec: Spec) -> Spec:
    """A whole specification, with the light colours, that is drawn without a page."""
    whole: Spec = resolved(spec | {"$schema": "https://vega.github.io/schema/vega-lite/v6.json", "config": theme(files=True)})
    return whole


def resolved(spec: Any) -> Any:
    """The spec with the light colours in place of variables."""
    if isinstance(spec, Mapping):
        return {k: resolved(v) for k, v in spec.items()}
    if isinstance(spec, list | tuple):
        return [resolved(v) for v in spec]
    return LIGHT[spec[4:-1]] if isinstance(spec, str) and spec.startswith("var(--") else spec


def of_iterations(iterations: Sequence[int]) -> dict[int, str]:
    """Iteration -> colour, light to dark; at most MOST_LINES of them, the first and the last among them."""
    chosen = sorted(iterations)
    if len(chosen) > MOST_LINES:
        chosen = sorted({chosen[round(i * (len(chosen) - 1) / (MOST_LINES - 1))] for i in range(MOST_LINES)})
    if len(chosen) == 1:
        return {chosen[0]: "var(--i4)"}
    return {n: f"var(--i{1 + round(i * 5 / (len(chosen) - 1))})" for i, n in enumerate(chosen)}


def tip(field: str, title: str, kind: str = "quantitative", format: str = "") -> Spec:
    """One line of a tooltip: a field of the row, its name, its kind and how its number is written."""
    return {"field": field, "title": title, "type": kind} | ({"format": format} if format else {})


def axis(title: str, percent: bool = False, integer: Sequence[int] = (), log: bool = False, zero: bool = False) -> Spec:
    """One quantitative axis of `lines`."""
    style: Spec = {"title": title}
    if percent:
        style["format"] = ".0%"
    elif integer:
        style |= {"format": "d", "values": list(integer)}
    else:
        style["labelExpr"] = "abs(datum.value) >= 10000 ? format(datum.value, '~s') : format(datum.value, ',.4~g')"
    if log:  # a line and a label at every power of ten and its triple
        style["values"] = [m * 10**k for k in range(-3, 13) for m in (1, 3)]
        return {"type": "quantitative", "axis": style, "scale": {"type": "log", "nice": False, "padding": 8}}
    return {
        "type": "quantitative",
        "axis": style,
        "scale": {"zero": zero, "nice": False, "padding": 14} if integer else {"zero": zero, "nice": True},
    }


def _room(y: Spec, rows: Rows) -> Spec:
    """Room above the highest point, so that it is not cut in half at the edge."""
    if y["scale"].get("type") == "log":
        return y
    values = [row[k] for row in rows for k in ("y", "low", "high") if isinstance(row.get(k), int | float)]
    if not values:
        return y
    low, high = min(values), max(values)
    low = (
        min(0.0, low)
        if y["scale"]["zero"]
        else low - 0.06 * ((high - low) or abs(high) or 1)
        if low < 0
        else max(0.0, low - 0.06 * ((high - low) or high))
    )
    high += 0.06 * ((high - low) or abs(high) or 1)
    return y | {"scale": {"zero": False, "nice": False, "domainMin": low, "domainMax": high}}


def lines(
    rows: Rows, x: Spec, y: Spec, series: Mapping[str, str], *, points: bool = True, band: bool = False, step: bool = False, tips: Rows = ()
) -> Spec:
    """Rows {x, y, s} with `low` and `high` where `band`; one line per series s."""
    colour = _colour(series)
    y = _room(y, rows)
    encoding = {"x": x | {"field": "x"}, "y": y | {"field": "y"}, "color": colour}
    names, coloured = list(series), [c for c in series.values() if c != GREY]
    dashes = [_dash(c, 0 if points or c == GREY else coloured.index(c)) for c in series.values()]
    dash = {"field": "s", "type": "nominal", "scale": {"domain": names, "range": dashes}}
    layers: list[Spec] = []
    line = {"type": "line", "clip": True} | ({"interpolate": "step-after"} if step else {})
    layers.append({"mark": line, "encoding": encoding | {"strokeDash": dash}})
    if band:
        whisker = {"y": y | {"field": "low", "title": y["axis"]["title"]}, "y2": {"field": "high"}}
        layers.append({"mark": {"type": "rule", "strokeWidth": 1.5, "opacity": 0.55, "clip": True}, "encoding": encoding | whisker})
    mark = {"type": "point", "filled": True, "size": 60 if points else 40, "opacity": 1 if points else 0, "clip": True}
    layers.append({"mark": mark, "encoding": encoding | {"shape": _shape(series), "tooltip": list(tips)}})
    layers[0]["params"] = [_grid()]
    return _layered(rows, layers)


def dots(rows: Rows, x: Spec, y: Spec, series: Mapping[str, str]) -> Spec:
    """Rows {x, y, s}: points of series s, with a line at zero."""
    encoding = {"x": x | {"field": "x"}, "y": y | {"field": "y"}, "color": _colour(series), "shape": _shape(series)}
    zero = {"mark": {"type": "rule", "color": GREY}, "encoding": {"y": {"datum": 0}}}
    return _layered(rows, [zero, {"mark": {"type": "point", "filled": True, "size": 60, "opacity": 0.85}, "encoding": encoding}])


def bars(
    rows: Rows,
    x_title: str,
    y: Spec,
    series: Mapping[str, str],
    *,
    stacked: bool = False,
    tips: Rows = (),
    order: Sequence[Any] = (),
    whiskers: bool = False,
    apart: bool = True,
) -> Spec:
    """Rows {x, y, s}: bars beside each other (or stacked, or, not `apart`, one for each x) at each x; `low`, `high` where `whiskers`."""
    place: Spec = {
        "field": "x",
        "type": "ordinal",
        "axis": {"title": x_title, "labelAngle": 0, "labelOverlap": "greedy"},
        "sort": list(order) or None,
    }
    encoding: Spec = {"x": place, "y": y | {"field": "y"}, "color": _colour(series)}
    if stacked:
        encoding |= {"y": y | {"field": "y", "stack": "zero"}, "order": {"field": "o", "type": "quantitative"}}
    elif len(series) > 1 and apart:
        encoding["xOffset"] = {"field": "s", "type": "nominal", "scale": {"domain": list(series)}}
    mark: Spec = {"type": "bar"} if "xOffset" in encoding else {"type": "bar", "width": {"band": 0.6}}
    layers: list[Spec] = [{"mark": mark, "encoding": encoding | {"tooltip": list(tips)}}]
    if whiskers:
        ends = {k: v for k, v in encoding.items() if k not in ("color",)} | {
            "y": y | {"field": "low", "title": y["axis"]["title"]},
            "y2": {"field": "high"},
        }
        layers.append({"mark": {"type": "rule", "strokeWidth": 1.25, "color": "var(--fg)"}, "encoding": ends})
    return _layered(rows, layers)


def heat(rows: Rows, x_title: str, y_title: str, tips: Rows) -> Spec:
    """Rows {x, y, v, label}: v in 0 to 1 as strength of colour, written into the cell."""
    encoding: Spec = {
        "x": {"field": "x", "type": "ordinal", "axis": {"title": x_title, "labelAngle": 0, "domain": False, "ticks": False}},
        "y": {"field": "y", "type": "ordinal", "axis": {"title": y_title}},
    }
    cell = {"mark": {"type": "rect", "color": "var(--heat)", "cornerRadius": 2, "stroke": "var(--bg)", "strokeWidth": 2},
            "encoding": encoding | {"opacity": {"field": "v", "type": "quantitative", "legend": None, "scale": {"domain": [0, 1], "range": [0.06, 0.62], "clamp": True}}, "tooltip": list(tips)}}  # fmt: skip
    # where cells are narrow the numbers would overlap: they are left to tooltip and table
    text = {"mark": {"type": "text", "color": "var(--fg)", "fontSize": 11.5, "tooltip": None},
            "encoding": encoding | {"text": {"field": "label"}, "opacity": {"condition": {"test": "bandwidth('x') > 21", "value": 1}, "value": 0}}}  # fmt: skip
    return _layered(rows, [cell, text])


def ranges(rows: Rows, x: Spec, tips: Rows) -> Spec:
    """Rows {y, x, low, high}: points with intervals beside a line at zero, one row per name y."""
    place: Spec = {"field": "y", "type": "nominal", "axis": {"title": None, "labelLimit": 220}, "sort": None}
    zero = {
        "data": {"values": [{"x": 0}]},
        "mark": {"type": "rule", "color": "var(--soft)", "strokeDash": [4, 3]},
        "encoding": {"x": {"field": "x", "type": "quantitative"}},
    }
    rule = {
        "mark": {"type": "rule", "color": COLOURS[0], "strokeWidth": 2},
        "encoding": {"y": place, "x": x | {"field": "low", "title": x["axis"]["title"]}, "x2": {"field": "high"}},
    }
    point = {
        "mark": {"type": "point", "filled": True, "opacity": 1, "size": 80, "color": COLOURS[0]},
        "encoding": {"y": place, "x": x | {"field": "x"}, "tooltip": list(tips)},
    }
    return _layered(rows, [zero, rule, point])


def _dash(colour: str, i: int) -> list[int]:
    """Iterations need no dashes, their colours have an order; what others are measured against is dashed in grey."""
    return [5, 4] if colour == GREY else [1, 0] if colour.startswith("var(--i") else DASHES[i % len(DASHES)]


def _colour(series: Mapping[str, str]) -> Spec:
    return {"field": "s", "type": "nominal", "scale": {"domain": list(series), "range": list(series.values())}}


def _shape(series: Mapping[str, str]) -> Spec:
    return {
        "field": "s",
        "type": "nominal",
        "scale": {"domain": list(series), "range": [SHAPES[i % len(SHAPES)] for i in range(len(series))]},
    }


def _grid() -> Spec:
    """Zooming moves both axes. Wheel with Ctrl (a plain wheel scrolls the page), drag with a mouse (a finger scrolls), buttons beside the plot."""
    return {
        "name": "grid",
        "bind": "scales",
        "select": {
            "type": "interval",
            "encodings": ["x", "y"],
            "zoom": "wheel![event.ctrlKey || event.metaKey]",
            "translate": "[pointerdown[event.pointerType === 'mouse'], window:pointerup] > window:pointermove!",
        },
    }


def _layered(rows: Rows, layers: list[Spec]) -> Spec:
    return {
        "data": {"values": list(rows)},
        "params": [{"name": "hidden", "value": []}],
        "transform": [{"filter": "indexof(hidden, datum.s) < 0"}],
        "layer": layers,
    }
