"""Tables of the study of linear interpolation: populations, paired differences, hyperparameters."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float64, Int64, Shaped
from pandas.api.types import is_numeric_dtype

from metanet.metrics import Estimate, bootstrap
from studies.common.intervals import (
    NOT_MEASURED,
    bootstrap_mean,
    columns_of,
    estimate_of,
    interval_text,
)
from studies.common.page import Table
from studies.common.rows import numbers, split_by, where
from studies.interpolation.config import Interpolation

MEASURES = {
    "largest_rise": "largest rise (nats)",
    "monotonic": "share monotonic",
    "convex": "locally convex",
    "below_chord": "below the chord",
}
LEVEL_Z = 1.959964  # of a normal distribution, 95%
EXPLAINED = (
    "Largest rise: max over consecutive points of L(t+1) - L(t), below 0 where the loss always "
    "falls; monotonic: no rise. "
    "Locally convex: share of interior points with a second difference of at least 0; below the "
    "chord: share of interior "
    "points not above the line through both ends. Means over the networks that did not diverge (n) "
    "with [95% interval]: "
    "bootstrap over networks, Wilson for the share of monotonic networks."
)
PAIRED = (
    "Differences to {} network by network, which have the same hyperparameters: mean [95% "
    "bootstrap interval over pairs]."
)
CORRELATED = (
    "Spearman correlation of the largest rise with each hyperparameter, over networks [95% "
    "bootstrap interval]."
)


def share_interval(hits: Shaped[np.ndarray, " n"]) -> Estimate:
    """Share of networks with Wilson's interval, which says something even where all agree.

        (p + z^2 / 2 n +- z sqrt(p (1 - p) / n + z^2 / 4 n^2)) / (1 + z^2 / n)

    Args:
        hits: 1 or 0 for each network.

    Returns:
        The interval; NaN if there are no networks.

    References:
        Wilson 1927, "Probable inference, the law of succession, and statistical inference", JASA
        22.
    """
    if not len(hits):
        return NOT_MEASURED
    n, p, z = len(hits), float(np.mean(hits)), LEVEL_Z
    middle, half = p + z**2 / (2 * n), z * (p * (1 - p) / n + z**2 / (4 * n**2)) ** 0.5
    ends = ((middle + side * half) / (1 + z**2 / n) for side in (-1, 1))
    return Estimate(p, *(max(0.0, min(1.0, end)) for end in ends))


def summarize(rows: pd.DataFrame, num_bootstrap: int) -> pd.DataFrame:
    """The measures of each population.

    Args:
        rows: Rows of the study.
        num_bootstrap: Resamples.

    Returns:
        One line a population: `population`, each measure with `_low` and `_high`, `start` and `end`
            (medians of the losses at
        both ends), `n` and `diverged`.
    """
    lines = []
    for name, here in split_by(rows, "population"):
        usable = where(here, diverged=False)
        line: dict[str, Any] = {"population": name}
        for measure in MEASURES:
            line |= columns_of(measure, _mean(measure, numbers(usable, measure), num_bootstrap))
        curves = usable["losses"].to_list() or [[np.nan]]
        for end, place in (("start", 0), ("end", -1)):
            line[end] = float(np.median([losses[place] for losses in curves]))
        lines.append({**line, "n": len(usable), "diverged": len(here) - len(usable)})
    return pd.DataFrame(lines)


def _mean(measure: str, values: Float64[np.ndarray, " n"], num_bootstrap: int) -> Estimate:
    is_share = measure == "monotonic"
    return share_interval(values) if is_share else bootstrap_mean(values, num_bootstrap)


def differences(rows: pd.DataFrame, baseline: str, num_bootstrap: int) -> pd.DataFrame:
    """How much each population differs from the baseline, over pairs that did not diverge.

    Args:
        rows: Rows of the study.
        baseline: Name of a population.
        num_bootstrap: Resamples.

    Returns:
        One line for every other population: `population`, each measure with `_low` and `_high`, and
            `n`, the number of pairs.
    """
    usable = where(rows, diverged=False).set_index("network_id")
    there = where(usable, population=baseline)[list(MEASURES)]
    lines = []
    for name in rows["population"].unique():
        if name != baseline:
            here = where(usable, population=name)[list(MEASURES)]
            both = here.index.intersection(there.index, sort=False)
            changes = here.loc[both] - there.loc[both]
            line: dict[str, Any] = {"population": name}
            for measure in MEASURES:
                change = bootstrap_mean(numbers(changes, measure), num_bootstrap)
                line |= columns_of(measure, change)
            lines.append({**line, "n": len(both)})
    return pd.DataFrame(lines)


def varied(rows: pd.DataFrame) -> list[str]:
    """Hyperparameters that differ between networks: the columns from `network_id` to `diverged`."""
    columns = list(rows.columns)
    names = columns[columns.index("network_id") + 1 : columns.index("diverged")]
    return [name for name in names if _num_distinct(rows[name]) > 1]


def correlate(rows: pd.DataFrame, num_bootstrap: int) -> pd.DataFrame:
    """Spearman correlation of the largest rise with each numeric hyperparameter.

    Args:
        rows: Rows of the study.
        num_bootstrap: Resamples.

    Returns:
        One line for each hyperparameter and population: `hyperparameter`, `population`, `spearman`,
        `spearman_low`, `spearman_high`, `n`.
    """
    usable = where(rows, diverged=False)
    lines = []
    for hyperparameter in filter(lambda name: is_numeric_dtype(rows[name]), varied(rows)):
        for name, here in split_by(usable, "population"):
            values, rises = numbers(here, hyperparameter), numbers(here, "largest_rise")
            correlation = bootstrap(values, rises, num_bootstrap)["spearman"]
            line = {"hyperparameter": hyperparameter, "population": name, "n": len(here)}
            lines.append({**line, **columns_of("spearman", correlation)})
    return pd.DataFrame(lines)


def bin_shares(rows: pd.DataFrame, hyperparameter: str, num_bins: int) -> pd.DataFrame:
    """Share of monotonic networks in each bin of a hyperparameter.

    Args:
        rows: Rows of the study.
        hyperparameter: Its name. Numbers are binned by quantiles over all rows if they have more
            distinct values than there are bins; otherwise every value is a bin.
        num_bins: Number of bins.

    Returns:
        One line for each population and bin: `population`, `bin` (from 0), `label`, `center`
            (median of the bin's values, its
        number if they are no numbers), `value`, `low`, `high`, `n`.
    """
    numeric = is_numeric_dtype(rows[hyperparameter])
    lines = []
    binned = rows.assign(bin=_bins_of(rows[hyperparameter], num_bins))
    for number, inside in split_by(binned.sort_values("bin", kind="stable"), "bin"):
        values = inside[hyperparameter]
        is_range = numeric and _num_distinct(values) > 1
        span = f"{values.min():.3g} to {values.max():.3g}" if is_range else str(values.iloc[0])
        center = float(np.median(numbers(inside, hyperparameter)) if numeric else number)
        place = {"bin": number, "label": span, "center": center}
        for name, here in split_by(where(inside, diverged=False), "population"):
            share = share_interval(numbers(here, "monotonic"))
            lines.append({"population": name, **place, **share._asdict(), "n": len(here)})
    return pd.DataFrame(lines)


def _bins_of(values: Any, num_bins: int) -> Int64[np.ndarray, " n"]:
    """The number of the bin of each value."""
    if not is_numeric_dtype(values):
        return np.unique(values.astype(str), return_inverse=True)[1]
    if _num_distinct(values) <= num_bins:
        return np.unique(values, return_inverse=True)[1]
    edges = np.unique(np.quantile(values.to_numpy(np.float64), np.linspace(0, 1, num_bins + 1)))
    return np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(edges) - 2)


def summary_cells(lines: pd.DataFrame, signed: bool = False) -> pd.DataFrame:
    """What `summarize` or `differences` returns, as text."""
    cells = pd.DataFrame({"population": lines["population"].astype(str)})
    records, sign = lines.to_dict("records"), "+" if signed else ""
    for measure, title in MEASURES.items():
        digits = f"{sign}.{4 if measure == 'largest_rise' else 3}f"
        cells[title] = [interval_text(estimate_of(line, measure), digits) for line in records]
    if "start" in lines:
        ends = [f"{line['start']:.3g}, {line['end']:.3g}" for line in records]
        cells["median loss at both ends"] = ends
    for name in ("n", "diverged"):
        if name in lines:
            cells[name] = lines[name].astype(str)
    return cells


def correlation_cells(lines: pd.DataFrame) -> pd.DataFrame:
    """What `correlate` returns, as text."""
    # A line for each hyperparameter, a column for each population.
    records = lines.to_dict("records")
    texts = [interval_text(estimate_of(line, "spearman"), "+.2f") for line in records]
    keys = ["hyperparameter", "population"]
    rows, columns = (lines[key].unique() for key in keys)
    wide = lines.assign(text=texts).pivot(index=keys[0], columns=keys[1], values="text")
    return wide.loc[rows, columns].reset_index().rename_axis(columns=None).astype(str)


def make_tables(config: Interpolation, rows: pd.DataFrame, out: Path) -> list[Table]:
    """The tables that there is something to show in.

    Args:
        config: The study's config.
        rows: Its rows.
        out: Its directory, not needed.

    Returns:
        One to three tables.
    """
    del out
    measured = summary_cells(summarize(rows, config.num_bootstrap))
    tables = [Table("The segment from initialization to trained", measured, EXPLAINED)]
    paired = differences(rows, config.baseline, config.num_bootstrap)
    if len(paired):
        cells, note = summary_cells(paired, True), PAIRED.format(config.baseline)
        tables.append(Table(f"Difference to {config.baseline}", cells, note))
    correlations = correlate(rows, config.num_bootstrap)
    if len(correlations):
        cells = correlation_cells(correlations)
        tables.append(Table("Largest rise and hyperparameters", cells, CORRELATED))
    return tables


def _num_distinct(values: Any) -> int:
    return len(np.unique(values.to_numpy()))
