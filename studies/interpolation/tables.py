"""Tables of the study of linear interpolation: populations, paired differences, hyperparameters."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Shaped

from metanet.metrics import Estimate, bootstrap
from studies.common.intervals import bootstrap_mean
from studies.common.page import Table
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
        return Estimate(np.nan, np.nan, np.nan)
    n, p, z = len(hits), float(np.mean(hits)), LEVEL_Z
    middle, half = p + z**2 / (2 * n), z * (p * (1 - p) / n + z**2 / (4 * n**2)) ** 0.5
    return Estimate(
        p, *(max(0.0, min(1.0, (middle + side * half) / (1 + z**2 / n))) for side in (-1, 1))
    )


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
    for name, here in rows.groupby("population", sort=False):
        usable = here.loc[~here["diverged"]]
        line: dict[str, Any] = {"population": name}
        for measure in MEASURES:
            values = usable[measure].to_numpy(np.float64)
            found = (
                share_interval(values)
                if measure == "monotonic"
                else bootstrap_mean(values, num_bootstrap)
            )
            line |= _columns(measure, found)
        for end, place in (("start", 0), ("end", -1)):
            line[end] = (
                float(np.median([losses[place] for losses in usable["losses"]]))
                if len(usable)
                else np.nan
            )
        lines.append({**line, "n": len(usable), "diverged": len(here) - len(usable)})
    return pd.DataFrame(lines)


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
    usable = rows.loc[~rows["diverged"]]
    measures = list(MEASURES)
    reference = usable.loc[usable["population"] == baseline, ["network_id", *measures]]
    lines = []
    for name in rows["population"].unique():
        if name != baseline:
            own = usable.loc[usable["population"] == name, ["network_id", *measures]]
            pairs = own.merge(reference, on="network_id", suffixes=("", "_reference"))
            line: dict[str, Any] = {"population": name}
            for measure in measures:
                change = pairs[measure].to_numpy(np.float64) - pairs[
                    f"{measure}_reference"
                ].to_numpy(np.float64)
                line |= _columns(measure, bootstrap_mean(change, num_bootstrap))
            lines.append({**line, "n": len(pairs)})
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
    lines = []
    for hyperparameter in varied(rows):
        if not pd.api.types.is_numeric_dtype(rows[hyperparameter]):
            continue
        for name, here in rows.loc[~rows["diverged"]].groupby("population", sort=False):
            values, rise = (
                here[column].to_numpy(np.float64) for column in (hyperparameter, "largest_rise")
            )
            found = bootstrap(values, rise, num_bootstrap)["spearman"]
            line = {"hyperparameter": hyperparameter, "population": name, "n": len(here)}
            lines.append({**line, **_columns("spearman", found)})
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
    values = rows[hyperparameter]
    numeric = pd.api.types.is_numeric_dtype(values)
    if numeric and _num_distinct(values) > num_bins:
        edges = np.unique(np.quantile(values.to_numpy(np.float64), np.linspace(0, 1, num_bins + 1)))
        bins = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(edges) - 2)
    else:
        bins = np.unique(values.astype(str) if not numeric else values, return_inverse=True)[1]
    binned = rows.assign(bin=bins)
    lines = []
    for number in np.unique(bins).tolist():
        everyone = binned.loc[binned["bin"] == number]
        own = everyone[hyperparameter]
        label = (
            f"{own.min():.3g} to {own.max():.3g}"
            if numeric and _num_distinct(own) > 1
            else str(own.iloc[0])
        )
        center = float(np.median(own.to_numpy(np.float64))) if numeric else float(number)
        for name, here in everyone.loc[~everyone["diverged"]].groupby("population", sort=False):
            found = share_interval(here["monotonic"].to_numpy(np.float64))
            place = {"population": name, "bin": number, "label": label, "center": center}
            lines.append({**place, **found._asdict(), "n": len(here)})
    return pd.DataFrame(lines)


def summary_cells(lines: pd.DataFrame, signed: bool = False) -> pd.DataFrame:
    """What `summarize` or `differences` returns, as text."""
    cells = pd.DataFrame({"population": lines["population"].astype(str)})
    for measure, title in MEASURES.items():
        digits = 4 if measure == "largest_rise" else 3
        cells[title] = [_text(line, measure, digits, signed) for line in lines.to_dict("records")]
    if "start" in lines:
        cells["median loss at both ends"] = [
            f"{line['start']:.3g}, {line['end']:.3g}" for line in lines.to_dict("records")
        ]
    for name in ("n", "diverged"):
        if name in lines:
            cells[name] = lines[name].astype(str)
    return cells


def correlation_cells(lines: pd.DataFrame) -> pd.DataFrame:
    """What `correlate` returns, as text."""
    # A line for each hyperparameter, a column for each population.
    cells = lines.assign(
        text=[_text(line, "spearman", 2, True) for line in lines.to_dict("records")]
    )
    order = [lines[name].unique() for name in ("hyperparameter", "population")]
    wide = cells.pivot(index="hyperparameter", columns="population", values="text").loc[
        order[0], order[1]
    ]
    return wide.reset_index().rename_axis(columns=None).astype(str)


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


def _columns(name: str, found: Estimate) -> dict[str, float]:
    return {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}


def _text(line: Mapping[Any, Any], name: str, digits: int, signed: bool) -> str:
    if not np.isfinite(line[name]):
        return "n/a"
    sign = "+" if signed else ""
    value, low, high = (f"{line[f'{name}{end}']:{sign}.{digits}f}" for end in ("", "_low", "_high"))
    return f"{value} [{low}, {high}]"
