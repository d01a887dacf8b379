"""The report's figures as plotly's plain JSON form: dicts with `data` and `layout`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from softlabel.core import human_bytes
from softlabel.report._facts import Arm, Score, SetFacts
from softlabel.report._figure import Figure, blank_layout, bytes_axis, error_bar, escape, hover_text, short, titled
from softlabel.report._palette import FULL_DATA, INK, MUTED, SYMBOLS, Palette
from softlabel.report._study import Run, Study
from softlabel.report._text import images_of, percent

_ACCURACY_HOVER = "epoch %{x}: %{y:.1f} %"
_LOSS_HOVER = "epoch %{x}: loss %{y:.4g}"
_ROW = 34
_HEADER_ROW = 0.9


@dataclass(frozen=True, kw_only=True)
class Group:
    """The arms that train on the same images; `entry` is None for the full data set."""

    entry: SetFacts | None
    title: str
    arms: tuple[Arm, ...]


def groups(study: Study) -> list[Group]:
    """The arms by the images they train on, sets in order of first appearance, full data last."""
    facts = study.facts
    found: dict[str | None, list[Arm]] = {}
    for arm in facts.arms:
        entry = facts.set_of(arm)
        found.setdefault(entry.name if entry else None, []).append(arm)
    entries = {entry.name: entry for entry in facts.sets}
    names = sorted(found, key=lambda name: name is None)
    return [
        Group(
            entry=entries[name] if name is not None else None,
            title=images_of(entries[name] if name is not None else None, facts.sets),
            arms=tuple(found[name]),
        )
        for name in names
    ]


def short_name(arm: Arm) -> str:
    """The arm's name without the set in front of it."""
    return arm.name.removeprefix(f"{arm.set} / ") if arm.set else arm.name


def accuracy_figure(study: Study, palette: Palette) -> Figure:
    """A dot with its 95 % interval per arm, small dots for single seeds, a dashed line for full data."""
    full = study.facts.full_data
    data: list[dict[str, Any]] = []
    ticks: dict[float, str] = {}
    notes: list[dict[str, Any]] = []
    place = 0.0
    for group in groups(study):
        arms = [arm for arm in group.arms if arm is not full] if study.facts.distilled_arms else list(group.arms)
        if not arms:
            continue
        notes.append(_note(group.title[:1].upper() + group.title[1:], place, x=0, anchor="left", colour=MUTED))
        place -= _HEADER_ROW
        for arm in arms:
            ticks[place] = _tick(arm)
            data.extend(_arm_dots(arm, study.runs[arm.name], place, palette.colour(arm)))
            mean = percent(arm.final.mean) if arm.final else "failed"
            notes.append(_note(mean, place, x=1, anchor="right", colour=INK, shift=46))
            place -= 1
        place -= 0.35
    shapes, line_notes = _reference(full.final) if full and full.final and study.facts.distilled_arms else ([], [])
    layout = blank_layout(height=round(-place * _ROW) + 100, left=150, right=58, top=34, bottom=52)
    horizontal = {"title": {"text": "accuracy at the final epoch, %"}, "range": _accuracy_range(study)}
    layout["xaxis"] = titled(layout["xaxis"], horizontal)
    notes.append(_note("mean, %", 0.0, x=1, anchor="right", colour=MUTED, shift=46))
    layout["yaxis"] |= {
        "tickvals": list(ticks),
        "ticktext": list(ticks.values()),
        "range": [place + 0.55, 0.65],
        "showgrid": False,
        "zeroline": False,
    }
    layout |= {"annotations": notes + line_notes, "shapes": shapes, "hovermode": "closest"}
    return {"data": data, "layout": layout}


def accuracy_curves(study: Study, group: Group, palette: Palette) -> Figure:
    """Test accuracy over epochs: the mean over seeds, and each seed faintly."""
    data: list[dict[str, Any]] = []
    for arm in group.arms:
        curves = [[(epoch, value * 100) for epoch, value in run.curve] for run in study.runs[arm.name]]
        data.extend(_curve_lines(arm, curves, palette.colour(arm), _ACCURACY_HOVER))
    figure = _curve_figure(data, {"title": {"text": "test accuracy, %"}, "range": _curve_range(study)})
    full = study.facts.full_data
    if full and full.final and group.entry is not None:
        figure["layout"]["shapes"] = [_dashed(full.final.mean * 100, "y")]
    return figure


