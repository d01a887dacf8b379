"""Which arms a plot of a grid shows, and in what words."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from softlabel.core import count_of, parse_spec
from softlabel.report._facts import Arm, StudyFacts
from softlabel.report._specs import AXES, SILENT, Epochs, PlotSpec, Sweep
from softlabel.report._text import images_of, loss_name, upper_first


@dataclass(frozen=True, kw_only=True)
class Placement:
    """The arms of one plot.

    Attributes:
        arms: one per pair of values of the plot's two axes, in the study's order.
        left_out: arms that belong here and are not drawn: they share such a pair with one that is, or stand alone.
    """

    arms: Mapping[tuple[str, str], Arm]
    left_out: int

    def values(self, position: int) -> list[str]:
        """The values of the plot's first (0) or second (1) axis, in order of first appearance."""
        return list(dict.fromkeys(pair[position] for pair in self.arms))


def place(facts: StudyFacts, plot: PlotSpec) -> Placement:
    """The arms that belong in `plot`. Of several in one place, the one closest to the study's usual settings."""
    hidden = swept_losses(facts)
    usual = _usual(facts)
    found: dict[tuple[str, str], list[Arm]] = {}
    for arm in grid_arms(facts):
        if _belongs(arm, plot, hidden):
            first, second = plot.axes
            found.setdefault((arm.axes[first], arm.axes[second]), []).append(arm)
    chosen = {pair: max(arms, key=lambda arm: _agreement(arm, usual)) for pair, arms in found.items()}
    shown = _joined(plot, chosen) if isinstance(plot, (Sweep, Epochs)) else chosen
    return Placement(arms=shown, left_out=sum(len(arms) for arms in found.values()) - len(shown))


def grid_arms(facts: StudyFacts) -> list[Arm]:
    """The arms that stand in the grid; the full-data baseline is drawn as a line instead."""
    return [arm for arm in facts.arms if arm.axes and arm is not facts.full_data]


def swept_losses(facts: StudyFacts) -> set[str]:
    """Losses that differ from another in an option that a sweep shows: other plots leave them to it."""
    arms = grid_arms(facts)
    own = {arm.axes["loss"] for arm in arms if arm.own_loss}
    sweeps = [plot for plot in facts.plots if isinstance(plot, Sweep)]
    return {
        arm.axes["loss"]
        for arm in arms
        for plot in sweeps
        if parse_spec(arm.axes["loss"])[1] and sweep_x(plot, arm) is not None
    } - own


def sweep_x(plot: Sweep, arm: Arm) -> float | None:
    """Where an arm stands on a sweep; None when it does not belong there."""
    name, options = parse_spec(arm.axes["loss"])
    if name != plot.loss:
        return None
    if not options:
        return plot.default
    value = options.get(plot.parameter)
    alone = len(options) == 1 and isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if alone and value is not None else None


def curve_x(plot: Sweep | Epochs, arm: Arm) -> float | None:
    """Where an arm stands on a curve; None when it does not belong there."""
    return sweep_x(plot, arm) if isinstance(plot, Sweep) else plot.x.get(arm.axes[plot.axis])


def value_label(facts: StudyFacts, axis: str, value: str) -> str:
    """A value of an axis in words, e.g. `RDED images`, `GIFT`, `adamw`."""
    if axis == "loss":
        return loss_name(value)
    entry = next((entry for entry in facts.sets if entry.name == value), None) if axis == "set" else None
    return upper_first(images_of(entry, facts.sets)) if entry else value


def settings_note(facts: StudyFacts, plot: PlotSpec, placement: Placement) -> str:
    """What the drawn arms have in common and what the plot leaves out, as sentences."""
    drawn = list(placement.arms.values())
    common: list[str] = []
    mixed: list[str] = []
    for axis in AXES:
        if axis in plot.axes or len(_values(grid_arms(facts), axis)) < 2:
            continue
        values = _values(drawn, axis)
        if len(values) == 1:
            common.append(f"{axis} {values[0]}")
        elif values:
            mixed.append(axis)
    sentences = [
        f"All with {', '.join(common)}." if common else "",
        f"The arms also differ in {' and '.join(mixed)}: see their names." if mixed else "",
        f"Not drawn here: {count_of(placement.left_out, 'more arm')}, which the table lists."
        if placement.left_out
        else "",
    ]
    return " ".join(sentence for sentence in sentences if sentence)


def _belongs(arm: Arm, plot: PlotSpec, hidden: set[str]) -> bool:
    if any(arm.axes[axis] not in values for axis, values in plot.where.items()):
        return False
    if isinstance(plot, Sweep):
        return sweep_x(plot, arm) is not None
    if isinstance(plot, Epochs) and arm.axes[plot.axis] not in plot.x:
        return False
    return "loss" not in plot.axes or "loss" in plot.where or arm.axes["loss"] not in hidden


def _joined(plot: Sweep | Epochs, arms: Mapping[tuple[str, str], Arm]) -> dict[tuple[str, str], Arm]:
    """Without the lines that are a single point, unless every line is: a point says nothing about a curve."""
    places: dict[str, set[float | None]] = {}
    for (_, line), arm in arms.items():
        places.setdefault(line, set()).add(curve_x(plot, arm))
    long = {line for line, xs in places.items() if len(xs) > 1}
    return {pair: arm for pair, arm in arms.items() if not long or pair[1] in long}


def _usual(facts: StudyFacts) -> dict[str, str]:
    """The most common value of each axis; the first of equally common ones."""
    counts = {axis: Counter(arm.axes[axis] for arm in grid_arms(facts)) for axis in AXES}
    return {axis: count.most_common(1)[0][0] for axis, count in counts.items() if count}


def _agreement(arm: Arm, usual: Mapping[str, str]) -> int:
    return sum(arm.axes[axis] == value for axis, value in usual.items())


def _values(arms: Iterable[Arm], axis: str) -> list[str]:
    """The values of an axis but those that say no more than that a loss looks at no teacher."""
    return list(dict.fromkeys(arm.axes[axis] for arm in arms if arm.axes[axis] != SILENT.get(axis)))
