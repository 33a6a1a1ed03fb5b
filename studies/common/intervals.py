"""Means with intervals over pairs or groups of networks."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.special import stdtrit

from metanet.metrics import Estimate

NOT_MEASURED = Estimate(math.nan, math.nan, math.nan)
ENDS = ("", "_low", "_high")
"""Endings of the columns of a value and of the ends of its interval."""


def columns_of(name: str, estimate: Estimate) -> dict[str, float]:
    """A value and the ends of its interval as columns `name`, `name_low`, `name_high`."""
    return {name + end: value for end, value in zip(ENDS, estimate, strict=True)}


def estimate_of(row: Any, name: str) -> Estimate:
    """What `columns_of` put into a row, or into a table."""
    return Estimate(*(row[name + end] for end in ENDS))


def interval_text(estimate: Sequence[float], digits: str) -> str:
    """`0.84 [0.80, 0.88]`, every number formatted as `digits` says; `n/a` without a value."""
    if not math.isfinite(estimate[0]):
        return "n/a"
    value, low, high = (f"{number:{digits}}" for number in estimate)
    return f"{value} [{low}, {high}]"


class Interval(NamedTuple):
    """A mean, the ends of its 95% interval (NaN for one value) and the number of values."""

    mean: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self:.3f}"

    def __format__(self, digits: str) -> str:
        return interval_text(self[:3], digits) if self.n > 1 else f"{self.mean:{digits}}"


def mean_interval(values: Float[np.ndarray, " n"]) -> Interval:
    """Mean with Student's 95% interval, `mean +- t std / sqrt(n)`; pairs are few, so no bootstrap.

    Args:
        values: Independent values, at least one.

    Returns:
        The mean and its interval.

    >>> str(mean_interval(np.array([1.0, 2.0, 3.0])))
    '2.000 [-0.484, 4.484]'
    """
    n, mean = len(values), float(values.mean())
    half = (
        float(stdtrit(n - 1, 0.975)) * float(values.std(ddof=1)) / math.sqrt(n)
        if n > 1
        else math.nan
    )
    return Interval(mean, mean - half, mean + half, n)


def percentiles(value: Any, resampled: Float[np.ndarray, " n"]) -> Estimate:
    """A value with the 95% percentile interval of its resamples."""
    low, high = np.quantile(resampled, [0.025, 0.975])
    return Estimate(float(value), float(low), float(high))


def bootstrap_mean(values: Float[np.ndarray, " n"], num_bootstrap: int, seed: int = 0) -> Estimate:
    """Mean with a 95% percentile bootstrap interval.

    Args:
        values: One value a network.
        num_bootstrap: Resamples.
        seed: Of the resamples.

    Returns:
        The estimate; NaN if there are no values, or one is NaN.
    """
    if not len(values):
        return NOT_MEASURED
    picked = np.random.default_rng(seed).integers(len(values), size=(num_bootstrap, len(values)))
    return percentiles(values.mean(), values[picked].mean(1))
