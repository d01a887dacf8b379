"""A saturating law of accuracy over images per class, fitted to a scaling surface, with its uncertainty.

For labels of which K entries of expert epoch e are kept, and n images per class,

    accuracy(n) = max(chance, A[e, K] - B[e, K] * n ** -beta[e]),

the power law with an asymptote that learning curves of deep networks are known to follow (Hestness et al. 2017,
"Deep Learning Scaling is Predictable, Empirically"). A is what endless images would give with such labels, B what is
missing at one image per class, and beta how fast images make up for it; all lines of an expert share beta, since few
sizes tell little of it. Sizes at which students only guess say that the law lies below chance there, and do not bend
it. Hard labels are a line of their own. The paper has no formula: this one is ours.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from softlabel.core import ConfigError, count_of
from softlabel.lab._surface import Line, Size, Surface

LEAST_SIZES = 4
"""A line with fewer sizes fixes A and B, and says nothing of its law."""

BETAS = (0.02, 4.0)
ABOVE_CHANCE = LEAST_SIZES
"""A line's law and its noise are told by as many sizes at least; the others may lie where students guess."""
LEAST_SHARED = 0.5
"""How much of the noise's variance lines of one expert are taken to share at a size, at least: few sizes tell little of
it, and these lines share images and initialisations."""
DRAWS = 400
LOOKED_AT, LOOKS = 40, 4
"""Betas that are looked at together, and how often: each time between the two neighbours of the best."""
Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """A number with its 95 % interval; None where the interval leaves what can be known."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True, kw_only=True)
class Law:
    """The fitted law of one line.

    Attributes:
        asymptote, missing, beta: A, B and beta.
        chance: 1 / classes; no law goes below.
        error: standard deviation of what the law leaves unexplained on the expert's lines, as an accuracy.
        draws: (A, B, beta) of fits to surfaces redrawn within their noise: [DRAWS, 3].
    """

    line: Line
    asymptote: float
    missing: float
    beta: float
    chance: float
    error: float
    draws: Array

    @property
    def ceiling(self) -> tuple[float, float]:
        """The 95 % interval of A."""
        low, high = np.quantile(self.draws[:, 0], (0.025, 0.975))
        return float(low), float(high)

    @property
    def at_bound(self) -> bool:
        """Whether beta lies at an end of what is searched: the sizes measured do not say how fast images saturate."""
        return not BETAS[0] * 1.01 < self.beta < BETAS[1] / 1.01

    def accuracy(self, ipc: float) -> Prediction:
        """At so many images per class.

        Raises:
            ConfigError: outside the sizes that were measured: a law is no licence to extrapolate.
        """
        first, last = self.line.ipcs[0], self.line.ipcs[-1]
        if not first <= ipc <= last:
            raise ConfigError(f"{ipc:g} images per class lie outside what was measured: {first} to {last}.")
        drawn = _curve(self.draws, ipc, self.chance)
        low, high = np.quantile(drawn, (0.025, 0.975))
        value = max(self.chance, self.asymptote - self.missing * ipc**-self.beta)
        return Prediction(value=value, low=float(low), high=float(high))

    def images(self, accuracy: float) -> Prediction | None:
        """Images per class that reach an accuracy, within the sizes measured; None when these do not hold it.

        An end of the interval that leaves the sizes measured is None.
        """
        first, last = self.line.ipcs[0], self.line.ipcs[-1]
        if accuracy <= self.chance:  # nobody needs images for that
            return None
        value = float(_inverse(np.array([[self.asymptote, self.missing, self.beta]]), accuracy)[0])
        if not first <= value <= last:
            return None
        low, high = (float(q) for q in np.quantile(_inverse(self.draws, accuracy), (0.025, 0.975), method="nearest"))
        return Prediction(value=value, low=low if low >= first else None, high=high if high <= last else None)


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """How well cells are foretold that were left out of the fit. Errors are root mean squares.

    A size is left out of all lines of an expert at once: they share its images, and would tell of each other.

    Attributes:
        law: of the law, refitted without the size.
        neighbour: of the naive forecast: the accuracy of the same line's next size, on a logarithmic scale.
        straight: of a straight line over the logarithm: between the two sizes beside, and beyond the last two at the
            ends.
        cells: how many were foretold.
        inside: the same for the cells between others alone, where nobody has to extrapolate.
    """

    law: float
    neighbour: float
    straight: float
    cells: int
    inside: "Inside"


@dataclass(frozen=True, kw_only=True)
class Inside:
    """How well cells between others are foretold; errors as in `HeldOut`.

    Attributes:
        straight: of a straight line between the two sizes beside, over the logarithm.
    """

    law: float
    neighbour: float
    straight: float
    cells: int


def fit_laws(surface: Surface, seed: int = 0) -> list[Law]:
    """The law of every line with `LEAST_SIZES` sizes or more, in the surface's order.

    Args:
        seed: of the draws behind the intervals.

    Raises:
        ConfigError: no line has sizes enough; the message says which has how many.
    """
    random = np.random.default_rng(seed)
    laws = {law.line: law for lines in _families(surface) for law in _fitted(lines, 1 / surface.classes, random)}
    if not laws:
        most = max(surface.lines, key=lambda line: len(line.sizes))
        raise ConfigError(
            f"The surface is too sparse to fit: a line needs {LEAST_SIZES} numbers of images per class, and the one "
            f"with the most, {most.name}, has {count_of(len(most.sizes), 'number')} "
            f"({', '.join(map(str, most.ipcs))}). Run softlabel lab scaling with more --ipc."
        )
    return [laws[line] for line in surface.lines if line in laws]


def hold_out(surface: Surface) -> HeldOut | None:
    """Leave every size out once and foretell its cells; None where no line is long enough to lose one.

    Only lines with one size more than `LEAST_SIZES` take part.
    """
    errors: list[tuple[float, float, float]] = []
    inside: list[tuple[float, float, float]] = []
    for family in _families(surface):
        lines = [line for line in family if len(line.sizes) > LEAST_SIZES]
        for ipc in sorted({ipc for line in lines for ipc in line.ipcs}):
            left = [_without(line, ipc) for line in lines]
            for line, rest, (a, b, beta) in zip(lines, left, _shared(left, 1 / surface.classes), strict=True):
                for truth in (size.accuracy for size in line.sizes if size.ipc == ipc):
                    law = max(1 / surface.classes, a - b * ipc**-beta)
                    errors.append((law - truth, _neighbour(rest, ipc) - truth, _straight(rest, ipc) - truth))
                    if rest.ipcs[0] < ipc < rest.ipcs[-1]:
                        inside.append(errors[-1])
    if not errors:
        return None
    law, neighbour, straight = _rms_of(errors)
    inner = _rms_of(inside)
    between = Inside(law=inner[0], neighbour=inner[1], straight=inner[2], cells=len(inside))
    return HeldOut(law=law, neighbour=neighbour, straight=straight, cells=len(errors), inside=between)


def _families(surface: Surface) -> Iterator[list[Line]]:
    """Lines that share an exponent: those of one expert that are long enough."""
    for lines in surface.experts.values():
        long = [line for line in lines if len(line.sizes) >= LEAST_SIZES]
        if long:
            yield long


def _fitted(lines: Sequence[Line], chance: float, random: np.random.Generator) -> list[Law]:
    found = _shared(lines, chance)
    left = _residuals(lines, found, chance)
    cells, sizes = sum(map(len, left)), len({ipc for row in left for ipc in row})
    shared = _shared_part(left)
    # Noise of its own leaves every line all but its A, B and a part of beta. Of noise that all lines share beta takes a
    # part of each line's, and what is left says the same thing once per line: it tells of the noise as few numbers do.
    own, common = max(1, cells - 2 * len(lines) - 1), max(1, sizes - 3)
    squares = math.fsum(r * r for row in left for r in row.values())
    error = math.sqrt(squares / ((1 - shared) * own + shared * len(lines) * common))
    # A standard deviation known from few numbers is itself uncertain: as Student's t has it, by a chi-squared draw.
    known = (1 - shared) * own + shared * common
    scatter = error * np.sqrt(known / random.chisquare(known, DRAWS))
    drawn = np.array(
        [_shared(_redrawn(lines, found, float(noise), shared, chance, random), chance) for noise in scatter]
    )
    return [
        Law(line=line, asymptote=a, missing=b, beta=beta, chance=chance, error=error, draws=drawn[:, position])
        for position, (line, (a, b, beta)) in enumerate(zip(lines, found, strict=True))
    ]


def _residuals(
    lines: Sequence[Line], found: Sequence[tuple[float, float, float]], chance: float
) -> list[dict[int, float]]:
    """Per line what the law leaves, by size, where it lies above chance: guessing scatters less than knowing."""
    return [
        {size.ipc: size.accuracy - (a - b * size.ipc**-beta) for size in line.sizes if a - b * size.ipc**-beta > chance}
        for line, (a, b, beta) in zip(lines, found, strict=True)
    ]


def _shared_part(left: Sequence[Mapping[int, float]]) -> float:
    """The share of the noise's variance that lines have in common at a size: the intraclass correlation of what the law
    leaves (one-way analysis of variance), between `LEAST_SHARED` and 1; of one line alone, `LEAST_SHARED`."""
    common = [ipc for ipc in left[0] if all(ipc in row for row in left)]
    if len(left) < 2 or len(common) < 2:
        return LEAST_SHARED
    table = np.array([[row[ipc] for ipc in common] for row in left])
    between = len(left) * float(np.square(table.mean(axis=0)).sum()) / max(1, len(common) - 1)
    within = float(np.square(table - table.mean(axis=0)).sum()) / (len(common) * (len(left) - 1))
    whole = between + (len(left) - 1) * within
    return min(1.0, max(LEAST_SHARED, (between - within) / whole)) if whole > 0 else LEAST_SHARED


def _redrawn(
    lines: Sequence[Line],
    found: Sequence[tuple[float, float, float]],
    error: float,
    shared: float,
    chance: float,
    random: np.random.Generator,
) -> list[Line]:
    """The law's own lines with noise: what it leaves unexplained, or what the seeds scatter, whichever is larger.

    `shared` of its variance is the same for all lines at a size, which share images and initialisations there.
    """
    common = {ipc: float(random.normal()) for ipc in sorted({ipc for line in lines for ipc in line.ipcs})}

    def drawn(size: Size, law: float) -> float:
        noise = math.sqrt(shared) * common[size.ipc] + math.sqrt(1 - shared) * float(random.normal())
        scale = max(error, _standard_error(size)) if law > chance else _standard_error(size)
        return max(chance, law) + noise * scale

    return [
        replace(line, sizes=tuple(replace(size, accuracy=drawn(size, a - b * size.ipc**-beta)) for size in line.sizes))
        for line, (a, b, beta) in zip(lines, found, strict=True)
    ]


def _standard_error(size: Size) -> float:
    return 0.0 if size.std is None else size.std / math.sqrt(size.seeds)


def _shared(lines: Sequence[Line], chance: float) -> list[tuple[float, float, float]]:
    """(A, B, beta) of lines that share beta: least squares, in closed form for a beta, which is searched."""
    # The sum of squares over log beta can have more than one valley: a coarse look first, then closer ones.
    low, high = math.log(BETAS[0]), math.log(BETAS[1])
    for _ in range(LOOKS):
        steps = np.linspace(low, high, LOOKED_AT)
        left = np.sum([_line(line, np.exp(steps), chance)[2] for line in lines], axis=0)
        best = int(left.argmin())
        low, high = float(steps[max(best - 1, 0)]), float(steps[min(best + 1, LOOKED_AT - 1)])
    beta = math.exp(float(steps[best]))
    fits = [_line(line, np.array([beta]), chance) for line in lines]
    return [(float(a[0]), float(b[0]), beta) for a, b, _ in fits]


def _line(line: Line, betas: Array, chance: float) -> tuple[Array, Array, Array]:
    """A, B and the least sum of squares for each of some betas, with A at most 1 and B at least 0.

    The law rises with n, so that sizes at which it lies below chance are the smallest ones: each number of them is
    tried that agrees with the law which the others give.
    """
    x = np.array(line.ipcs, dtype=float) ** -betas[:, None]
    y = np.array([size.accuracy for size in line.sizes])
    a, b, left = _above_chance(x, y)
    for floor in range(1, len(y) - ABOVE_CHANCE + 1):
        other_a, other_b, other = _above_chance(x[:, floor:], y[floor:])
        other = other + float(((y[:floor] - chance) ** 2).sum())
        better = (other_a - other_b * x[:, floor - 1] <= chance) & (other < left)
        a, b, left = (np.where(better, *pair) for pair in ((other_a, a), (other_b, b), (other, left)))
    return a, b, left


def _above_chance(x: Array, y: Array) -> tuple[Array, Array, Array]:
    """The straight line y = A - B x of each row of x: A, B and the sum of squares."""
    across = x - x.mean(axis=1, keepdims=True)
    spread = (across**2).sum(axis=1)
    b = np.where(spread > 0, -(across @ y) / np.where(spread > 0, spread, 1), 0.0)
    a = y.mean() + b * x.mean(axis=1)
    b = np.where(a > 1, x @ (1 - y) / (x**2).sum(axis=1), b)  # no accuracy is above 1
    a = np.where(b < 0, y.mean(), np.minimum(a, 1.0))  # more images never hurt: a flat line
    b = np.maximum(b, 0.0)
    left: Array = ((y - (a[:, None] - b[:, None] * x)) ** 2).sum(axis=1)
    return a, b, left


def _curve(fits: Array, ipc: float, chance: float) -> Array:
    curve: Array = np.maximum(chance, fits[:, 0] - fits[:, 1] * ipc ** -fits[:, 2])
    return curve


def _inverse(fits: Array, accuracy: float) -> Array:
    """Images per class at which the law reaches `accuracy`; infinite where it never does."""
    gap = fits[:, 0] - accuracy
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        found = (fits[:, 1] / gap) ** (1 / fits[:, 2])
    images: Array = np.where(gap > 0, found, np.inf)
    return images


def _without(line: Line, ipc: int) -> Line:
    return replace(line, sizes=tuple(size for size in line.sizes if size.ipc != ipc))


def _straight(line: Line, ipc: int) -> float:
    """Straight over the logarithm: between the sizes beside, or on through the two nearest where one side has none."""
    below = [size for size in line.sizes if size.ipc < ipc]
    above = [size for size in line.sizes if size.ipc > ipc]
    one, other = (below[-1], above[0]) if below and above else (above or below[-2:])[:2]
    share = math.log(ipc / one.ipc) / math.log(other.ipc / one.ipc)
    return one.accuracy + share * (other.accuracy - one.accuracy)


def _neighbour(line: Line, ipc: int) -> float:
    """Of two equally near ones the smaller, which is what a person would have."""
    return min(line.sizes, key=lambda size: (round(abs(math.log(size.ipc / ipc)), 9), size.ipc)).accuracy


def _rms_of(errors: Sequence[tuple[float, float, float]]) -> tuple[float, float, float]:
    """The root mean square of each of three columns."""
    count = len(errors)
    law, neighbour, straight = (
        math.sqrt(math.fsum(error[i] ** 2 for error in errors) / count) if count else math.nan for i in range(3)
    )
    return law, neighbour, straight
