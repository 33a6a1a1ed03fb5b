"""The report of a study of Bayesian networks."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure

from studies.bayesian.config import Bayesian
from studies.bayesian.tables import (
    RESAMPLES,
    SPACES,
    chain_cells,
    explain,
    explain_chains,
    inference_cells,
)
from studies.common.intervals import bootstrap_mean
from studies.common.page import details, figure, heading, paragraph, quiet, table, write_page
from studies.learnability.plots import COLORS, LINES, MARKERS, STYLE, WIDTH

LEAD = (
    "Variational inference of deep networks, and Markov chains on small ones, with and without the symmetry of neurons. "
    "A posterior over weights that ignores symmetry has a mode for every permutation; asymmetric networks have none of these."
)
SIGNAL = (
    "Compare scales of the initialization before crediting symmetry: PyTorch's start shrinks the variance of a standard ReLU "
    "network's signal in every layer, and fixed entries with a large standard deviation add to it. The scale 2.45 (square root "
    "of 6, He et al. 2015) keeps it in the standard network too."
)


def write_report(config: Bayesian, rows: pd.DataFrame, out: Path) -> Path:
    """Write `report.html`.

    Args:
        config: The study's config.
        rows: Its rows.
        out: Its directory.

    Returns:
        The file.
    """
    found = rows.loc[rows["part"] == "variational"]
    with rc_context(STYLE):
        parts = [heading("Bayesian networks", 1), paragraph(LEAD), heading("Variational inference")]
        parts += [table(inference_cells(config, rows)), quiet(explain(config)), paragraph(SIGNAL)]
        for metric, unit in (
            ("test_accuracy", "test accuracy (fraction)"),
            ("elbo", "ELBO after the start (nats per image)"),
        ):
            caption = f"{unit} against epochs, mean over {config.seeds} networks; bands: 95% bootstrap interval over networks."
            parts.append(figure(plot_records(found, metric, unit, config.num_bootstrap), caption))
        if config.chains is not None:
            parts += [
                heading("Markov chains"),
                table(chain_cells(rows)),
                quiet(explain_chains(config)),
            ]
            caption = "Share of weights, aligned weights and predictions at test points whose R-hat is at most the value below."
            parts.append(figure(plot_rhat(rows.loc[rows["part"] == "chains"]), caption))
    facts = {
        "networks in lock step": str(config.seeds),
        "cells": str(found.groupby(["architecture", "asymmetry", "rank", "init_scale"]).ngroups),
    }
    return write_page(
        out, "Bayesian networks", [*parts, details("bayesian", out, facts, config.to_yaml())]
    )


def plot_records(rows: pd.DataFrame, metric: str, unit: str, num_bootstrap: int) -> Figure:
    """A metric against epochs, a panel for each architecture, scale of the initialization and rank; ELBOs after the start.

    Args:
        rows: Rows of the variational part.
        metric: Column.
        unit: Label of the axis.
        num_bootstrap: Resamples of an interval.

    Returns:
        The figure.
    """
    groups: Any = list(rows.groupby(["architecture", "init_scale", "rank"], sort=False))
    kinds, columns = rows["asymmetry"].unique(), min(len(groups), 4)
    lines = -(-len(groups) // columns)
    drawn = Figure(figsize=(WIDTH, 0.8 + 2.6 * lines), layout="constrained")
    panels = (
        drawn.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).ravel().tolist()
    )
    legend = {}
    for panel, (names, group) in zip(panels, groups, strict=False):
        for i, kind in enumerate(kinds):
            own = group.loc[group["asymmetry"] == kind]
            epochs = np.sort(own["epoch"].unique())[int(metric == "elbo") :]
            values = [
                own.loc[own["epoch"] == epoch, metric].to_numpy(np.float64) for epoch in epochs
            ]
            mean, low, high = np.array(
                [bootstrap_mean(value, num_bootstrap, RESAMPLES) for value in values]
            ).T
            panel.fill_between(epochs, low, high, color=COLORS[i], alpha=0.13, lw=0)
            (legend[kind],) = panel.plot(
                epochs, mean, color=COLORS[i], marker=MARKERS[i], ls=LINES[i], ms=4, lw=1.3
            )
        panel.set_title(f"{names[0]}, init scale {names[1]:g}, rank {names[2]:g}")
    for panel in panels[len(groups) :]:
        panel.set_visible(False)
    drawn.supxlabel("epoch", fontsize=9)
    drawn.supylabel(unit, fontsize=9)
    drawn.legend(legend.values(), legend.keys(), loc="outside upper left", ncols=5, handlelength=4)
    return drawn


def plot_rhat(rows: pd.DataFrame) -> Figure:
    """Cumulative distributions of R-hat in weight space, as it is and after alignment, and in function space.

    Args:
        rows: Rows of the chains.

    Returns:
        The figure.
    """
    drawn = Figure(figsize=(WIDTH, 3.4), layout="constrained")
    panels = drawn.subplots(1, len(SPACES), sharex=True, sharey=True)
    legend = {}
    for panel, (space, title) in zip(panels, SPACES.items(), strict=True):
        for i, kind in enumerate(rows["asymmetry"].unique()):
            values = np.sort(
                rows.loc[(rows["space"] == space) & (rows["asymmetry"] == kind), "rhat"].to_numpy(
                    np.float64
                )
            )
            if not len(values):
                continue
            share = np.arange(1, len(values) + 1) / len(values)
            (legend[kind],) = panel.step(
                values, share, where="post", color=COLORS[i], ls=LINES[i], lw=1.4
            )
        panel.axvline(1.01, color="#aaa", lw=0.8)
        panel.set_title(title)
    drawn.supxlabel("rank-normalized R-hat (grey line: 1.01)", fontsize=9)
    drawn.supylabel("cumulative share", fontsize=9)
    drawn.legend(legend.values(), legend.keys(), loc="outside upper left", ncols=5, handlelength=4)
    return drawn
