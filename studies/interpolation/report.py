"""The report of the study of linear interpolation."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float64
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from studies.common.figures import (
    WIDTH,
    bar_lengths,
    draw_band,
    draw_shares,
    finish,
    line_style,
    lines_by,
    panels,
    panels_by,
    plain_ticks,
    words,
)
from studies.common.page import Report, figure, heading, paragraph, quiet, section, sections
from studies.common.rows import numbers, split_by, where
from studies.interpolation.config import Interpolation
from studies.interpolation.tables import bin_shares, make_tables, varied

RISES = (-100, -10, -1, -0.1, -0.01, -0.001, 0.001, 0.01, 0.1, 1, 10, 100)
LOG_RATIO = 20  # hyperparameters that vary by more than this factor have a logarithmic axis


def make_report(config: Interpolation, rows: pd.DataFrame, out: Path) -> Report:
    """The page of the study.

    Args:
        config: The study's config.
        rows: Its rows.
        out: Its directory.

    Returns:
        Its parts.
    """
    num_networks, num_populations = rows["network_id"].nunique(), rows["population"].nunique()
    counts = ", ".join(f"{name} {count}" for name, count in _diverged(rows).items())
    lead = (
        f"The training loss at {config.num_points} evenly spaced points of the segment from the "
        f"initialization of a network to its trained parameters, for {num_networks} networks in "
        f"each of {num_populations} populations of the zoo {config.zoo.name}. Nothing was trained "
        f"for it: the ends are the first and the last checkpoint of each network."
    )
    first, *others = make_tables(config, rows, out)
    parts = [
        heading("Linear interpolation from initialization to trained", 1),
        paragraph(lead),
        quiet(f"Diverged networks, counted and left out of all means and curves: {counts}."),
        *section(first),
        *_first_figures(config, rows),
        *sections(others),
        *_hyperparameters(config, rows),
    ]
    facts = {
        "networks": f"{len(rows)}, with {config.num_points} points each",
        "training images": _images(config),
    }
    return Report(f"Interpolation: {config.zoo.name}", parts, facts)


def _diverged(rows: pd.DataFrame) -> dict[Any, int]:
    return pd.Series(rows.groupby("population", sort=False)["diverged"].sum()).to_dict()


def _images(config: Interpolation) -> str:
    most = "all" if config.num_images is None else f"the first {config.num_images:,}"
    loss = "with its label smoothing" if config.label_smoothing else "without label smoothing"
    return (
        f"{most} of those that a network saw, with the labels that it saw; cross-entropy {loss}, "
        f"in {config.dtype}"
    )


def _first_figures(config: Interpolation, rows: pd.DataFrame) -> list[str]:
    curves = (
        "Training loss along the segment, by population: median over networks; bands: first to "
        "third quartile. Thin dashes: "
        f"the median of {config.baseline}."
    )
    rises = (
        "Share of networks whose largest rise is at most the value on the axis; where a line meets "
        "0 is the share of monotonic "
        "networks. Between the ticks at 0.001 and -0.001 the axis is linear, outside logarithmic."
    )
    return [figure(plot_segments(rows, config.baseline), curves), figure(plot_rises(rows), rises)]


def _hyperparameters(config: Interpolation, rows: pd.DataFrame) -> list[str]:
    names = varied(rows)
    if not names:
        return []
    caption = (
        "Share of monotonic networks against each hyperparameter that varies, in "
        f"{config.num_bins} bins by quantiles over all "
        "networks (every value where there are fewer), drawn at their medians; bars: 95% Wilson "
        "interval over networks."
    )
    return [
        heading("Monotonic networks and hyperparameters"),
        figure(plot_shares(rows, names, config.num_bins), caption),
    ]


def plot_segments(rows: pd.DataFrame, baseline: str) -> Figure:
    """Loss curves, one panel a population.

    Args:
        rows: Rows of the study.
        baseline: Population whose median is drawn in all panels.

    Returns:
        The figure.
    """
    quartiles = {
        name: np.quantile(np.stack(here["losses"].to_list()), [0.25, 0.5, 0.75], axis=0)
        for name, here in split_by(where(rows, diverged=False), "population")
    }
    drawn, places = panels_by(rows, "population", 5, margin=0.5, height=2.5)
    for i, (panel, name, here) in enumerate(places):
        panel.set_title(f"{name}\n{(~here['diverged']).sum()} networks", fontsize=8)
        if name in quartiles:
            middles = [quartiles[baseline][1]] * (name != baseline and baseline in quartiles)
            _plot_quartiles(panel, quartiles[name], i, middles)
    places[0][0].set_yscale("log")
    plain_ticks(places[0][0].yaxis)
    position = "position on the segment (0 initialization, 1 trained)"
    return finish(drawn, position, "training loss (nats)")


def _plot_quartiles(
    panel: Axes,
    quartiles: Float64[np.ndarray, "3 T"],
    number: int,
    references: Sequence[Float64[np.ndarray, " T"]],
) -> None:
    low, middle, high = quartiles
    color, position = line_style(number)["color"], np.linspace(0, 1, len(middle))
    draw_band(panel, position, (middle, low, high), alpha=0.2, color=color, lw=1.6)
    for reference in references:
        panel.plot(position, reference, color="#555", lw=0.9, ls=(0, (4, 2)))


def plot_rises(rows: pd.DataFrame) -> Figure:
    """Distribution of the largest rise, one line a population.

    Args:
        rows: Rows of the study.

    Returns:
        The figure.
    """
    drawn = Figure(figsize=(WIDTH * 0.7, 3.2), layout="constrained")
    panel = drawn.subplots()
    for i, (name, here) in enumerate(split_by(where(rows, diverged=False), "population")):
        draw_shares(panel, numbers(here, "largest_rise"), i, label=name)
    panel.axvline(0, color="#888", lw=0.8)
    panel.set_xscale("symlog", linthresh=1e-3)
    low, high = panel.get_xlim()
    panel.set_xticks([tick for tick in RISES if low <= tick <= high])
    plain_ticks(panel.xaxis)
    panel.set_xlim(low, high)
    panel.set(
        xlabel="largest rise between consecutive points (nats)",
        ylabel="share of networks",
        ylim=(0, 1.02),
    )
    drawn.legend(loc="outside right upper", handlelength=4)
    return drawn


def plot_shares(rows: pd.DataFrame, hyperparameters: Sequence[str], num_bins: int) -> Figure:
    """Share of monotonic networks against hyperparameters, one panel each.

    Args:
        rows: Rows of the study.
        hyperparameters: Their names.
        num_bins: Bins of each.

    Returns:
        The figure.
    """
    drawn, axes = panels(len(hyperparameters), 3, margin=0.5, height=2.4, sharex=False)
    legend = {}
    for panel, hyperparameter in zip(axes, hyperparameters, strict=True):
        shares = bin_shares(rows, hyperparameter, num_bins)
        for i, name, here in lines_by(shares, "population", rows["population"].unique()):
            bars = bar_lengths(here["value"], here["low"], here["high"])
            style = line_style(i, lw=1.2, elinewidth=0.8, capsize=2)
            legend[name] = panel.errorbar(here["center"], here["value"], yerr=bars, **style)
        _dress(panel, hyperparameter, shares)
    return finish(drawn, ylabel="share of monotonic networks", legend=legend)


def _dress(panel: Axes, hyperparameter: str, shares: pd.DataFrame) -> None:
    bins = shares.drop_duplicates("bin")
    centers, labels = numbers(bins, "center"), bins["label"].to_list()
    panel.set(xlabel=words(hyperparameter), ylim=(-0.04, 1.04))
    if centers.min() > 0 and centers.max() > LOG_RATIO * centers.min():
        panel.set_xscale("log")
        plain_ticks(panel.xaxis)
    elif any(not _is_number(label) and " to " not in label for label in labels):
        panel.set_xticks(centers, labels)


def _is_number(text: str) -> bool:
    return text.replace(".", "", 1).replace("-", "").replace("e", "").isdigit()
