"""How good predictions are: R^2, Kendall's tau-b, Spearman's rho, mean absolute error.

Each has an interval over test networks. Every metric is computed from *counts*: how often each test
network is in a sample. The test set itself has counts of one; a bootstrap resample has multinomial
counts, so that 1,000 resamples are a few matrix products, exact, ties included.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, NamedTuple

import numpy as np
from jaxtyping import Float, Shaped
from pydantic import Field

from zoo.options import check_value

Counts = Float[np.ndarray, "R N"]
Values = Float[np.ndarray, "R"]
PAIR_BLOCK = 2048
MOST_COUNTS = 2**28
"""Networks times resamples."""


class Estimate(NamedTuple):
    """A metric on the test networks and its percentile bootstrap interval."""

    value: float
    low: float
    high: float


class Spread(NamedTuple):
    """A metric over n seeds: mean, standard deviation (n - 1; 0 for one), smallest, largest."""

    mean: float
    std: float
    low: float
    high: float
    n: int


def r2(y: Shaped[np.ndarray, "N"], prediction: Shaped[np.ndarray, "N"]) -> float:
    """Coefficient of determination, ``1 - sum (y - p)^2 / sum (y - mean y)^2``.

    It is NaN if all targets are equal, and a warning says so.

    Args:
        y: Targets.
        prediction: Predictions.

    Returns:
        At most 1; 0 for predicting the mean.
    """
    _warn_of_constant(y)
    return _single(_r2, y, prediction)


def kendall_tau(y: Shaped[np.ndarray, "N"], prediction: Shaped[np.ndarray, "N"]) -> float:
    """Kendall's tau-b.

        tau = (concordant - discordant pairs) / sqrt((pairs not tied in y) (pairs not tied in p))

    Args:
        y: Targets.
        prediction: Predictions.

    Returns:
        From -1 to 1; 0 where predictions or targets are all equal and hold no order.

    References:
        Kendall 1945, "The treatment of ties in ranking problems", Biometrika 33.
    """
    return _single(_kendall, y, prediction)


def spearman(y: Shaped[np.ndarray, "N"], prediction: Shaped[np.ndarray, "N"]) -> float:
    """Spearman's rho: Pearson correlation of mid-ranks.

    Args:
        y: Targets.
        prediction: Predictions.

    Returns:
        From -1 to 1; 0 where predictions or targets are all equal and hold no order.
    """
    return _single(_spearman, y, prediction)


def mae(y: Shaped[np.ndarray, "N"], prediction: Shaped[np.ndarray, "N"]) -> float:
    """Mean absolute error, in the units of the target.

    Args:
        y: Targets.
        prediction: Predictions.

    Returns:
        At least 0.
    """
    return _single(_mae, y, prediction)


def bootstrap(
    y: Shaped[np.ndarray, "N"],
    prediction: Shaped[np.ndarray, "N"],
    num_bootstrap: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Estimate]:
    """All metrics, each with a percentile bootstrap interval over networks.

    The metrics share the resamples. A resample in which a metric is undefined is left out of that
    metric's interval.

    Args:
        y: Targets.
        prediction: Predictions.
        num_bootstrap: Number of resamples; 0 gives NaN bounds.
        seed: Of the resamples.
        level: Coverage of the interval.

    Returns:
        One estimate per name in `METRICS`.

    Raises:
        ValueError: If there are more resamples than fit into memory.
    """
    y, prediction = _checked(y, prediction)
    most = MOST_COUNTS // len(y)
    check_value("num_bootstrap", Annotated[int, Field(ge=0, le=most)], num_bootstrap)
    _warn_of_constant(y)
    counts = resamples(len(y), num_bootstrap, seed)
    tail = (1 - level) / 2
    estimates = {}
    for name, metric in METRICS.items():
        values = metric(y, prediction, counts)
        resampled = values[1:][np.isfinite(values[1:])]
        low, high = np.quantile(resampled, [tail, 1 - tail]) if len(resampled) else (np.nan, np.nan)
        estimates[name] = Estimate(float(values[0]), float(low), float(high))
    return estimates


def resamples(count: int, num_bootstrap: int, seed: int) -> Counts:
    """How often each network counts: once in the test set itself, the first row, then by chance.

    Args:
        count: Networks.
        num_bootstrap: Number of resamples.
        seed: Of the resamples.

    Returns:
        A row for the test set and one for each resample.
    """
    shares = np.full(count, 1 / count)
    drawn = np.random.default_rng(seed).multinomial(count, shares, size=num_bootstrap)
    return np.concatenate([np.ones((1, count)), drawn.astype(np.float64)])


def over_seeds(evaluations: Sequence[Mapping[str, Estimate]]) -> dict[str, Spread]:
    """Spread of each metric over runs that differ by their seed only.

    Args:
        evaluations: One result of `bootstrap` per seed.

    Returns:
        One spread per metric.

    Raises:
        ValueError: If there is no evaluation.
    """
    if not evaluations:
        raise ValueError("over_seeds: expected at least one evaluation, got none")
    spreads = {}
    for name in evaluations[0]:
        values = np.array([evaluation[name].value for evaluation in evaluations])
        deviation = float(values.std(ddof=1)) if len(values) > 1 else 0.0
        spreads[name] = Spread(
            float(values.mean()), deviation, float(values.min()), float(values.max()), len(values)
        )
    return spreads


def _r2(y: np.ndarray, prediction: np.ndarray, counts: Counts) -> Values:
    size = counts.sum(1)
    shifted = y - y.mean()
    total = counts @ shifted**2 - (counts @ shifted) ** 2 / size
    # A resample of one distinct value leaves a rounding error instead of 0.
    total = np.where(total > 1e-12 * (shifted**2).sum(), total, np.nan)
    return 1 - counts @ (y - prediction) ** 2 / total


def _mae(y: np.ndarray, prediction: np.ndarray, counts: Counts) -> Values:
    return counts @ np.abs(y - prediction) / counts.sum(1)


def _spearman(y: np.ndarray, prediction: np.ndarray, counts: Counts) -> Values:
    size = counts.sum(1, keepdims=True)
    a, b = (_mid_ranks(values, counts) - (size + 1) / 2 for values in (y, prediction))
    return _ratio((counts * a * b).sum(1), (counts * a * a).sum(1), (counts * b * b).sum(1))


def _kendall(y: np.ndarray, prediction: np.ndarray, counts: Counts) -> Values:
    concordant = np.zeros(len(counts))
    narrow = counts.astype(np.float32)
    for start in range(0, len(y), PAIR_BLOCK):
        block = slice(start, start + PAIR_BLOCK)
        # Sums of at most N signs, weighted: exact in float32 up to 2^24.
        signs = np.sign(y[block, None] - y).astype(np.float32) * np.sign(
            prediction[block, None] - prediction
        ).astype(np.float32)
        concordant += ((narrow[:, block] @ signs).astype(np.float64) * counts).sum(1)
    size = counts.sum(1)
    pairs = size * (size - 1) / 2
    return _ratio(
        concordant / 2, *(pairs - _tied_pairs(values, counts) for values in (y, prediction))
    )


def _ratio(product: Values, first: Values, second: Values) -> Values:
    """``product / sqrt(first second)``, 0 where either is 0."""
    defined = (first > 0) & (second > 0)
    scale = np.sqrt(np.where(defined, first, 1.0)) * np.sqrt(np.where(defined, second, 1.0))
    return np.where(defined, np.clip(product / scale, -1, 1), 0.0)


def _group_counts(values: np.ndarray, counts: Counts) -> tuple[np.ndarray, np.ndarray]:
    """Group of each network, those with equal values share one, and the count of each group."""
    _, group, sizes = np.unique(values, return_inverse=True, return_counts=True)
    order = np.argsort(group, kind="stable")
    starts = np.cumsum(sizes) - sizes
    return group, np.add.reduceat(counts[:, order], starts, axis=1)


def _tied_pairs(values: np.ndarray, counts: Counts) -> Values:
    _, grouped = _group_counts(values, counts)
    return (grouped * (grouped - 1) / 2).sum(1)


def _mid_ranks(values: np.ndarray, counts: Counts) -> np.ndarray:
    group, grouped = _group_counts(values, counts)
    ranks = grouped.cumsum(1) - grouped + (grouped + 1) / 2
    return ranks[:, group]


METRICS: dict[str, Callable[[np.ndarray, np.ndarray, Counts], Values]] = {
    "r2": _r2,
    "kendall_tau": _kendall,
    "spearman": _spearman,
    "mae": _mae,
}


def _single(
    metric: Callable[[np.ndarray, np.ndarray, Counts], Values],
    y: np.ndarray,
    prediction: np.ndarray,
) -> float:
    y, prediction = _checked(y, prediction)
    return float(metric(y, prediction, np.ones((1, len(y))))[0])


def _warn_of_constant(y: np.ndarray) -> None:
    if len(np.unique(y)) == 1:
        what = f"all {len(y)} targets are {float(np.asarray(y)[0]):.6g}"
        warnings.warn(f"R^2 is not defined, NaN: {what}", stacklevel=3)


def _checked(y: np.ndarray, prediction: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    y, prediction = np.asarray(y, dtype=np.float64), np.asarray(prediction, dtype=np.float64)
    if y.shape != prediction.shape or y.ndim != 1 or not len(y):
        raise ValueError(
            "metrics: expected two vectors of one length >= 1, "
            f"got shapes {y.shape} and {prediction.shape}"
        )
    if not (np.isfinite(y).all() and np.isfinite(prediction).all()):
        raise ValueError(
            f"metrics: expected finite values, got {int((~np.isfinite(y)).sum())} targets and "
            f"{int((~np.isfinite(prediction)).sum())} predictions that are not"
        )
    return y, prediction
