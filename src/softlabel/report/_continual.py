"""The continual part of a study: accuracy as classes arrive, average accuracy and forgetting."""

from dataclasses import dataclass
from itertools import pairwise

from softlabel.report._facts import Continual, StudyFacts
from softlabel.report._figure import Figure
from softlabel.report._grid_plots import GridKey
from softlabel.report._lines import Line, Point, lines_figure
from softlabel.report._palette import MARKS, Palette
from softlabel.report._text import NO_VALUE, interval, percent, plus_minus


@dataclass(frozen=True, kw_only=True)
class ContinualRow:
    """One arm as text: accuracy after each step, then average and forgetting with their intervals."""

    name: str
    steps: tuple[str, ...]
    average: str
    average_interval: str
    forgetting: str
    forgetting_interval: str


def continual_figure(facts: StudyFacts, continual: Continual, palette: Palette) -> Figure:
    """Accuracy on all classes seen so far against their number: a colour per loss, a symbol and dash per set."""
    sets = list(dict.fromkeys(arm.set for arm in continual.arms))
    shifts = _shifts(continual)
    lines = [
        Line(
            name=arm.name,
            colour=palette.value_colour("loss", arm.loss),
            mark=sets.index(arm.set),
            dash=sets.index(arm.set),
            points=[
                Point(x=seen + shifts[position], score=score, hover=(arm.name, f"after {seen} classes"))
                for seen, score in zip(continual.seen, arm.steps, strict=True)
            ],
        )
        for position, arm in enumerate(continual.arms)
    ]
    figure = lines_figure(lines, x_title="classes seen", y_title="accuracy on classes seen, %")
    figure["layout"]["xaxis"]["tickvals"] = list(continual.seen)
    figure["layout"]["height"] = 400
    return figure


def _shifts(continual: Continual) -> list[float]:
    """How far each arm is moved aside, in classes, so that the intervals of one step do not cover each other."""
    seen = (0, *continual.seen)
    least = min((after - before for before, after in pairwise(seen)), default=0)
    count = len(continual.arms)
    return [round(0.03 * least * (position - (count - 1) / 2), 6) for position in range(count)]


def continual_keys(continual: Continual, palette: Palette) -> list[GridKey]:
    """The legend: an entry per arm."""
    sets = list(dict.fromkeys(arm.set for arm in continual.arms))
    return [
        GridKey(
            label=arm.name,
            colour=palette.value_colour("loss", arm.loss),
            mark=MARKS[sets.index(arm.set) % len(MARKS)],
        )
        for arm in continual.arms
    ]


def continual_rows(continual: Continual) -> list[ContinualRow]:
    """The table, in the study's order."""
    return [
        ContinualRow(
            name=arm.name,
            steps=tuple(NO_VALUE if score is None else percent(score.mean) for score in arm.steps),
            average=plus_minus(arm.average),
            average_interval=interval(arm.average),
            forgetting=plus_minus(arm.forgetting),
            forgetting_interval=interval(arm.forgetting),
        )
        for arm in continual.arms
    ]
