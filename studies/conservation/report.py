"""The report of a study of conserved quantities."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from studies.common.figures import finish, line_style, panels, plain_ticks, words
from studies.common.intervals import mean_interval, split_by
from studies.common.page import Report, figure, heading, paragraph, section
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
    laws, *told = make_tables(config, rows, out)
    parts = [
        heading("Conserved quantities", 1),
        paragraph(LEAD),
        *section(laws),
        figure(plot_residuals(paths), RESIDUALS_CAPTION),
        figure(plot_steps(paths), STEPS_CAPTION),
    ]
    for table in told:
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
    first = rows.loc[rows["descent"] == rows["descent"].iloc[0]]
    first = first.loc[first["lr"] == first["lr"].min()]
    kinds = first["kind"].unique()
    drawn, axes = panels(len(kinds), len(kinds), margin=0, height=3.4)
    legend = {}
    for panel, kind in zip(axes, kinds, strict=True):
        for i, (name, own) in enumerate(
            first.loc[first["kind"] == kind].groupby("population", sort=False)
        ):
            curve = own.groupby("step")["residual"].mean().clip(lower=FLOOR)
            (legend[name],) = panel.plot(curve.index, curve.to_numpy(), **line_style(i))
        panel.set_title(str(kind))
        panel.axhline(ROUNDING, color="#aaa", lw=0.8)
    axes[0].set_yscale("log")
    plain_ticks(axes[0].yaxis)
    return finish(drawn, "step", "mean residual", legend)


def plot_steps(rows: pd.DataFrame) -> Figure:
    """Change of balances in a step against the step size, a panel for each way to train.

    Args:
        rows: Rows of the runs.

    Returns:
        The figure.
    """
    last = rows.loc[rows["step"] == rows.groupby(["descent", "lr"])["step"].transform("max")]
    last = last.loc[last["kind"] == BALANCE]
    descents = last["descent"].unique()
    drawn, axes = panels(len(descents), len(descents), margin=0, height=3.4, sharex=False)
    legend = {}
    for panel, descent in zip(axes, descents, strict=True):
        here = last.loc[last["descent"] == descent]
        lrs = np.sort(here["lr"].unique())
        for i, (name, own) in enumerate(here.groupby("population", sort=False)):
            curve = []
            for (lr,), runs in split_by(own, ["lr"]):
                change = mean_interval(network_means(runs, runs["step_drift"].to_numpy(np.float64)))
                curve.append((lr, change.mean, change.mean - change.low, change.high - change.mean))
            lr, mean, below, above = np.nan_to_num(np.array(sorted(curve))).T
            bars = np.stack([np.minimum(below, 0.99 * mean), above])
            style = line_style(i, capsize=2)
            legend[name] = panel.errorbar(lr, np.maximum(mean, FLOOR), yerr=bars, **style)
            if i == 0:
                for slope in (1, 2):
                    panel.plot(
                        lr, mean[-1] * (lr / lr[-1]) ** slope, color="#aaa", lw=0.8, zorder=0
                    )
        panel.set_title(str(descent))
        panel.set_xscale("log")
        panel.set_xticks(lrs, [f"{rate:g}" for rate in lrs])
        panel.xaxis.set_tick_params(which="minor", bottom=False, labelbottom=False)
    axes[0].set_yscale("log")
    plain_ticks(axes[0].yaxis)
    return finish(drawn, "step size", "mean change of a balance in one step", legend)


def plot_bridges(rows: pd.DataFrame) -> Figure:
    """Kendall's tau of each bridge, a panel for each target.

    Args:
        rows: Rows of the predictions.

    Returns:
        The figure.
    """
    targets, bridges, names = (
        rows[column].unique() for column in ("target", "bridge", "population")
    )
    height = 0.3 * len(names) * len(bridges) / 2
    drawn, axes = panels(len(targets), len(targets), margin=0.9, height=height)
    legend = {}
    for panel, target in zip(axes, targets, strict=True):
        for i, bridge in enumerate(bridges):
            own = (
                rows.loc[(rows["target"] == target) & (rows["bridge"] == bridge)]
                .set_index("population")
                .loc[names]
            )
            tau = own["kendall_tau"].to_numpy(np.float64)
            ends = np.stack([tau - own["kendall_tau_low"], own["kendall_tau_high"] - tau]).clip(0)
            place = np.arange(len(names)) + 0.16 * (i - (len(bridges) - 1) / 2)
            style = line_style(i, ls="none", ms=5, capsize=2, lw=1.5)
            legend[bridge] = panel.errorbar(tau, place, xerr=ends, **style)
        panel.set_title(f"predicting {words(str(target))}")
        panel.set_yticks(np.arange(len(names)), names)
        panel.axvline(0, color="#aaa", lw=0.8)
    axes[0].invert_yaxis()
    return finish(drawn, "Kendall's tau", legend=legend, handlelength=2)
