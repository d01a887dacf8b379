"""Learning rates chosen on the selection split: tells "fails at the default" from "fails when tuned"."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from softlabel.training import Optimizer

Key = TypeVar("Key", bound=Hashable)
Measure = Callable[[Sequence[tuple[Key, Optimizer]]], Sequence[float | None]]
"""Accuracy on the selection split of each (key, optimizer); None where training blew up."""


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """How a learning rate is searched.

    All decades from `below` under the default rate to `above` over it are tried, whatever the first ones say: a loss
    with tiny gradients stays at chance for decades before it learns anything. While the best is the lowest or highest
    tried, the next decade is tried too, up to `further` times. At the end the two half decades beside the best are.
    All with one student of the stream `seed`, which no arm uses.
    """

    below: int = 2
    above: int = 3
    further: int = 2
    seed: int = 1000


@dataclass(frozen=True)
class Tuned(Generic[Key]):
    """What a search found: the best optimizer of every key, and all that was tried, as {rate: accuracy or None}."""

    best: dict[Key, Optimizer]
    tried: dict[Key, dict[float, float | None]]


def tune(tuning: Tuning, optimizers: Mapping[Key, Optimizer], measure: Measure[Key]) -> Tuned[Key]:
    """Search the rates of several optimizers at once; of equally good rates, the one nearest to the default.

    Args:
        measure: trains and measures many at once, so that they can share views.
    """
    found: dict[Key, dict[float, float | None]] = {key: {} for key in optimizers}

    def look(wanted: Mapping[Key, Sequence[float]]) -> None:
        todo = [(key, e) for key, some in wanted.items() for e in some if e not in found[key]]
        if not todo:
            return
        rated = [(key, _at(optimizers[key], e)) for key, e in todo]
        for (key, e), accuracy in zip(todo, measure(rated), strict=True):
            found[key][e] = accuracy

    decades = [float(e) for e in range(-tuning.below, tuning.above + 1)]
    look(dict.fromkeys(optimizers, decades))
    for _ in range(tuning.further):
        wanted = {}
        for key, tried in found.items():
            best = _best(tried)
            if best in (min(tried), max(tried)):
                wanted[key] = (best + (1.0 if best == max(tried) else -1.0),)
        look(wanted)
    look({key: (_best(tried) - 0.5, _best(tried) + 0.5) for key, tried in found.items()})
    return Tuned(
        {key: _at(optimizers[key], _best(tried)) for key, tried in found.items()},
        {key: {_at(optimizers[key], e).lr: tried[e] for e in sorted(tried)} for key, tried in found.items()},
    )


def _best(tried: Mapping[float, float | None]) -> float:
    def rank(exponent: float) -> tuple[float, float, float]:
        accuracy = tried[exponent]
        return (-1.0 if accuracy is None else accuracy, -abs(exponent), exponent)

    return max(tried, key=rank)


def _at(optimizer: Optimizer, exponent: float) -> Optimizer:
    return replace(optimizer, lr=float(f"{optimizer.lr * 10**exponent:.3g}"))
