"""Means, intervals and paired differences over seeds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from scipy import special

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Summary:
    """Mean over seeds; sample standard deviation (n - 1) and 95 % t interval, None when there is one seed only."""

    mean: float
    std: float | None
    low: float | None
    high: float | None
    n: int


def summarise(values: Sequence[float], resolution: float = 0.0) -> Summary:
    """Mean, standard deviation and the two-sided 95 % confidence interval of the mean (Student's t).

    Args:
        resolution: the least step that the values can take (1 / test images); the interval never assumes a smaller
            standard deviation, so that two equal values do not pass for certainty.
    """
    n = len(values)
    mean = math.fsum(values) / n
    if n == 1:
        return Summary(mean, None, None, None, 1)
    std = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    half = float(special.stdtrit(n - 1, 0.5 + CONFIDENCE / 2)) * max(std, resolution) / math.sqrt(n)
    return Summary(mean, std, mean - half, mean + half, n)


def summarise_shares(values: Sequence[float], resolution: float = 0.0) -> Summary:
    """`summarise` for shares such as accuracies: the interval ends at 0 and 1, where they do."""
    summary = summarise(values, resolution)
    low = None if summary.low is None else max(summary.low, 0.0)
    high = None if summary.high is None else min(summary.high, 1.0)
    return replace(summary, low=low, high=high)


def paired_difference(first: Sequence[float], second: Sequence[float], resolution: float = 0.0) -> Summary:
    """Summary of first[i] - second[i], the difference of two arms at seed i; `resolution` as in `summarise`."""
    return summarise([a - b for a, b in zip(first, second, strict=True)], resolution)


def verdict(difference: Summary) -> str:
    """`better`, `worse`, `not distinguishable` (the interval holds 0), or `needs two seeds or more`."""
    if difference.low is None or difference.high is None:
        return "needs two seeds or more"
    if difference.low > 0:
        return "better"
    return "worse" if difference.high < 0 else "not distinguishable"
