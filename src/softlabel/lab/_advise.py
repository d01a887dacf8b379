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
        note: why there is none.
    """

    line: Line
    images: Prediction | None
    note: str = ""


def advise(laws: Sequence[Law], accuracy: float) -> list[Advice]:
    """What every kind of labels needs for `accuracy` (in 0..1), the fewest images first.

    Nothing is extrapolated: where the answer lies outside the sizes measured, the note says on which side.

    Raises:
        ConfigError: no kind of labels holds the answer; the message says what was measured.
    """
    if not 0 < accuracy < 1:
        raise ConfigError(f"The accuracy asked for must lie between 0 and 100 %. Got {100 * accuracy:g} %.")
    found = [_answer(law, accuracy) for law in laws]
    if all(answer.images is None for answer in found):
        cells = [(size.accuracy, size.ipc, law.line) for law in laws for size in law.line.sizes]
        worst, best = (f(cells, key=lambda cell: cell[0]) for f in (min, max))
        raise ConfigError(
            f"{100 * accuracy:g} % lies outside the surface, and it is not extrapolated: measured were "
            f"{100 * worst[0]:.1f} % ({worst[2].name}, {worst[1]} per class) to {100 * best[0]:.1f} % ({best[2].name}, "
            f"{best[1]} per class). Ask for an accuracy between, or run softlabel lab scaling with other --ipc."
        )
    return sorted(found, key=lambda answer: answer.images.value if answer.images else float("inf"))


def _answer(law: Law, accuracy: float) -> Advice:
    images, ipcs = law.images(accuracy), law.line.ipcs
    if images is not None:
        return Advice(line=law.line, images=images)
    enough = law.accuracy(ipcs[0]).value >= accuracy
    note = f"{ipcs[0]} or fewer" if enough else f"not reached with up to {ipcs[-1]}"
    return Advice(line=law.line, images=None, note=note)
