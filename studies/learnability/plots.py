"""Figures of a learnability study; readable without color."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from studies.learnability.config import FLOOR
from studies.learnability.fits import load_predictions
from studies.learnability.summary import title

WIDTH = 10.5  # inches, a laptop's text width
LOWEST = -0.5  # worse scores are cut off: R^2 has no lower end
UNITS = {
    "test_accuracy": "test accuracy (fraction)",
    "train_accuracy": "training accuracy (fraction)",
    "generalization_gap": "generalization gap (fraction)",
    "test_loss": "test loss (nats)",
    "train_loss": "training loss (nats)",
}
STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#888",
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "axes.grid": True,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "text.parse_math": False,
    "svg.hashsalt": "symzoo",
}
# dark to light, so that the order survives in grey; marker and line style tell lines apart without
# any color
COLORS = ("#1b1b1b", "#0b5fa5", "#c8501e", "#1f8a5b", "#8a5bb0", "#b08900", "#5c8fb5", "#b56a8c")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
LINES = (
    "-",
    (0, (5, 1.5)),
    "-.",
    (0, (1, 1.2)),
    (0, (6, 1, 1, 1, 1, 1)),
    (0, (3, 3)),
    (0, (8, 2)),
    (0, (1, 3)),
)


def plot_curves(
    averages: pd.DataFrame, metric: str, panels: str = "metanet", lines: str = "population"
) -> Figure:
    """Learning curves: a metric against the number of training networks.

    Args:
        averages: What `average_seeds` returns, of one target; one line for each panel, line and
            number of training networks.
        metric: Name of the metric.
        panels: Column that says which panel a curve is in.
        lines: Column that says which curve it is.

    Returns:
        The figure.
    """
    titles, names = averages[panels].unique(), averages[lines].unique()
    columns = len(titles) if len(titles) <= 4 else 3
    figure = Figure(figsize=(WIDTH, 0.8 + 2.6 * -(-len(titles) // columns)), layout="constrained")
    grid = (
        figure.subplots(
            -(-len(titles) // columns), columns, sharex=True, sharey=True, squeeze=False
        )
        .ravel()
        .tolist()
    )
    legend, faint = {}, 0.5 / max(len(names), 5)
    for panel, name in zip(grid, titles, strict=False):
        for i, line in enumerate(names):
            here = averages.loc[(averages[panels] == name) & (averages[lines] == line)].sort_values(
                "num_train"
            )
            if here.empty:
                continue
            color, marker, dashes = (cycle[i % len(cycle)] for cycle in (COLORS, MARKERS, LINES))
            panel.fill_between(
                here["num_train"],
                here[f"{metric}_low"],
                here[f"{metric}_high"],
                color=color,
                alpha=faint,
                lw=0,
            )
            (legend[line],) = panel.plot(
                here["num_train"], here[metric], color=color, marker=marker, ls=dashes, ms=4, lw=1.3
            )
        panel.set_title(f"{name} (floor)" if name == FLOOR else name)
    _dress_curves(grid, len(titles), columns, averages, metric)
    figure.legend(
        legend.values(),
        legend.keys(),
        loc="outside upper left",
        ncols=5 if len(names) <= 5 else 4,
        handlelength=4,
    )
    return figure


def _dress_curves(
    panels: Sequence[Axes], used: int, columns: int, averages: pd.DataFrame, metric: str
) -> None:
    sizes = sorted(averages["num_train"].unique())
    low, high = (
        np.nan_to_num(averages[f"{metric}_{end}"].to_numpy(np.float64)) for end in ("low", "high")
    )
    panels[0].set_xscale("log")
    panels[0].set_xticks(sizes, [str(size) for size in sizes])
    panels[0].minorticks_off()
    panels[0].set_xlim(sizes[0] / 1.15, sizes[-1] * 1.15)
    panels[0].set_ylim(min(max(low.min(), LOWEST), 0) - 0.03, max(high.max(), 0.1) + 0.03)
    for i, panel in enumerate(panels):
        panel.set_visible(i < used)
        panel.axhline(0, color="#aaa", lw=0.8, zorder=0)
        if i % columns == 0:
            panel.set_ylabel(title(metric))
        if i + columns >= used:
            panel.set_xlabel("training networks")
            panel.tick_params(labelbottom=True)


def plot_predictions(rows: pd.DataFrame, metanets: Sequence[str], target: str, out: Path) -> Figure:
    """Predicted against true targets of the test networks, at the largest number of training networks.

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
    figure = Figure(
        figsize=(WIDTH, 0.5 + WIDTH / max(len(populations), 4) * len(metanets)),
        layout="constrained",
    )
    panels = figure.subplots(
        len(metanets), len(populations), sharex=True, sharey=True, squeeze=False
    )
    first = rows.loc[rows["seed"] == rows["seed"].iloc[0]].sort_values("num_train", kind="stable")
    truths = []
    for line, metanet in zip(panels, metanets, strict=True):
        for panel, population in zip(line, populations, strict=True):
            row = first.loc[
                (first["metanet"] == metanet) & (first["population"] == population)
            ].iloc[-1]
            found = load_predictions(out / "cells" / f"{row['cell']}.npz")[population]
            panel.scatter(
                found.truth,
                found.prediction,
                s=7,
                color="#0b5fa5",
                alpha=0.45,
                lw=0,
                rasterized=True,
            )
            panel.set_title(
                f"{population}\n{metanet}: {title('r2')} {row['r2']:.2f}, \u03c4 {row['kendall_tau']:.2f}"
            )
            panel.title.set_fontsize(8)
            truths.append(found.truth)
    low, high = np.concatenate(truths).min(), np.concatenate(truths).max()
    margin = 0.05 * (high - low) or 1.0
    for panel in panels.ravel():
        panel.plot([low, high], [low, high], color="#444", lw=0.8, ls="--")
        panel.set(
            xlim=(low - margin, high + margin), ylim=(low - margin, high + margin), aspect="equal"
        )
    figure.supxlabel(f"true {_unit(target)}", fontsize=9)
    figure.supylabel(f"predicted {_unit(target)}", fontsize=9)
    return figure


