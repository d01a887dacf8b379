"""The figures of a grid: grouped bars, heat maps, and curves over an option or a number."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from softlabel.report._facts import Arm, Score, StudyFacts
from softlabel.report._figure import Figure, blank_layout, error_bar, escape, hover_text, short, titled
from softlabel.report._grid import Placement, curve_x, value_label
from softlabel.report._lines import Line, Point, is_log, lines_figure, upright
from softlabel.report._palette import FULL_DATA, INK, MARKS, MUTED, Palette
from softlabel.report._specs import Bars, Epochs, Heat, PlotSpec, Sweep
from softlabel.report._text import arm_note, percent

FAILED = "#a84a00"
_BLUES = ((0.0, "#eef4fa"), (0.25, "#c6dbef"), (0.5, "#85bcdc"), (0.75, "#3182bd"), (1.0, "#08407f"))
_PAGE = 1040
"""Pixels that the bars share on a wide screen; only used to decide which way their numbers stand."""
_LETTER = 8
"""Pixels of a letter under the groups."""
_DARK_FROM = 0.73
_GROUP_GAP = 0.9


@dataclass(frozen=True, kw_only=True)
class GridKey:
    """A line of a legend: a coloured mark and its name."""

    label: str
    colour: str
    mark: str


def grid_figure(facts: StudyFacts, plot: PlotSpec, placement: Placement, palette: Palette) -> Figure:
    """The figure of one entry of the study's plots."""
    if isinstance(plot, Bars):
        return bars_figure(facts, plot, placement, palette)
    if isinstance(plot, Heat):
        return heat_figure(facts, plot, placement)
    return curve_figure(facts, plot, placement, palette)


def grid_keys(facts: StudyFacts, plot: PlotSpec, placement: Placement, palette: Palette) -> list[GridKey]:
    """The legend of a plot; a heat map has none, because its cells are labelled."""
    if isinstance(plot, Heat):
        return []
    axis, values = plot.axes[1], placement.values(1)
    return [
        GridKey(
            label=value_label(facts, axis, value),
            colour=palette.value_colour(axis, value),
            mark="\u25a0" if isinstance(plot, Bars) else MARKS[position % len(MARKS)],
        )
        for position, value in enumerate(values)
    ]


def bars_figure(facts: StudyFacts, plot: Bars, placement: Placement, palette: Palette) -> Figure:
    """A bar per arm from zero, in groups, its interval and its number; an own loss is hatched."""
    groups, bars = placement.values(0), placement.values(1)
    pixels = _PAGE / (len(placement.arms) + _GROUP_GAP * len(groups))
    ticks: dict[float, str] = {}
    places: list[tuple[float, Arm]] = []
    edge = 0.0
    for group in groups:
        arms = [placement.arms[group, bar] for bar in bars if (group, bar) in placement.arms]
        letters = int(pixels * (len(arms) + _GROUP_GAP) / _LETTER)
        ticks[edge + (len(arms) - 1) / 2] = _wrapped(value_label(facts, plot.group, group), max(letters, 6))
        places += [(edge + position, arm) for position, arm in enumerate(arms)]
        edge += len(arms) + _GROUP_GAP
    right = edge - _GROUP_GAP
    upright_numbers = pixels < 34
    data = [
        _bar(place, arm, arm.final, palette.value_colour(plot.bar, arm.axes[plot.bar]))
        for place, arm in places
        if arm.final is not None
    ]
    full = facts.full_data.final if facts.full_data else None
    top = max([_high(arm.final) for _, arm in places if arm.final] + ([_high(full)] if full else []), default=1.0)
    layout = blank_layout(height=380, left=52, right=62 if full else 12, top=14, bottom=48)
    layout["xaxis"] |= {
        "tickvals": list(ticks),
        "ticktext": list(ticks.values()),
        "tickfont": {"size": 13},
        "tickangle": 0,
        "range": [-0.5 - _GROUP_GAP / 2, right - 0.5 + _GROUP_GAP / 2],
        "showgrid": False,
        "zeroline": False,
    }
    vertical = {"title": {"text": "final accuracy, %"}, "range": [0, 100 * top * (1.16 if upright_numbers else 1.09)]}
    layout["yaxis"] = titled(layout["yaxis"], vertical)
    layout |= {
        "annotations": [_bar_number(place, arm, upright_numbers) for place, arm in places],
        "hovermode": "closest",
        "barmode": "overlay",
        "shapes": [],
    }
    if full:
        shape, note = _full_data(full)
        layout["shapes"].append(shape)
        layout["annotations"].append(note)
    return {"data": data, "layout": layout}


