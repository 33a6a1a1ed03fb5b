"""Tables of a study of conserved quantities."""

from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float

from studies.common.intervals import Interval, estimate_of, interval_text, mean_interval
from studies.common.page import Table
from studies.common.rows import numbers, split_by, where
from studies.conservation.config import Conservation
from studies.conservation.trajectories import TERMS

ROUNDING = 1e-12
"""Changes of a quantity below this share of its size are rounding errors."""
EXPLAIN = (
    "Smallest step size of each way to train; laws of the standard architecture, in every "
    "population. Residual: |<gradient, "
    "field>| over both norms, the largest of all networks, neurons and records. Drift: mean |Q - "
    "Q(0)| at the end over the "
    "mean |Q(0)|, mean over networks with Student's 95% interval; then the share of each term, in "
    "the same unit: the size of "
    "the steps, weight decay, an update that is not along the gradient, a law that does not hold. "
    "Slope: of log(change of Q in "
    "one step) against log(step size); 2 means that a step changes Q by order of its square."
)
EXPLAIN_BRIDGES = (
    "Kendall's tau on n test networks with its 95% bootstrap interval: trees on the "
    "hyperparameters, on statistics of the "
    "conserved quantities of the initialization, of its parameters, and of the trained parameters. "
    "Left out: test networks that diverged, or whose loss never came down to half, where that is "
    "predicted."
)


def kind_of(law: str) -> str:
    """Kind of a law by its name."""
    return law.rpartition(".")[2]


def paths_of(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of the training runs, with the kind of each law."""
    paths = where(rows, part="paths")
    return paths.assign(kind=paths["law"].map(kind_of))


def bridges_of(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of the predictions."""
    return where(rows, part="bridges")


def path_cells(rows: pd.DataFrame) -> pd.DataFrame:
    """What happened to the laws: a line of texts for each population, training and kind of law.

    Args:
        rows: The study's rows.

    Returns:
        The table.
    """
    lines = []
    for names, runs in split_by(paths_of(rows), ["population", "descent", "kind"]):
        line = dict(zip(("population", "descent", "law"), map(str, names), strict=True))
        smallest = where(runs, lr=runs["lr"].min())
        ends = where(smallest, step=smallest["step"].max())
        drift, slope = relative(ends, "drift"), slopes(runs)
        line |= {
            "lr": f"{runs['lr'].min():g}",
            "residual": f"{smallest['residual_max'].max():.1e}",
            "drift": f"{drift:.1e}",
        }
        line |= {term: f"{relative(ends, term).mean:.1e}" for term in TERMS}
        lines.append(line | {"slope": "-" if slope is None else str(slope)})
    return pd.DataFrame(lines)


def relative(ends: pd.DataFrame, column: str) -> Interval:
    """A column over the size of the quantities, networks by networks."""
    # Mean over laws, then the interval over networks.
    return mean_interval(network_means(ends, numbers(ends, column) / numbers(ends, "size")))


def network_means(rows: pd.DataFrame, values: Float[np.ndarray, " R"]) -> Float[np.ndarray, " N"]:
    """The mean of the values of each network.

    Args:
        rows: Rows.
        values: One for each row.

    Returns:
        Means, by number of the network.
    """
    ids = rows["network"].to_numpy()
    return np.array([values[ids == network].mean() for network in np.unique(ids)])


def slopes(rows: pd.DataFrame) -> Interval | None:
    """Slope of log(change in one step) against log(step size), a line for each network.

    Args:
        rows: Rows of one population, way to train and kind of law, of all step sizes.

    Returns:
        Mean slope with its interval over networks; None with one step size, or if nothing changes
        but by rounding.
    """
    last = where(rows, step=rows.groupby("lr")["step"].transform("max"))
    curves = pd.DataFrame(last.groupby(["network", "lr"])[["step_drift", "size"]].mean())
    relative_change = numbers(curves, "step_drift") / numbers(curves, "size")
    if len(last["lr"].unique()) < 2 or np.nanmin(relative_change) < ROUNDING:
        return None
    changes = curves["step_drift"].unstack()
    lrs = changes.columns.to_numpy(np.float64)
    return mean_interval(fit_slopes(lrs, changes.to_numpy(np.float64)))


def fit_slopes(
    lrs: Float[np.ndarray, " L"], changes: Float[np.ndarray, "N L"]
) -> Float[np.ndarray, " N"]:
    """Least-squares slope of each network's logarithms.

    Args:
        lrs: Step sizes.
        changes: Changes.

    Returns:
        Slopes.
    """
    x = np.log(lrs) - np.log(lrs).mean()
    return np.log(changes) @ x / (x @ x)


def bridge_cells(rows: pd.DataFrame) -> pd.DataFrame:
    """How well each bridge predicts each target, a line for each target and population, as texts.

    Args:
        rows: The study's rows.

    Returns:
        The table.
    """
    lines = []
    for (target, population), scores in split_by(bridges_of(rows), ["target", "population"]):
        counts = scores.iloc[0]
        line = {"target": str(target), "population": str(population)}
        line |= {"n": f"{counts['n']:g}", "left out": f"{counts['dropped']:g}"}
        for row in scores.to_dict("records"):
            line[str(row["bridge"])] = interval_text(estimate_of(row, "kendall_tau"), ".2f")
        lines.append(line)
    return pd.DataFrame(lines)


def make_tables(config: Conservation, rows: pd.DataFrame, out: Path) -> list[Table]:
    """The tables of both parts.

    Args:
        config: The study's config.
        rows: Its rows.
        out: Its directory, not needed.

    Returns:
        One or two tables.
    """
    del out
    tables = [Table("Laws along training", path_cells(rows), EXPLAIN)]
    if config.bridges:
        cells = bridge_cells(rows)
        tables.append(Table("What the initialization tells", cells, EXPLAIN_BRIDGES))
    return tables
