"""Colours and names of the treatments, the same in every plot.

The first colours are Okabe and Ito's, which can be told apart with any colour vision.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from softlabel.report._facts import Arm, StudyFacts
from softlabel.report._grid import grid_arms, swept_losses
from softlabel.report._specs import AXES
from softlabel.report._text import treatment

INK = "#1f2933"
MUTED = "#616e7c"
RULE = "#e4e7eb"
FULL_DATA = "#3e4c59"
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#56b4e9", "#6a51a3")
_MORE_COLOURS = (*_COLOURS, "#882255", "#44aa99", "#7b8794", "#a6611a", "#332288", "#117733", "#661100")
"""A grid has more losses than a single comparison."""
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "pentagon", "hexagon")
MARKS = ("\u25cf", "\u25a0", "\u25c6", "\u25b2", "\u271a", "\u2b1f", "\u2b22")
"""The same symbols as text, for a legend that needs no script."""


@dataclass(frozen=True)
class Key:
    """A line of a legend."""

    label: str
    colour: str


class Palette:
    """Gives each treatment (loss and labels) of a study its colour, in the order of first appearance."""

    def __init__(self, facts: StudyFacts) -> None:
        self._full_data = facts.full_data
        arms = facts.distilled_arms or facts.arms
        pairs = list(dict.fromkeys((arm.loss, arm.labels) for arm in arms))
        hidden = swept_losses(facts)
        # The values of a swept option come last, so that the losses that stand side by side differ most.
        pairs.sort(key=lambda pair: pair[0] in hidden)
        chosen = _MORE_COLOURS if facts.is_grid else _COLOURS
        self._colours = {pair: chosen[position % len(chosen)] for position, pair in enumerate(pairs)}
        self._labels = dict(zip(pairs, _labels(arms, pairs), strict=True))
        self._values = _values(facts)

    @property
    def keys(self) -> list[Key]:
        """The legend of the treatments."""
        return [Key(self._labels[pair], colour) for pair, colour in self._colours.items()]

    def colour(self, arm: Arm) -> str:
        """The colour of an arm; full data is grey."""
        if arm is self._full_data:
            return FULL_DATA
        return self._colours.get((arm.loss, arm.labels), MUTED)

    def value_colour(self, axis: str, value: str) -> str:
        """The colour of one value of an axis; a loss keeps the colour that it has elsewhere."""
        if axis == "loss":
            return next((colour for (loss, _), colour in self._colours.items() if loss == value), MUTED)
        order = self._values.get(axis, [])
        return _MORE_COLOURS[order.index(value) % len(_MORE_COLOURS)] if value in order else MUTED


def _values(facts: StudyFacts) -> dict[str, list[str]]:
    arms = grid_arms(facts)
    return {axis: list(dict.fromkeys(arm.axes[axis] for arm in arms)) for axis in AXES}


def _labels(arms: Iterable[Arm], pairs: list[tuple[str, str]]) -> list[str]:
    first = {(arm.loss, arm.labels): arm for arm in reversed(list(arms))}
    words = [treatment(first[pair]) for pair in pairs]
    # The labels' name is added only where the loss alone would not tell two treatments apart.
    return [
        f"{word} ({pair[1]} labels)" if words.count(word) > 1 else word for word, pair in zip(words, pairs, strict=True)
    ]