def heat_figure(facts: StudyFacts, plot: Heat, placement: Placement) -> Figure:
    """A cell per arm, darker where the mean is higher, its number in it; what diverged is said in words."""
    rows, columns = placement.values(0), placement.values(1)
    means = [arm.final.mean * 100 for arm in placement.arms.values() if arm.final is not None]
    low, high = min(means, default=0.0), max(means, default=1.0)
    high = max(high, low + 1e-6)
    notes: list[dict[str, Any]] = []
    shapes: list[dict[str, Any]] = []
    values: list[list[float | None]] = []
    hovers: list[list[str]] = []
    for down, row in enumerate(rows):
        found = [placement.arms.get((row, column)) for column in columns]
        values.append([short(arm.final.mean * 100) if arm and arm.final else None for arm in found])
        hovers.append([hover_text(arm) if arm else "" for arm in found])
        for across, arm in enumerate(found):
            notes.append(_cell_note(across, down, arm, low, high))
            if arm is not None and arm.final is None:
                shapes.append(_failed_cell(across, down))
    trace = {
        "type": "heatmap",
        "z": values,
        "hovertext": hovers,
        "hoverinfo": "text",
        "hoverongaps": False,
        "zmin": low,
        "zmax": high,
        "colorscale": [list(stop) for stop in _BLUES],
        "showscale": False,
        "xgap": 3,
        "ygap": 3,
    }
    layout = blank_layout(height=60 * len(rows) + 84, left=60, right=6, top=64, bottom=8)
    layout["xaxis"] = _cell_axis(layout["xaxis"], facts, plot.columns, columns, width=12) | {"side": "top"}
    layout["yaxis"] = _cell_axis(layout["yaxis"], facts, plot.rows, rows, width=22)
    layout["yaxis"]["range"] = [len(rows) - 0.5, -0.5]
    layout |= {"annotations": notes, "shapes": shapes, "hovermode": "closest"}
    return {"data": [trace], "layout": layout}


def curve_figure(facts: StudyFacts, plot: Sweep | Epochs, placement: Placement, palette: Palette) -> Figure:
    """A line per value of the plot's line axis."""
    lines = []
    for position, value in enumerate(placement.values(1)):
        arms = [arm for pair, arm in placement.arms.items() if pair[1] == value]
        points = [_point(x, arm) for arm in arms if (x := curve_x(plot, arm)) is not None]
        label = value_label(facts, plot.line, value)
        colour = palette.value_colour(plot.line, value)
        lines.append(Line(name=label, colour=colour, mark=position, points=points))
    x_title = plot.parameter if isinstance(plot, Sweep) else plot.x_title
    figure = lines_figure(lines, x_title=x_title, y_title="final accuracy, %", log=plot.log)
    if isinstance(plot, Sweep) and plot.default is not None and (plot.default > 0 or not is_log(figure)):
        shape, note = upright(plot.default, f"default {plot.default:g}", log=is_log(figure))
        figure["layout"] |= {"shapes": [shape], "annotations": [note]}
    return figure


def _point(x: float, arm: Arm) -> Point:
    return Point(x=x, score=arm.final, hover=(arm.name, f"at {x:g}"))


