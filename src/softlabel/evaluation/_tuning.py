"""Learning rates chosen on the selection split: tells "fails at the default" from "fails when tuned"."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from softlabel.training import Optimizer

Key = TypeVar("Key", bound=Hashable)
Measure = Callable[[Sequence[tuple[Key, Optimizer]]], Sequence[float | None]]
"""Accuracy on the selection split of each (key, optimizer); None where training blew up."""


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """How a learning rate is searched.

    The default rate and its neighbours a decade up and down are tried; while the best is at an edge, the next decade
    is. At the end the two half decades beside the best are tried. All with one student of the stream `seed`, which no
    arm uses.

    Attributes:
        decades: how many decades away from the default may be tried.
        seed: of the students that choose.
    """

    decades: int = 4
    seed: int = 1000


def tune(tuning: Tuning, optimizers: Mapping[Key, Optimizer], measure: Measure[Key]) -> dict[Key, Optimizer]:
    """The optimizers with their best rate; of equal ones the nearest to the default, then the higher.

    Args:
        measure: trains and measures many at once, so that they can share views.
    """
    exponents: dict[Key, dict[float, float]] = {key: {} for key in optimizers}

    def look(wanted: Mapping[Key, Sequence[float]]) -> None:
        todo = [(key, e) for key, some in wanted.items() for e in some if e not in exponents[key]]
        rated = [(key, _at(optimizers[key], e)) for key, e in todo]
        for (key, e), accuracy in zip(todo, measure(rated), strict=True):
            exponents[key][e] = -1.0 if accuracy is None else accuracy

    look(dict.fromkeys(optimizers, (-1.0, 0.0, 1.0)))
    for _ in range(tuning.decades):
        wanted = {}
        for key, tried in exponents.items():
            best = _best(tried)
            if best == max(tried) and best < tuning.decades:
                wanted[key] = (best + 1.0,)
            elif best == min(tried) and best > -tuning.decades:
                wanted[key] = (best - 1.0,)
        if not wanted:
            break
        look(wanted)
    look({key: (_best(tried) - 0.5, _best(tried) + 0.5) for key, tried in exponents.items()})
    return {key: _at(optimizers[key], _best(tried)) for key, tried in exponents.items()}


def _best(tried: Mapping[float, float]) -> float:
    return max(tried, key=lambda exponent: (tried[exponent], -abs(exponent), exponent))


def _at(optimizer: Optimizer, exponent: float) -> Optimizer:
    return replace(optimizer, lr=float(f"{optimizer.lr * 10**exponent:.3g}"))
