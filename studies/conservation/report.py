"""The report of a study of conserved quantities."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from studies.common.figures import (
    bar_lengths,
    finish,
    line_style,
    lines_by,
    panels_by,
    plain_ticks,
    words,
)
from studies.common.intervals import estimate_of, mean_interval
from studies.common.page import Report, figure, heading, paragraph, section
from studies.common.rows import numbers, split_by, where
from studies.conservation.config import Conservation
from studies.conservation.tables import ROUNDING, bridges_of, make_tables, network_means, paths_of

LEAD = (
    "A symmetry of the loss makes gradients orthogonal to it, on every minibatch and whatever the "
    "optimizer does with them, "
    "and keeps a quantity constant under gradient flow. Here: how well gradients keep the laws of "
    "the standard architecture, "
    "in each population; what moves the quantities in real training; and whether those of the "
    "initialization foretell the "
    "network."
)
RESIDUALS_CAPTION = (
    "Mean residual of each kind of law along training by the first way to train; below 1e-12 it is "
    "rounding."
)
STEPS_CAPTION = (
    "Mean change of a balance in one step against the step size, mean over networks; bars: "
    "Student's 95% interval. Thin grey lines have slopes 1 and 2."
)
FLOOR = 1e-18
BALANCE = "balance"


def make_report(config: Conservation, rows: pd.DataFrame, out: Path) -> Report:
    """The page of the study.

    Args:
        config: The study's config.
        rows: Its rows.
        out: Its directory.

    Returns:
        Its parts.
    """
    paths = paths_of(rows)
    laws, *predictions = make_tables(config, rows, out)
    parts = [
        heading("Conserved quantities", 1),
        paragraph(LEAD),
        *section(laws),
        figure(plot_residuals(paths), RESIDUALS_CAPTION),
        figure(plot_steps(paths), STEPS_CAPTION),
    ]
    for table in predictions:
        caption = "Kendall's tau on the test networks; bars: 95% bootstrap interval."
        parts += [*section(table), figure(plot_bridges(bridges_of(rows)), caption)]
    facts = {
        "networks of a run": str(config.networks),
        "steps of the longest run": str(config.steps),
    }
    return Report("Conserved quantities", parts, facts)


def plot_residuals(rows: pd.DataFrame) -> Figure:
    """Residuals along the runs of the first way to train, a panel for each kind of law.

    Args:
        rows: Rows of the runs.

    Returns:
        The figure.
    """
    first = where(rows, descent=rows["descent"].iloc[0])
    first = where(first, lr=first["lr"].min())
    drawn, places = panels_by(first, "kind", margin=0, height=3.4)
    legend = {}
    for panel, _, inside in places:
        for i, (name, here) in enumerate(split_by(inside, "population")):
            curve = pd.Series(here.groupby("step")["residual"].mean()).clip(lower=FLOOR)
            (legend[name],) = panel.plot(curve.index, curve.to_numpy(), **line_style(i))
        panel.axhline(ROUNDING, color="#aaa", lw=0.8)
    _log_scale(places[0][0])
    return finish(drawn, "step", "mean residual", legend)


def plot_steps(rows: pd.DataFrame) -> Figure:
    """Change of balances in a step against the step size, a panel for each way to train.

    Args:
        rows: Rows of the runs.

    Returns:
        The figure.
    """
    last = where(rows, step=rows.groupby(["descent", "lr"])["step"].transform("max"))
    balances = where(last, kind=BALANCE)
    drawn, places = panels_by(balances, "descent", margin=0, height=3.4, sharex=False)
    legend = {}
    for panel, _, inside in places:
        for i, (name, here) in enumerate(split_by(inside, "population")):
            legend[name] = _plot_changes(panel, here, i)
        lrs = sorted(inside["lr"].unique())
        panel.set_xscale("log")
        panel.set_xticks(lrs, [f"{rate:g}" for rate in lrs])
        panel.xaxis.set_tick_params(which="minor", bottom=False, labelbottom=False)
    _log_scale(places[0][0])
    return finish(drawn, "step size", "mean change of a balance in one step", legend)


def _plot_changes(panel: Axes, rows: pd.DataFrame, number: int) -> object:
    """Mean change in a step by step size; the first line has lines of slopes 1 and 2 beside it."""
    changes = {
        lr: mean_interval(network_means(runs, numbers(runs, "step_drift")))
        for lr, runs in rows.groupby("lr")
    }
    lr, curves = np.array(list(changes)), np.array(list(changes.values())).T[:3]
    mean = np.nan_to_num(curves[0])
    bars = np.nan_to_num(bar_lengths(*curves))
    bars[0] = np.minimum(bars[0], 0.99 * mean)
    style = line_style(number, capsize=2)
    for slope in (1, 2) if number == 0 else ():
        panel.plot(lr, mean[-1] * (lr / lr[-1]) ** slope, color="#aaa", lw=0.8, zorder=0)
    return panel.errorbar(lr, np.maximum(mean, FLOOR), yerr=bars, **style)


def _log_scale(panel: Axes) -> None:
    panel.set_yscale("log")
    plain_ticks(panel.yaxis)


def plot_bridges(rows: pd.DataFrame) -> Figure:
    """Kendall's tau of each bridge, a panel for each target.

    Args:
        rows: Rows of the predictions.

    Returns:
        The figure.
    """
    bridges, names = rows["bridge"].unique(), rows["population"].unique()
    height = 0.3 * len(names) * len(bridges) / 2
    drawn, places = panels_by(rows, "target", margin=0.9, height=height)
    legend = {}
    middles = np.arange(len(names))
    for panel, target, inside in places:
        for i, bridge, here in lines_by(inside, "bridge", bridges):
            scores = here.set_index("population").loc[names]
            beside = middles + 0.16 * (i - (len(bridges) - 1) / 2)
            legend[bridge] = _plot_scores(panel, scores, beside, i)
        panel.set_title(f"predicting {words(target)}")
        panel.set_yticks(middles, names)
        panel.axvline(0, color="#aaa", lw=0.8)
    places[0][0].invert_yaxis()
    return finish(drawn, "Kendall's tau", legend=legend, handlelength=2)


def _plot_scores(panel: Axes, scores: pd.DataFrame, places: Any, number: int) -> object:
    tau = estimate_of(scores, "kendall_tau")
    style = line_style(number, ls="none", ms=5, capsize=2, lw=1.5)
    return panel.errorbar(tau.value, places, xerr=bar_lengths(*tau), **style)