def _bar(place: float, arm: Arm, score: Score, colour: str) -> dict[str, Any]:
    marker: dict[str, Any] = {"color": colour, "line": {"color": colour, "width": 1}}
    if arm.own_loss:
        marker |= {"pattern": {"shape": "/", "size": 6, "solidity": 0.3, "fgcolor": "#ffffff", "bgcolor": colour}}
        marker["line"] = {"color": INK, "width": 2}
    return {
        "type": "bar",
        "name": escape(arm.name),
        "x": [place],
        "y": [short(score.mean * 100)],
        "width": [0.86],
        "marker": marker,
        "error_y": error_bar(score, INK) | {"thickness": 1.3, "width": 3},
        "hoverinfo": "text",
        "hovertext": [hover_text(arm, "the method's own loss" if arm.own_loss else "")],
    }


def _bar_number(place: float, arm: Arm, upright_numbers: bool) -> dict[str, Any]:
    """The mean above the interval, or what stands in place of a bar. It stands upright where it would not fit."""
    failed = arm.final is None
    turned = failed or upright_numbers
    return {
        "x": place,
        "y": 0 if arm.final is None else short(_high(arm.final) * 100),
        "text": "failed" if arm.final is None else percent(arm.final.mean),
        "textangle": -90 if turned else 0,
        "yanchor": "bottom",
        "yshift": 2,
        "showarrow": False,
        "font": {"size": 11, "color": FAILED if failed else INK},
        "hovertext": _failure_hover(arm),
    }


def _cell_note(across: int, down: int, arm: Arm | None, low: float, high: float) -> dict[str, Any]:
    note = {"x": across, "y": down, "showarrow": False, "font": {"size": 14, "color": MUTED}}
    if arm is None:
        return note | {"text": "\u2013"}
    if arm.final is None:
        text = '<b>\u2715</b><br><span style="font-size:12px">diverged</span>'
        return note | {"text": text, "font": {"size": 13, "color": FAILED}, "hovertext": _failure_hover(arm)}
    dark = (arm.final.mean * 100 - low) / (high - low) > _DARK_FROM
    small = [f"\u00b1 {percent(arm.final.std)}"] if arm.final.std is not None else []
    small += [f"{len(arm.failed)} of {arm.final.n + len(arm.failed)} failed"] if arm.failed else []
    lines = [percent(arm.final.mean), *(f'<span style="font-size:11px">{part}</span>' for part in small)]
    return note | {"text": "<br>".join(lines), "font": {"size": 14, "color": "#ffffff" if dark else INK}}


def _failed_cell(across: int, down: int) -> dict[str, Any]:
    return {
        "type": "rect",
        "x0": across - 0.47,
        "x1": across + 0.47,
        "y0": down - 0.46,
        "y1": down + 0.46,
        "fillcolor": "#fff6ee",
        "line": {"color": FAILED, "width": 1, "dash": "dot"},
        "layer": "below",
    }


def _failure_hover(arm: Arm) -> str:
    return "<br>".join(escape(line) for line in textwrap.wrap(f"{arm.name}: {arm_note(arm)}", 60)) if arm.failed else ""


def _cell_axis(axis: dict[str, Any], facts: StudyFacts, name: str, values: Sequence[str], width: int) -> dict[str, Any]:
    labels = [_wrapped(value_label(facts, name, value), width) for value in values]
    changes = {
        "tickvals": list(range(len(values))),
        "ticktext": labels,
        "tickangle": 0,
        "showgrid": False,
        "zeroline": False,
        "range": [-0.5, len(values) - 0.5],
        "title": {"text": name},
    }
    return titled(axis, changes)


def _wrapped(text: str, width: int) -> str:
    return "<br>".join(escape(line) for line in textwrap.wrap(text, width, break_long_words=False)) or escape(text)


def _high(score: Score) -> float:
    return score.mean if score.high is None else score.high


def _full_data(score: Score) -> tuple[dict[str, Any], dict[str, Any]]:
    mean = score.mean * 100
    line = {"color": FULL_DATA, "width": 1.5, "dash": "dash"}
    shape = {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": mean, "y1": mean, "line": line}
    font = {"color": FULL_DATA, "size": 12}
    place = {"x": 1, "xref": "paper", "xanchor": "left", "xshift": 5, "y": mean, "showarrow": False}
    return shape, {**place, "text": f"full data<br>{percent(score.mean)}", "align": "left", "font": font}
