"""How many images, with which labels: a question put to a fitted scaling surface."""

from collections.abc import Sequence
from dataclasses import dataclass

from softlabel.core import ConfigError
from softlabel.lab._law import Law, Prediction
from softlabel.lab._surface import Line


@dataclass(frozen=True, kw_only=True)
class Advice:
    """What one kind of labels needs for an accuracy.

    Attributes:
        images: per class, with an interval; None when the sizes measured do not hold the answer.
        measured: the least images per class of a measured cell that reached it.
        reached: whether the accuracy is reached within the sizes measured, if only by fewer images than the least.
    """

    line: Line
    images: Prediction | None
    reached: bool
    measured: int | None = None

    @property
    def note(self) -> str:
        """Why there is no number; empty where there is one."""
        if self.images is not None:
            return ""
        if self.reached:
            return f"{self.line.ipcs[0]} or fewer"
        told = f"the law stays below with up to {self.line.ipcs[-1]}"
        return told if self.measured is None else f"{told}; measured with {self.measured}"


def advise(laws: Sequence[Law], accuracy: float) -> list[Advice]:
    """What every kind of labels needs for `accuracy` (in 0..1), the fewest images first.

    Nothing is extrapolated: where the answer lies outside the sizes measured, the note says on which side.

    Raises:
        ConfigError: every kind of labels reaches the accuracy with the least images measured, or none does with the
            most; the message says what was measured.
    """
    if not 0 < accuracy < 1:
        raise ConfigError(f"The accuracy asked for must lie between 0 and 100 %. Got {100 * accuracy:g} %.")
    found = [_answer(law, accuracy) for law in laws]
    if all(answer.images is None for answer in found) and len({answer.reached for answer in found}) == 1:
        ends = [
            (law.accuracy(ipc).value, ipc, law.line) for law in laws for ipc in (law.line.ipcs[0], law.line.ipcs[-1])
        ]
        worst, best = (f(ends, key=lambda end: end[0]) for f in (min, max))
        raise ConfigError(
            f"{100 * accuracy:g} % lies outside what the fitted laws give within the sizes measured, and nothing is "
            f"extrapolated: {100 * worst[0]:.2f} % ({worst[2].name}, {worst[1]} per class) to {100 * best[0]:.2f} % "
            f"({best[2].name}, {best[1]} per class). Ask for an accuracy between, or run softlabel lab scaling with "
            f"other --ipc."
        )
    return sorted(found, key=_images)


def _answer(law: Law, accuracy: float) -> Advice:
    images = law.images(accuracy)
    reached = images is not None or law.accuracy(law.line.ipcs[0]).value >= accuracy
    measured = next((size.ipc for size in law.line.sizes if size.accuracy >= accuracy), None)
    return Advice(line=law.line, images=images, reached=reached, measured=measured)


def _images(answer: Advice) -> float:
    if answer.images is not None:
        return answer.images.value
    return float(answer.line.ipcs[0]) if answer.reached else float("inf")
