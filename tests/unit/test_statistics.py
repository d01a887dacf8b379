"""Means, intervals and verdicts against scipy, numpy and hand calculations."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from softlabel.core import stream
from softlabel.evaluation import CONFIDENCE, Summary, paired_difference, summarise, verdict


@pytest.mark.parametrize("n", [2, 3, 5, 20])
def test_like_scipy_and_numpy(n: int) -> None:
    values = torch.rand(n, generator=stream(n, "accuracies"), dtype=torch.float64).tolist()
    found = summarise(values)
    assert found.n == n
    assert found.mean == pytest.approx(np.mean(values))
    assert found.std == pytest.approx(np.std(values, ddof=1))
    low, high = stats.t.interval(0.95, n - 1, loc=np.mean(values), scale=stats.sem(values))
    assert (found.low, found.high) == pytest.approx((low, high))


def test_by_hand() -> None:
    """1, 2, 3: mean 2, deviation 1, and 4.3027 / sqrt(3) = 2.4841 to either side (t with 2 degrees of freedom)."""
    found = summarise([1.0, 2.0, 3.0])
    assert (found.mean, found.std) == pytest.approx((2.0, 1.0))
    assert (found.low, found.high) == pytest.approx((2 - 2.48414, 2 + 2.48414), abs=1e-4)


def test_two_seeds_by_hand() -> None:
    """0.5 and 0.7: deviation 0.1 sqrt(2); 12.7062 x 0.1 to either side."""
    found = summarise([0.5, 0.7])
    assert found.std == pytest.approx(0.1 * math.sqrt(2))
    assert (found.low, found.high) == pytest.approx((0.6 - 1.27062, 0.6 + 1.27062), abs=1e-4)


def test_one_seed_has_no_interval() -> None:
    assert summarise([0.25]) == Summary(0.25, None, None, None, 1)
    assert verdict(summarise([0.25])) == "needs two seeds or more"
    assert paired_difference([0.5], [0.25]) == Summary(0.25, None, None, None, 1)


def test_equal_values_have_an_interval_of_no_width() -> None:
    assert summarise([0.5, 0.5, 0.5]) == Summary(0.5, 0.0, 0.5, 0.5, 3)


def test_the_order_does_not_matter() -> None:
    values = [0.1, 0.7, 0.3, 1e-9, 0.99]
    assert summarise(values) == summarise(values[::-1]) == summarise(sorted(values))


def test_the_confidence_is_95_percent() -> None:
    assert CONFIDENCE == 0.95


def test_differences_are_paired_by_seed() -> None:
    first, second = [0.50, 0.60, 0.71], [0.40, 0.50, 0.60]
    found = paired_difference(first, second)
    assert found == summarise([a - b for a, b in zip(first, second, strict=True)])
    # Seeds differ by 0.1 each, the arms by 0.1 in every seed: pairing sees it, the arms' own intervals overlap.
    assert verdict(found) == "better"
    one, other = summarise(first), summarise(second)
    assert one.low is not None
    assert other.high is not None
    assert one.low < other.high
    t = stats.ttest_rel(first, second)
    interval = t.confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert (verdict(found) == "better") == (t.pvalue < 0.05)


def test_arms_of_unequal_length_are_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        paired_difference([0.1, 0.2], [0.1])


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.001, 0.2, "better"),
        (-0.2, -0.001, "worse"),
        (-0.1, 0.2, "not distinguishable"),
        (0.0, 0.2, "not distinguishable"),  # an interval that touches 0 holds it
        (-0.2, 0.0, "not distinguishable"),
        (0.0, 0.0, "not distinguishable"),
    ],
)
def test_verdicts(low: float, high: float, expected: str) -> None:
    assert verdict(Summary((low + high) / 2, 0.1, low, high, 3)) == expected


def test_turning_the_arms_round_turns_the_verdict_round() -> None:
    first, second = [0.5, 0.6, 0.71], [0.4, 0.5, 0.6]
    assert verdict(paired_difference(first, second)) == "better"
    assert verdict(paired_difference(second, first)) == "worse"
    assert verdict(paired_difference(first, first)) == "not distinguishable"
