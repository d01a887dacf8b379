"""A figure of lines with intervals: accuracy against a number. Sweeps, epochs and continual steps share it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from softlabel.report._facts import Score
from softlabel.report._figure import Figure, blank_layout, error_bar, escape, short, titled
from softlabel.report._palette import MUTED, SYMBOLS
from softlabel.report._text import interval, plus_minus

DASHES = ("solid", "dash", "dot", "dashdot")


@dataclass(frozen=True, kw_only=True)
class Point:
    """One mean on a line, in the place `x`; `score` is None where every seed failed. `hover` is plain text."""

    x: float
    score: Score | None
    hover: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Line:
    """`mark` counts through the symbols, `dash` through the line styles."""

    name: str
    colour: str
    mark: int
    points: Sequence[Point]
    dash: int = 0


def lines_figure(lines: Sequence[Line], *, x_title: str, y_title: str, log: bool = False) -> Figure:
    """Means with 95 % intervals, joined; crosses at the foot stand for failed arms.

    A scale is logarithmic only where every x is positive.
    """
    scores = [point.score for line in lines for point in line.points if point.score is not None]
    low, high = _range(scores)
    layout = blank_layout(height=340, left=56, right=16, top=26, bottom=52)
    layout["xaxis"] = titled(layout["xaxis"], {"title": {"text": escape(x_title)}, "zeroline": False})
    places = [point.x for line in lines for point in line.points]
    if log and places and min(places) > 0:
        wide = max(places) / min(places) > 200
        layout["xaxis"] |= {"type": "log", "dtick": 1 if wide else "D2", "tickformat": "~g"}
    layout["yaxis"] = titled(layout["yaxis"], {"title": {"text": escape(y_title)}, "range": [low, high]})
    layout["hovermode"] = "closest"
    return {"data": [trace for line in lines for trace in _traces(line, low, high)], "layout": layout}


def upright(x: float, text: str, *, log: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """A dotted vertical line at `x` with words above it: a shape and an annotation."""
    line = {"color": MUTED, "width": 1.2, "dash": "dot"}
    ends = {"x0": x, "x1": x, "y0": 0, "y1": 1, "yref": "paper"}
    shape = {"type": "line", **ends, "line": line, "layer": "below"}
    # On a logarithmic axis plotly takes shapes in the axis's units, and annotations as powers of ten.
    place = math.log10(x) if log else x
    note = {"text": escape(text), "x": place, "y": 1, "yref": "paper", "yanchor": "bottom", "showarrow": False}
    return shape, note | {"font": {"color": MUTED, "size": 12}}


def is_log(figure: Figure) -> bool:
    """Whether the figure's x axis came out logarithmic."""
    return bool(figure["layout"]["xaxis"].get("type") == "log")


def _traces(line: Line, low: float, high: float) -> list[dict[str, Any]]:
    points = sorted(line.points, key=lambda point: point.x)
    good = [(point, point.score) for point in points if point.score is not None]
    failed = [point for point in points if point.score is None]
    symbol = SYMBOLS[line.mark % len(SYMBOLS)]
    bars = [error_bar(score, line.colour) for _, score in good]
    traces: list[dict[str, Any]] = []
    if good:
        traces.append(
            {
                **_marks(line, symbol, [point for point, _ in good]),
                "mode": "lines+markers",
                "y": [short(score.mean * 100) for _, score in good],
                "line": {"color": line.colour, "width": 2, "dash": DASHES[line.dash % len(DASHES)]},
                "error_y": {
                    "type": "data",
                    "symmetric": False,
                    "array": [bar.get("array", [0])[0] for bar in bars],
                    "arrayminus": [bar.get("arrayminus", [0])[0] for bar in bars],
                    "color": line.colour,
                    "thickness": 1.3,
                    "width": 4,
                },
            }
        )
    if failed:
        foot = [low + 0.03 * (high - low)] * len(failed)
        traces.append({**_marks(line, "x-thin-open", failed), "mode": "markers", "y": foot})
    return traces


def _marks(line: Line, symbol: str, points: Sequence[Point]) -> dict[str, Any]:
    return {
        "type": "scatter",
        "name": escape(line.name),
        "x": [point.x for point in points],
        "marker": {"color": line.colour, "size": 9, "symbol": symbol, "line": {"color": line.colour, "width": 2}},
        "hoverinfo": "text",
        "hovertext": [_hover(point) for point in points],
    }


def _hover(point: Point) -> str:
    head, *rest = (escape(text) for text in point.hover)
    numbers = [f"{plus_minus(point.score)} %" if point.score else "failed"]
    if point.score and point.score.low is not None:
        numbers.append(f"95 % interval {interval(point.score)}")
    return "<br>".join([f"<b>{head}</b>", *rest, *numbers])


def _range(scores: Sequence[Score]) -> tuple[float, float]:
    """The vertical range in percent: all means and intervals, with some room."""
    edges = [edge for score in scores for edge in (score.mean, score.low, score.high) if edge is not None]
    low, high = min(edges, default=0.0) * 100, max(edges, default=1.0) * 100
    pad = max(1.0, 0.06 * (high - low))
    return low - pad, high + pad
