"""The HTML page: what the template is given, and its rendering."""

from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import plotly.io
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from softlabel.core import DistilledSet, fingerprint, plain
from softlabel.report import _plots as plots
from softlabel.report import _text as text
from softlabel.report._classes import classes_figure, entropy_figure
from softlabel.report._continual import continual_figure, continual_keys, continual_rows
from softlabel.report._facts import Arm, LabelShown, SetFacts, StudyFacts
from softlabel.report._figure import Figure
from softlabel.report._frontier import frontier_figure, frontier_keys, image_forms, regime_notes, regime_rows
from softlabel.report._headline import best_arm, finding, headline_of, tally
from softlabel.report._palette import MARKS, Palette
from softlabel.report._panels import panels
from softlabel.report._pictures import contact_sheet, picture
from softlabel.report._samples import samples_view
from softlabel.report._shown import (
    BarRow,
    ByteRow,
    ContinualView,
    Fact,
    FrontierView,
    LabelCard,
    LabelsView,
    SetView,
    Span,
    SurfaceView,
)
from softlabel.report._study import Study, read_study
from softlabel.report._surface import (
    cells_figure,
    contour_figure,
    contour_keys,
    surface_facts,
    surface_keys,
)
from softlabel.report._tables import result_row, verdict_row

_PLOT_CONFIG = {"displaylogo": False, "displayModeBar": False, "responsive": True}


def render_html(study: Path) -> str:
    """The report of the study at `study` as one self-contained HTML document.

    Raises:
        StoreError: the study, or a run record it lists, is missing or damaged.
    """
    return render(read_study(study))


