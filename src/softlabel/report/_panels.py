"""The plots of a grid as the page shows them: order, width, legend and words."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from markupsafe import Markup

from softlabel.report._facts import StudyFacts
from softlabel.report._figure import Figure
from softlabel.report._grid import Placement, place, settings_note
from softlabel.report._grid_plots import GridKey, grid_figure, grid_keys
from softlabel.report._palette import Palette
from softlabel.report._specs import Bars, Heat, PlotSpec, Sweep

MOST_NARROW_COLUMNS = 6
Draw = Callable[[str, Figure], Markup]
"""Turns a name and a figure into HTML."""


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One plot. A wide one takes the page's whole width, a narrow one half; `plot` is empty when no arm belongs."""

    title: str
    hint: str
    keys: Sequence[GridKey]
    own_loss: bool
    plot: Markup
    wide: bool


def panels(facts: StudyFacts, palette: Palette, draw: Draw) -> list[Panel]:
    """The plots that the study asks for, in its order."""
    found = [_panel(number, facts, plot, palette, draw) for number, plot in enumerate(facts.plots)]
    return _paired(found)


def _panel(number: int, facts: StudyFacts, plot: PlotSpec, palette: Palette, draw: Draw) -> Panel:
    placement = place(facts, plot)
    figure = grid_figure(facts, plot, placement, palette) if placement.arms else None
    return Panel(
        title=plot.title,
        hint=" ".join(part for part in (_reading(plot), settings_note(facts, plot, placement)) if part),
        keys=grid_keys(facts, plot, placement, palette),
        own_loss=isinstance(plot, Bars) and any(arm.own_loss for arm in placement.arms.values()),
        plot=draw(f"grid-{number}", figure) if figure else Markup(),
        wide=_needs_width(plot, placement),
    )


def _reading(plot: PlotSpec) -> str:
    if isinstance(plot, Bars):
        return ""
    if isinstance(plot, Heat):
        return "Final accuracy, %, \u00b1 standard deviation over seeds; darker is higher."
    scale = "The scale does not begin at zero."
    return f"The loss {plot.loss} with other values of {plot.parameter}. {scale}" if isinstance(plot, Sweep) else scale


def _needs_width(plot: PlotSpec, placement: Placement) -> bool:
    if isinstance(plot, Heat):
        return len(placement.values(1)) > MOST_NARROW_COLUMNS
    return isinstance(plot, Bars)


def _paired(found: Sequence[Panel]) -> list[Panel]:
    """The last of an odd run of narrow panels becomes wide, so that no half of the page stays empty."""
    done: list[Panel] = []
    run = 0
    for position, panel in enumerate(found):
        run = 0 if panel.wide else run + 1
        last = position + 1 == len(found) or found[position + 1].wide
        done.append(replace(panel, wide=True) if run % 2 and last else panel)
    return done
