"""Means, intervals and paired differences over seeds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy import stats

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Summary:
    """Mean over seeds; sample standard deviation (n - 1) and 95 % t interval, None when there is one seed only."""

    mean: float
    std: float | None
    low: float | None
    high: float | None
    n: int


def summarise(values: Sequence[float]) -> Summary:
    """Mean, standard deviation and the two-sided 95 % confidence interval of the mean (Student's t)."""
    n = len(values)
    mean = math.fsum(values) / n
    if n == 1:
        return Summary(mean, None, None, None, 1)
    std = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    half = float(stats.t.ppf(0.5 + CONFIDENCE / 2, n - 1)) * std / math.sqrt(n)
    return Summary(mean, std, mean - half, mean + half, n)


def paired_difference(first: Sequence[float], second: Sequence[float]) -> Summary:
    """Summary of first[i] - second[i]: both arms of seed i shared images, initialisation, order and views."""
    return summarise([a - b for a, b in zip(first, second, strict=True)])


def verdict(difference: Summary) -> str:
    """`better`, `worse`, `not distinguishable` (the interval holds 0), or `needs two seeds or more`."""
    if difference.low is None or difference.high is None:
        return "needs two seeds or more"
    if difference.low > 0:
        return "better"
    return "worse" if difference.high < 0 else "not distinguishable"