def loss_curves(study: Study, group: Group, palette: Palette) -> Figure:
    """Mean training loss per epoch, on a logarithmic scale where every value is positive."""
    data: list[dict[str, Any]] = []
    values: list[float] = []
    for arm in group.arms:
        curves = [list(enumerate(run.train_loss, start=1)) for run in study.runs[arm.name]]
        values.extend(value for curve in curves for _, value in curve)
        data.extend(_curve_lines(arm, curves, palette.colour(arm), _LOSS_HOVER))
    return _curve_figure(data, _loss_axis(values))


def teacher_figures(teacher: dict[str, Any]) -> tuple[Figure, Figure]:
    """The teacher's test accuracy and training loss over its epochs."""
    curve = teacher.get("curve") or []
    epochs = [point["epoch"] for point in curve]
    accuracy = _line(epochs, [point["test_accuracy"] * 100 for point in curve], "teacher", FULL_DATA)
    losses = [point["train_loss"] for point in curve]
    loss = _line(epochs, losses, "teacher", FULL_DATA)
    return (
        _curve_figure([accuracy | {"hovertemplate": _ACCURACY_HOVER}], {"title": {"text": "test accuracy, %"}}),
        _curve_figure([loss | {"hovertemplate": _LOSS_HOVER}], _loss_axis(losses)),
    )


def bytes_figure(study: Study, palette: Palette) -> Figure:
    """Final accuracy against all bytes of an arm, on a logarithmic scale; a symbol per set."""
    data: list[dict[str, Any]] = []
    sizes: list[int] = []
    for position, group in enumerate(groups(study)):
        for arm in group.arms:
            if arm.bytes.total <= 0 or arm.final is None:
                continue
            sizes.append(arm.bytes.total)
            symbol = SYMBOLS[position % len(SYMBOLS)]
            data.append(
                {
                    **_dot(
                        [arm.bytes.total],
                        [arm.final.mean * 100],
                        palette.colour(arm),
                        symbol,
                        arm.is_baseline,
                    ),
                    "error_y": error_bar(arm.final, palette.colour(arm)),
                    "hovertext": [hover_text(arm, human_bytes(arm.bytes.total))],
                }
            )
    layout = blank_layout(height=340, left=52, right=24, top=12, bottom=50)
    layout["xaxis"] = bytes_axis(layout["xaxis"], sizes)
    layout["yaxis"] = titled(layout["yaxis"], {"title": {"text": "final accuracy, %"}})
    layout["hovermode"] = "closest"
    return {"data": data, "layout": layout}


def _arm_dots(arm: Arm, runs: Sequence[Run], place: float, colour: str) -> list[dict[str, Any]]:
    if arm.final is None:
        return []
    mean = _dot([arm.final.mean * 100], [place], colour, "circle", arm.is_baseline)
    mean |= {"error_x": error_bar(arm.final, colour), "hovertext": [hover_text(arm)]}
    seeds = {
        **_dot([short(run.final * 100) for run in runs], [place - 0.26] * len(runs), colour, "circle", False),
        "hovertext": [f"seed {run.seed}: {percent(run.final)} %" for run in runs],
    }
    seeds["marker"] = {"color": colour, "size": 5, "opacity": 0.5}
    return [mean, seeds] if len(runs) > 1 else [mean]


def _curve_lines(arm: Arm, curves: list[list[tuple[int, float]]], colour: str, hover: str) -> list[dict[str, Any]]:
    curves = [curve for curve in curves if curve]
    if not curves:
        return []
    faint = [
        _line([epoch for epoch, _ in curve], [value for _, value in curve], arm.name, colour)
        | {"opacity": 0.22, "hoverinfo": "skip", "line": {"color": colour, "width": 1}}
        for curve in curves
    ]
    tables = [dict(curve) for curve in curves]
    epochs = [epoch for epoch in tables[0] if all(epoch in table for table in tables)]
    means = [sum(table[epoch] for table in tables) / len(tables) for epoch in epochs]
    mean = _line(epochs, means, arm.name, colour) | {"hovertemplate": hover}
    if arm.is_baseline:
        mean["line"] = mean["line"] | {"dash": "dash"}
    return [*(faint if len(curves) > 1 else []), mean]


