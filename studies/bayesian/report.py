"""The report of a study of Bayesian networks."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from studies.bayesian.config import Bayesian
from studies.bayesian.tables import RESAMPLES, SPACES, make_tables
from studies.common.figures import draw_band, draw_shares, finish, line_style, lines_by, panels
from studies.common.intervals import bootstrap_mean
from studies.common.page import Report, figure, heading, paragraph, section
from studies.common.rows import numbers, split_by, where

LEAD = (
    "Variational inference of deep networks, and Markov chains on small ones, with and without the "
    "symmetry of neurons. "
    "A posterior over weights that ignores symmetry has a mode for every permutation; asymmetric "
    "networks have none of these."
)
SIGNAL = (
    "Compare scales of the initialization before crediting symmetry: PyTorch's start shrinks the "
    "variance of a standard ReLU "
    "network's signal in every layer, and fixed entries with a large standard deviation add to it. "
    "The scale 2.45 (square root "
    "of 6, He et al. 2015) keeps it in the standard network too."
)
UNITS = {
    "test_accuracy": "test accuracy (fraction)",
    "elbo": "ELBO after the start (nats per image)",
}
RHAT_CAPTION = (
    "Share of weights, aligned weights and predictions at test points whose R-hat is at most the "
    "value below."
)


def make_report(config: Bayesian, rows: pd.DataFrame, out: Path) -> Report:
    """The page of the study.

    Args:
        config: The study's config.
        rows: Its rows.
        out: Its directory.

    Returns:
        Its parts.
    """
    inferred = where(rows, part="variational")
    first, *others = make_tables(config, rows, out)
    parts = [heading("Bayesian networks", 1), paragraph(LEAD), *section(first), paragraph(SIGNAL)]
    for metric, unit in UNITS.items():
        caption = (
            f"{unit} against epochs, mean over {config.seeds} networks; bands: 95% bootstrap "
            f"interval over networks."
        )
        drawn = plot_records(inferred, metric, unit, config.num_bootstrap)
        parts.append(figure(drawn, caption))
    for table in others:
        drawn = plot_rhat(where(rows, part="chains"))
        parts += [*section(table), figure(drawn, RHAT_CAPTION)]
    kinds = inferred.groupby(["architecture", "asymmetry", "rank", "init_scale"])
    facts = {"networks in lock step": str(config.seeds), "cells": str(kinds.ngroups)}
    return Report("Bayesian networks", parts, facts)


def plot_records(rows: pd.DataFrame, metric: str, unit: str, num_bootstrap: int) -> Figure:
    """A metric against epochs, a panel for each architecture, scale of the initialization and rank.

    ELBOs after the start.

    Args:
        rows: Rows of the variational part.
        metric: Column.
        unit: Label of the axis.
        num_bootstrap: Resamples of an interval.

    Returns:
        The figure.
    """
    groups = split_by(rows, ["architecture", "init_scale", "rank"])
    drawn, axes = panels(len(groups), 4, margin=0.8, height=2.6)
    legend = {}
    for panel, ((name, init_scale, rank), inside) in zip(axes, groups, strict=True):
        for i, kind, here in lines_by(inside, "asymmetry", rows["asymmetry"].unique()):
            means = {
                epoch: bootstrap_mean(numbers(networks, metric), num_bootstrap, RESAMPLES)
                for epoch, networks in here.groupby("epoch")
                if metric != "elbo" or epoch != here["epoch"].min()
            }
            curves = np.array(list(means.values())).T
            legend[kind] = draw_band(panel, list(means), curves, alpha=0.13, **line_style(i))
        panel.set_title(f"{name}, init scale {init_scale:g}, rank {rank:g}")
    return finish(drawn, "epoch", unit, legend)


def plot_rhat(rows: pd.DataFrame) -> Figure:
    """Cumulative distributions of R-hat of weights, plain and aligned, and of functions.

    Args:
        rows: Rows of the chains.

    Returns:
        The figure.
    """
    drawn, axes = panels(len(SPACES), len(SPACES), margin=0, height=3.4)
    legend = {}
    for panel, (space, title) in zip(axes, SPACES.items(), strict=True):
        inside = where(rows, space=space)
        for i, kind, here in lines_by(inside, "asymmetry", rows["asymmetry"].unique()):
            legend[kind] = draw_shares(panel, numbers(here, "rhat"), i)
        panel.axvline(1.01, color="#aaa", lw=0.8)
        panel.set_title(title)
    return finish(drawn, "rank-normalized R-hat (grey line: 1.01)", "cumulative share", legend)
