"""Means with intervals over pairs or groups of networks."""

import math
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.special import stdtrit

from metanet.metrics import Estimate


class Interval(NamedTuple):
    """A mean, the ends of its 95% interval (NaN for one value) and the number of values."""

    mean: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        if self.n < 2:
            return f"{self.mean:.3f}"
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


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
        return Estimate(math.nan, math.nan, math.nan)
    picked = np.random.default_rng(seed).integers(len(values), size=(num_bootstrap, len(values)))
    low, high = np.quantile(values[picked].mean(1), [0.025, 0.975])
    return Estimate(float(values.mean()), float(low), float(high))


def split_by(rows: pd.DataFrame, columns: list[str]) -> list[tuple[list[Any], pd.DataFrame]]:
    """Rows that agree in some columns, with the values of those; in order of appearance."""
    groups = rows.groupby(columns, sort=False)
    return [(list(key) if isinstance(key, tuple) else [key], own) for key, own in groups]
