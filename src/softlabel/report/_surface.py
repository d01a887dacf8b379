"""The scaling surface of a study: measured cells, fitted laws, equal-accuracy contours and the Pareto front."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from softlabel.core import ConfigError
from softlabel.lab import HeldOut, Law, Line, Surface, fit_laws, front, hold_out
from softlabel.report._figure import Figure, blank_layout, escape, short, titled
from softlabel.report._grid_plots import GridKey
from softlabel.report._palette import INK, MARKS, MUTED, SYMBOLS
from softlabel.report._text import NO_VALUE

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#56b4e9", "#6a51a3")
_CURVE_POINTS = 40
CONTOURS = 4


@dataclass(frozen=True, kw_only=True)
class LawRow:
    """One line of the surface in text: its law, and the images per class that it needs for each contour."""

    name: str
    asymptote: str
    beta: str
    images: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class SurfaceFacts:
    """What the page shows of a surface.

    Attributes:
        levels: the contours' accuracies, in percent.
        problem: why no law could be fitted; empty when one could.
        held: how well cells left out are foretold; None when none could be.
    """

    surface: Surface
    laws: tuple[Law, ...]
    levels: tuple[float, ...]
    rows: tuple[LawRow, ...]
    held: HeldOut | None
    problem: str = ""


def surface_facts(surface: Surface) -> SurfaceFacts:
    """The laws of a surface, or the reason why it has none."""
    try:
        laws = fit_laws(surface)
    except ConfigError as error:
        return SurfaceFacts(surface=surface, laws=(), levels=(), rows=(), held=None, problem=str(error))
    levels = _levels(laws)
    rows = tuple(_row(law, levels) for law in laws)
    return SurfaceFacts(surface=surface, laws=tuple(laws), levels=levels, rows=rows, held=hold_out(surface))


def surface_keys(facts: SurfaceFacts) -> list[GridKey]:
    """The legend: a colour and symbol per expert."""
    return [
        GridKey(label=_expert(epoch), colour=_colour(position), mark=MARKS[position % len(MARKS)])
        for position, epoch in enumerate(facts.surface.experts)
    ]


def cells_figure(facts: SurfaceFacts) -> Figure:
    """Every measured cell, the laws of whole and of hard labels, and the Pareto front."""
    data: list[dict[str, Any]] = []
    for position, (epoch, lines) in enumerate(facts.surface.experts.items()):
        colour, whole = _colour(position), max(lines, key=lambda line: line.kept)
        for line in lines:
            data.append(_points(line, colour, SYMBOLS[position % len(SYMBOLS)], filled=line is whole))
        data += [_curve(law, colour) for law in facts.laws if law.line == whole and law.line.epoch == epoch]
    best = front(facts.surface.lines)
    data.append({
        "type": "scatter", "mode": "lines", "name": "Pareto front", "hoverinfo": "skip",
        "x": [size.ipc for _, size in best], "y": [short(100 * size.accuracy) for _, size in best],
        "line": {"color": INK, "width": 1.2, "dash": "dot", "shape": "hv"},
    })  # fmt: skip
    layout = blank_layout(height=400, left=56, right=16, top=14, bottom=52)
    layout["xaxis"] = _log_axis(
        layout["xaxis"], "images per class", [n for line in facts.surface.lines for n in line.ipcs]
    )
    layout["yaxis"] = titled(layout["yaxis"], {"title": {"text": "final accuracy, %"}})
    return {"data": data, "layout": layout | {"hovermode": "closest"}}


def contour_figure(facts: SurfaceFacts, epoch: int | None) -> Figure | None:
    """Images per class that reach each level, over the entries kept; None where no level is reached by two lines."""
    laws = [law for law in facts.laws if law.line.epoch == epoch]
    data = []
    for position, level in enumerate(facts.levels):
        found = [(law.line.kept, law.images(level / 100)) for law in laws]
        reached = [(kept, images) for kept, images in found if images is not None]
        if len(reached) > 1:
            data.append({
                "type": "scatter", "mode": "lines+markers", "name": f"{level:g} %", "hoverinfo": "text",
                "x": [kept for kept, _ in reached], "y": [short(images.value) for _, images in reached],
                "hovertext": [f"{level:g} % with top {kept}: {images.value:.1f} per class" for kept, images in reached],
                "line": {"color": _colour(position), "width": 2},
                "marker": {"color": _colour(position), "size": 9, "symbol": SYMBOLS[position % len(SYMBOLS)]},
            })  # fmt: skip
    if not data:
        return None
    layout = blank_layout(height=340, left=56, right=16, top=14, bottom=52)
    layout["xaxis"] = _log_axis(layout["xaxis"], "entries of a label kept", [law.line.kept for law in laws])
    layout["yaxis"] = _log_axis(layout["yaxis"], "images per class", [n for law in laws for n in law.line.ipcs])
    return {"data": data, "layout": layout | {"hovermode": "closest"}}


def contour_keys(facts: SurfaceFacts) -> list[GridKey]:
    """The legend of the contours: a level each."""
    return [
        GridKey(label=f"{level:g} %", colour=_colour(position), mark=MARKS[position % len(MARKS)])
        for position, level in enumerate(facts.levels)
    ]


def _levels(laws: Sequence[Law]) -> tuple[float, ...]:
    """Round accuracies in percent that cut the middle of what was measured."""
    values = sorted(100 * size.accuracy for law in laws for size in law.line.sizes)
    cuts = np.quantile(values, np.linspace(0.3, 0.9, CONTOURS))
    step = 5.0 if values[-1] - values[0] > 20 else 1.0
    return tuple(dict.fromkeys(float(step * round(cut / step)) for cut in cuts))


def _row(law: Law, levels: Sequence[float]) -> LawRow:
    told = tuple(_needed(law, level / 100) for level in levels)
    low, high = law.ceiling
    asymptote = f"{100 * law.asymptote:.1f} ({100 * low:.0f} to {100 * high:.0f})"
    beta = f"{law.beta:.2f}{'*' if law.at_bound else ''}"
    return LawRow(name=law.line.name, asymptote=asymptote, beta=beta, images=told)


def _needed(law: Law, accuracy: float) -> str:
    """Images per class; at the least measured where these are enough, a dash where the most measured are not."""
    images, first = law.images(accuracy), law.line.ipcs[0]
    if images is not None:
        return f"{images.value:.1f}"
    return f"\u2264 {first}" if law.accuracy(first).value >= accuracy else NO_VALUE


def _points(line: Line, colour: str, symbol: str, *, filled: bool) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": escape(line.name),
        "x": list(line.ipcs),
        "y": [short(100 * size.accuracy) for size in line.sizes],
        "marker": {"color": colour, "size": 9 if filled else 6, "symbol": symbol if filled else f"{symbol}-open"},
        "hoverinfo": "text",
        "hovertext": [
            f"<b>{escape(line.name)}</b><br>{size.ipc} per class: {100 * size.accuracy:.1f} %" for size in line.sizes
        ],
    }


def _curve(law: Law, colour: str) -> dict[str, Any]:
    x = np.geomspace(law.line.ipcs[0], law.line.ipcs[-1], _CURVE_POINTS).clip(law.line.ipcs[0], law.line.ipcs[-1])
    y = [short(100 * law.accuracy(float(n)).value) for n in x]
    line = {"color": colour, "width": 1.6}
    return {"type": "scatter", "mode": "lines", "x": [short(float(n)) for n in x], "y": y, "line": line,
            "hoverinfo": "skip", "name": escape(f"law of {law.line.name}")}  # fmt: skip


def _log_axis(axis: dict[str, Any], title: str, values: Sequence[int]) -> dict[str, Any]:
    """A logarithmic axis with a tick at every value measured."""
    ticks = sorted(set(values))
    return titled(
        axis, {"title": {"text": title}, "type": "log", "tickvals": ticks, "ticktext": [str(t) for t in ticks]}
    )


def _expert(epoch: int | None) -> str:
    return "hard labels" if epoch is None else f"expert of epoch {epoch}"


def _colour(position: int) -> str:
    return MUTED if position >= len(_COLOURS) else _COLOURS[position]