def plot_labels(labels: Mapping[str, Float[np.ndarray, "_"]], target: str) -> Figure:
    """Histograms of a target, one panel a population, on the same axes.

    Args:
        labels: Finite values of each population.
        target: Name of the target.

    Returns:
        The figure.
    """
    columns = min(len(labels), 5)
    lines = -(-len(labels) // columns)
    figure = Figure(figsize=(WIDTH, 0.3 + 1.9 * lines), layout="constrained")
    panels = (
        figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).ravel().tolist()
    )
    bins = np.histogram_bin_edges(np.concatenate(list(labels.values())), bins=40)
    for panel, (name, values) in zip(panels, labels.items(), strict=False):
        panel.hist(
            values,
            bins=bins,
            color="#9dbad5",
            ec="#44617c",
            lw=0.3,
            weights=np.full(values.size, 1 / values.size),
        )
        panel.axvline(float(np.median(values)), color="#1b1b1b", lw=1.2, ls="--")
        panel.set_title(
            f"{name}\n{values.size} networks, median {np.median(values):.3g}", fontsize=8
        )
    for panel in panels[len(labels) :]:
        panel.set_visible(False)
    figure.supxlabel(_unit(target), fontsize=9)
    figure.supylabel("share of networks", fontsize=9)
    return figure


def words(name: str) -> str:
    """A column's name for people."""
    return name.replace("_", " ")


def _unit(target: str) -> str:
    return UNITS.get(target, words(target))


def plain_ticks(axis: Axis) -> None:
    """Label the decades of a logarithmic axis as plain numbers and nothing between them: figures do not parse mathematics.

    Args:
        axis: The axis, whose scale is set already.
    """
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())
