"""Figures of a learnability study; readable without color."""

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from studies.common.figures import (
    WIDTH,
    draw_band,
    finish,
    line_style,
    lines_by,
    panels,
    panels_by,
    words,
)
from studies.common.grid import cell_path, read_cell
from studies.common.intervals import estimate_of
from studies.common.rows import numbers, where
from studies.learnability.config import FLOOR
from studies.learnability.summary import title

LOWEST = -0.5  # worse scores are cut off: R^2 has no lower end
BLUE = "#0b5fa5"
UNITS = {
    "test_accuracy": "test accuracy (fraction)",
    "train_accuracy": "training accuracy (fraction)",
    "generalization_gap": "generalization gap (fraction)",
    "test_loss": "test loss (nats)",
    "train_loss": "training loss (nats)",
}


def plot_curves(
    averages: pd.DataFrame, metric: str, by: str = "metanet", lines: str = "population"
) -> Figure:
    """Learning curves: a metric against the number of training networks.

    Args:
        averages: What `average_seeds` returns, of one target; one line for each panel, line and
            number of training networks.
        metric: Name of the metric.
        by: Column that says which panel a curve is in.
        lines: Column that says which curve it is.

    Returns:
        The figure.
    """
    count, names = len(averages[by].unique()), averages[lines].unique()
    columns = count if count <= 4 else 3
    drawn, places = panels_by(averages, by, columns, margin=0.8, height=2.6)
    legend, faint = {}, 0.5 / max(len(names), 5)
    for panel, name, inside in places:
        for i, line, here in lines_by(inside.sort_values("num_train"), lines, names):
            curves = estimate_of(here, metric)
            legend[line] = draw_band(panel, here["num_train"], curves, faint, **line_style(i))
        if name == FLOOR:
            panel.set_title(f"{name} (floor)")
    _dress_curves([panel for panel, _, _ in places], columns, averages, metric)
    return finish(drawn, legend=legend, ncols=5 if len(names) <= 5 else 4)


def _dress_curves(axes: Sequence[Axes], columns: int, averages: pd.DataFrame, metric: str) -> None:
    counts = sorted(averages["num_train"].unique())
    low, high = (np.nan_to_num(numbers(averages, metric + end)) for end in ("_low", "_high"))
    first = axes[0]
    first.set_xscale("log")
    first.set_xticks(counts, [str(count) for count in counts])
    first.minorticks_off()
    first.set_xlim(counts[0] / 1.15, counts[-1] * 1.15)
    first.set_ylim(min(max(low.min(), LOWEST), 0) - 0.03, max(high.max(), 0.1) + 0.03)
    for i, panel in enumerate(axes):
        panel.axhline(0, color="#aaa", lw=0.8, zorder=0)
        if i % columns == 0:
            panel.set_ylabel(title(metric))
        if i + columns >= len(axes):
            panel.set_xlabel("training networks")
            panel.tick_params(labelbottom=True)


def plot_predictions(rows: pd.DataFrame, metanets: Sequence[str], target: str, out: Path) -> Figure:
    """Predicted against true targets of the test networks, at the most training networks.

    Args:
        rows: Rows of one target, without treatment, with true labels, each scored on its own
            population.
        metanets: Metanets to show, one line of panels each.
        target: Name of the target.
        out: Directory of the study.

    Returns:
        A figure with one panel for each metanet and population.
    """
    populations = rows["population"].unique()
    places = list(product(metanets, populations))
    height = WIDTH / max(len(populations), 4)
    drawn, axes = panels(len(places), len(populations), margin=0.5, height=height)
    shown = where(rows, seed=rows["seed"].iloc[0]).sort_values("num_train", kind="stable")
    last = shown.groupby(["metanet", "population"]).last()
    truths = [_scatter(*pair, last.loc[pair[1]], out) for pair in zip(axes, places, strict=True)]
    _draw_diagonals(axes, np.concatenate(truths))
    return finish(drawn, f"true {_unit(target)}", f"predicted {_unit(target)}")


def _draw_diagonals(axes: Sequence[Axes], truths: Float[np.ndarray, "_"]) -> None:
    """Where predictions are exact, in all panels over the same range."""
    low, high = truths.min(), truths.max()
    margin = 0.05 * (high - low) or 1.0
    ends = (low - margin, high + margin)
    for panel in axes:
        panel.plot([low, high], [low, high], color="#444", lw=0.8, ls="--")
        panel.set(xlim=ends, ylim=ends, aspect="equal")


def _scatter(
    panel: Axes, place: tuple[str, str], row: pd.Series, out: Path
) -> Float[np.ndarray, "_"]:
    """Draw the predictions of one cell; their true targets."""
    metanet, population = place
    table = read_cell(cell_path(out, str(row["cell"])))
    here = where(table, test_population=population)
    style = {"s": 7, "color": BLUE, "alpha": 0.45, "lw": 0, "rasterized": True}
    panel.scatter(here["truth"].to_numpy(), here["prediction"].to_numpy(), **style)
    scores = f"{title('r2')} {row['r2']:.2f}, \u03c4 {row['kendall_tau']:.2f}"
    panel.set_title(f"{population}\n{metanet}: {scores}")
    panel.title.set_fontsize(8)
    return here["truth"].to_numpy()


def plot_labels(labels: Mapping[str, Float[np.ndarray, "_"]], target: str) -> Figure:
    """Histograms of a target, one panel a population, on the same axes.

    Args:
        labels: Finite values of each population.
        target: Name of the target.

    Returns:
        The figure.
    """
    drawn, axes = panels(len(labels), 5, margin=0.3, height=1.9)
    bins = np.histogram_bin_edges(np.concatenate(list(labels.values())), bins=40)
    for panel, (name, values) in zip(axes, labels.items(), strict=True):
        shares = np.full(values.size, 1 / values.size)
        panel.hist(
            values, bins=bins.tolist(), weights=shares, color="#9dbad5", ec="#44617c", lw=0.3
        )
        median = float(np.median(values))
        panel.axvline(median, color="#1b1b1b", lw=1.2, ls="--")
        panel.set_title(f"{name}\n{values.size} networks, median {median:.3g}", fontsize=8)
    return finish(drawn, _unit(target), "share of networks")


def _unit(target: str) -> str:
    return UNITS.get(target, words(target))