def render(study: Study) -> str:
    """`render_html` for a study that is read already."""
    facts = study.facts
    palette = Palette(facts)
    seconds = study.train_seconds
    groups = plots.groups(study)
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            facts=facts,
            text=text,
            headline=headline_of(facts),
            tally=tally(facts),
            key_facts=_key_facts(facts),
            rows=[(arm, result_row(arm, seconds.get(arm.name))) for arm in facts.arms],
            first_of_set=_first_of_set(facts.arms),
            verdicts=_verdicts(facts),
            keys=palette.keys,
            panels=panels(facts, palette, _plot),
            continual=_continual(facts, palette),
            surface=_surface(facts),
            frontier=_frontier(facts),
            labels_said=_labels_said(facts),
            marks=[(MARKS[position % len(MARKS)], group.title) for position, group in enumerate(groups)],
            accuracy_plot=_plot("accuracy", plots.accuracy_figure(study, palette)) if facts.arms else "",
            curves=_curves(study, groups, palette),
            teacher_plots=_teacher_plots(facts.teacher),
            samples=samples_view(facts.samples, facts.class_name, study.path),
            sets=[_set_view(entry, study.sets[entry.name], facts) for entry in facts.sets],
            cards=[_label_card(shown, study) for shown in facts.labels_shown],
            byte_rows=_byte_rows(facts),
            bytes_plot=_plot("bytes", plots.bytes_figure(study, palette)) if facts.arms else "",
            settings=text.flat_settings(facts.protocol.settings),
            environment=text.flat_settings(facts.environment),
            study_fingerprint=fingerprint(plain(study.meta)),
            plotly=Markup(get_plotlyjs()),
        )
    )


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("softlabel.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _plot(name: str, figure: Figure) -> Markup:
    # Plotly writes < and > in its JSON as \u003c and \u003e, so no text in it can end the script element.
    html = plotly.io.to_html(
        figure,
        config=_PLOT_CONFIG,
        full_html=False,
        include_plotlyjs=False,
        div_id=f"plot-{name}",
        default_height=f"{figure['layout']['height']}px",
        validate=False,
    )
    return Markup(html)


def _curves(study: Study, groups: Sequence[plots.Group], palette: Palette) -> list[tuple[str, Markup, Markup]]:
    return [
        (
            text.upper_first(group.title),
            _plot(f"accuracy-{number}", plots.accuracy_curves(study, group, palette)),
            _plot(f"loss-{number}", plots.loss_curves(study, group, palette)),
        )
        for number, group in enumerate(groups)
        if any(run.curve or run.train_loss for arm in group.arms for run in study.runs[arm.name])
    ]


def _continual(facts: StudyFacts, palette: Palette) -> ContinualView | None:
    continual = facts.continual
    if continual is None:
        return None
    return ContinualView(
        keys=continual_keys(continual, palette),
        rows=continual_rows(continual),
        plot=_plot("continual", continual_figure(facts, continual, palette)),
    )


def _frontier(facts: StudyFacts) -> FrontierView | None:
    found = facts.regimes
    if not found:
        return None
    return FrontierView(
        rows=(rows := regime_rows(found)),
        notes=regime_notes(rows),
        keys=frontier_keys(found),
        plot=_plot("frontier", frontier_figure(found)),
        forms=[image_forms(entry) for entry in facts.sets if entry.image_forms],
    )


def _labels_said(facts: StudyFacts) -> LabelsView | None:
    said = facts.label_facts
    if not said:
        return None
    shown = []
    if sum(one.epoch is not None for one in said) > 1:
        shown.append(("How unsure the labels are", _plot("entropy", entropy_figure(said))))
    # The first of a trajectory knows little, the last hardly mixes anything up: the middle shows most.
    middle = said[(len(said) - 1) // 2]
    if middle.classes:
        figure = classes_figure(middle, facts.info.class_names)
        shown.append((f"Where the labels of {middle.name} go but to the own class", _plot("classes", figure)))
    return LabelsView(
        facts=said, kin=any(one.kinship for one in said), learned=said[0].distance is not None, plots=shown
    )


def _surface(facts: StudyFacts) -> SurfaceView | None:
    if facts.surface is None:
        return None
    found = surface_facts(facts.surface)
    contours = []
    for epoch in facts.surface.experts:
        figure = contour_figure(found, epoch)
        if figure is not None:
            contours.append((f"Labels of epoch {epoch}", _plot(f"contour-{epoch}", figure)))
    return SurfaceView(
        facts=found,
        keys=surface_keys(found),
        cells=_plot("surface", cells_figure(found)),
        contour_keys=contour_keys(found),
        contours=contours,
    )


def _teacher_plots(teacher: dict[str, Any] | None) -> list[Markup]:
    if not teacher or not teacher.get("curve"):
        return []
    accuracy, loss = plots.teacher_figures(teacher)
    return [_plot("teacher-accuracy", accuracy), _plot("teacher-loss", loss)]


def _key_facts(facts: StudyFacts) -> list[Fact]:
    found: list[Fact] = []
    best = best_arm(facts)
    full = facts.full_data
    if best is not None and best is not full:
        found.append(
            Fact(value=f"{text.plus_minus(best.final)} %", label="highest accuracy on a small set", hint=best.name)
        )
    if full is not None and full.final is not None:
        found.append(Fact(value=f"{text.plus_minus(full.final)} %", label="full data set", hint=full.name))
    if best is not None and best is not full:
        size = text.human_bytes(best.bytes.total)
        found.append(Fact(value=size, label="stored to train it", hint="images, labels and labeler"))
    if full is not None and best is not None and best is not full and full.bytes.total:
        share = best.bytes.total / full.bytes.total * 100
        whole = f"of {text.human_bytes(full.bytes.total)}"
        found.append(Fact(value=f"{share:.2g} %", label="of the full data set's bytes", hint=whole))
    return found


def _first_of_set(arms: Sequence[Arm]) -> set[str]:
    """Names of the arms before which the result table draws a rule."""
    return {arm.name for before, arm in pairwise(arms) if before.set != arm.set}


def _verdicts(facts: StudyFacts) -> list[dict[str, Any]]:
    edges = [0.0]
    for comparison in facts.comparisons:
        score = comparison.difference
        if score is not None:
            edges += [edge for edge in (score.mean, score.low, score.high) if edge is not None]
    low, high = min(edges), max(edges)
    size = max(high - low, 1e-9)

    def place(value: float | None) -> float | None:
        return None if value is None else round(4 + 92 * (value - low) / size, 2)

    return [
        {
            "row": verdict_row(comparison),
            "sentence": finding(facts, comparison),
            "kind": comparison.verdict.split()[0],
            "zero": place(0.0),
            **{part: place(getattr(comparison.difference, part, None)) for part in ("mean", "low", "high")},
        }
        for comparison in facts.comparisons
    ]


def _set_view(entry: SetFacts, loaded: DistilledSet | str, facts: StudyFacts) -> SetView:
    title = text.upper_first(text.images_of(entry, facts.sets))
    if isinstance(loaded, str):
        return SetView(facts=entry, title=title, sheet=None, problem=loaded, cell=0)
    sheet = contact_sheet(loaded)
    # Few images per class leave room to show each of them larger.
    cell = 46 if sheet.columns > 4 else 72
    return SetView(facts=entry, title=title, sheet=sheet, problem="", cell=cell)


def _label_card(shown: LabelShown, study: Study) -> LabelCard:
    loaded = study.sets.get(shown.set)
    available = isinstance(loaded, DistilledSet) and 0 <= shown.image < len(loaded)
    uri = picture(loaded.images[shown.image]) if isinstance(loaded, DistilledSet) and available else ""
    values = [value for bar in shown.bars for value in (bar.before, bar.after)]
    low, high = min([0.0, *values]), max([0.0, *values])
    size = max(high - low, 1e-9)

    def span(value: float) -> Span:
        start, end = sorted((0.0, value))
        return Span(left=round(100 * (start - low) / size, 2), width=round(100 * (end - start) / size, 2))

    rows = tuple(
        BarRow(
            name=study.facts.class_name(bar.class_index),
            is_target=bar.class_index == shown.target,
            probability=text.percent(bar.probability),
            before=span(bar.before),
            after=span(bar.after),
            before_value=bar.before,
            after_value=bar.after,
        )
        for bar in shown.bars
    )
    return LabelCard(
        set=shown.set, image=shown.image, class_name=study.facts.class_name(shown.target), uri=uri, rows=rows
    )


def _byte_rows(facts: StudyFacts) -> list[ByteRow]:
    """Bars on the scale of the largest distilled arm; full data, often far larger, is cut off and says so."""
    scale = max((arm.bytes.total for arm in facts.distilled_arms or facts.arms), default=0) or 1
    return [
        ByteRow(arm=arm, parts=_shares(arm, max(scale, arm.bytes.total)), beyond=_beyond(arm, scale))
        for arm in facts.arms
    ]


def _shares(arm: Arm, scale: int) -> tuple[float, float, float]:
    images, labels, labeler = arm.bytes.images, arm.bytes.labels, arm.bytes.labeler
    return (100 * images / scale, 100 * labels / scale, 100 * labeler / scale)


def _beyond(arm: Arm, scale: int) -> str:
    ratio = arm.bytes.total / scale
    return f"{ratio:.2g} times the scale" if ratio > 1.005 else ""