def _curve_figure(data: list[dict[str, Any]], vertical: dict[str, Any]) -> Figure:
    layout = blank_layout(height=280, left=56, right=14, top=12, bottom=46)
    layout["xaxis"] = titled(layout["xaxis"], {"title": {"text": "epoch"}})
    layout["yaxis"] = titled(layout["yaxis"], vertical)
    return {"data": data, "layout": layout}


def _loss_axis(values: Sequence[float]) -> dict[str, Any]:
    """Logarithmic where it can be; with 1, 2, 5 marked when the values span less than about a decade."""
    if not values or min(values) <= 0:
        return {"title": {"text": "training loss"}}
    wide = max(values) / min(values) > 30
    scale = {"type": "log", "dtick": 1 if wide else "D2", "tickformat": "~g"}
    return {"title": {"text": "training loss, log scale"}, **scale}


def _line(x: Sequence[int], y: Sequence[float], name: str, colour: str) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines" if len(x) > 1 else "markers",
        "x": list(x),
        "y": [short(value) for value in y],
        "name": escape(name),
        "line": {"color": colour, "width": 2.2},
        "marker": {"color": colour, "size": 8},
        "hoverlabel": {"namelength": -1},
    }


def _dot(x: Sequence[float], y: Sequence[float], colour: str, symbol: str, hollow: bool) -> dict[str, Any]:
    fill = "#ffffff" if hollow else colour
    marker = {"color": fill, "size": 11, "symbol": symbol, "line": {"color": colour, "width": 2}}
    return {
        "type": "scatter",
        "mode": "markers",
        "x": list(x),
        "y": list(y),
        "marker": marker,
        "hoverinfo": "text",
    }


def _reference(score: Score) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    mean = score.mean * 100
    shapes = [_dashed(mean, "x")]
    if score.low is not None and score.high is not None:
        band = {
            "type": "rect",
            "xref": "x",
            "yref": "paper",
            "y0": 0,
            "y1": 1,
            "layer": "below",
            "line": {"width": 0},
        }
        shapes.append(band | {"x0": score.low * 100, "x1": score.high * 100, "fillcolor": "#3e4c5918"})
    note = {
        "text": f"full data {percent(score.mean)}",
        "x": mean,
        "y": 1,
        "yref": "paper",
        "yanchor": "bottom",
        "xanchor": "center",
        "showarrow": False,
        "font": {"color": FULL_DATA, "size": 12},
    }
    return shapes, [note]


def _dashed(value: float, axis: str) -> dict[str, Any]:
    other = "y" if axis == "x" else "x"
    ends = {f"{axis}0": value, f"{axis}1": value, f"{other}0": 0, f"{other}1": 1, f"{other}ref": "paper"}
    return {
        "type": "line",
        f"{axis}ref": axis,
        **ends,
        "line": {"color": FULL_DATA, "width": 1.5, "dash": "dash"},
    }


def _note(text: str, place: float, *, x: float, anchor: str, colour: str, shift: int = 0) -> dict[str, Any]:
    header = anchor == "left"
    return {
        "text": f"<b>{escape(text)}</b>" if header else text,
        "x": x,
        "xref": "paper",
        "xanchor": anchor,
        "xshift": shift,
        "y": place,
        "yanchor": "middle",
        "showarrow": False,
        "font": {"color": colour, "size": 13},
        **({"bgcolor": "#ffffff"} if header else {}),
    }


def _tick(arm: Arm) -> str:
    name = escape(short_name(arm))
    return f'{name} <span style="color:{MUTED}">(baseline)</span>' if arm.is_baseline else name


def _accuracy_range(study: Study) -> list[float]:
    values = [run.final for runs in study.runs.values() for run in runs]
    for score in (arm.final for arm in study.facts.arms if arm.final is not None):
        values += [value for value in (score.mean, score.low, score.high) if value is not None]
    low, high = min(values, default=0.0) * 100, max(values, default=1.0) * 100
    pad = max(1.0, 0.05 * (high - low))
    return [low - pad, high + pad]


def _curve_range(study: Study) -> list[float]:
    """One vertical scale for all panels, so that they can be compared at a glance."""
    values = [value for runs in study.runs.values() for run in runs for _, value in run.curve]
    low, high = min(values, default=0.0) * 100, max(values, default=1.0) * 100
    pad = max(1.0, 0.05 * (high - low))
    return [max(0.0, low - pad), high + pad]
