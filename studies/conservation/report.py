"""The report of a study of conserved quantities."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure

from studies.common.intervals import mean_interval, split_by
from studies.common.page import details, figure, heading, paragraph, quiet, table, write_page
from studies.conservation.config import Conservation
from studies.conservation.tables import (
    EXPLAIN,
    EXPLAIN_BRIDGES,
    ROUNDING,
    bridge_cells,
    bridges_of,
    network_means,
    path_cells,
    paths_of,
)
from studies.learnability.plots import COLORS, LINES, MARKERS, STYLE, WIDTH, plain_ticks, words

LEAD = (
    "A symmetry of the loss makes gradients orthogonal to it, on every minibatch and whatever the optimizer does with them, "
    "and keeps a quantity constant under gradient flow. Here: how well gradients keep the laws of the standard architecture, "
    "in each population; what moves the quantities in real training; and whether those of the initialization foretell the "
    "network."
)
FLOOR = 1e-18
BALANCE = "balance"


def write_report(config: Conservation, rows: pd.DataFrame, out: Path) -> Path:
    """Write `report.html`.

    Args:
        config: The study's config.
        rows: Its rows.
        out: Its directory.

    Returns:
        The file.
    """
    found = paths_of(rows)
    with rc_context(STYLE):
        parts = [
            heading("Conserved quantities", 1),
            paragraph(LEAD),
            heading("Laws along training"),
            table(path_cells(rows)),
        ]
        caption = "Mean residual of each kind of law along training by the first way to train; below 1e-12 it is rounding."
        parts += [quiet(EXPLAIN), figure(plot_residuals(found), caption)]
        caption = (
            "Mean change of a balance in one step against the step size, mean over networks; bars: Student's 95% interval. "
            "Thin grey lines have slopes 1 and 2."
        )
        parts.append(figure(plot_steps(found), caption))
        if config.bridges:
            parts += [
                heading("What the initialization tells"),
                table(bridge_cells(rows)),
                quiet(EXPLAIN_BRIDGES),
            ]
            caption = "Kendall's tau on the test networks; bars: 95% bootstrap interval."
            parts.append(figure(plot_bridges(bridges_of(rows)), caption))
    facts = {
        "networks of a run": str(config.networks),
        "steps of the longest run": str(config.steps),
    }
    return write_page(
        out, "Conserved quantities", [*parts, details("conservation", out, facts, config.to_yaml())]
    )


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
    drawn = Figure(figsize=(WIDTH, 3.4), layout="constrained")
    panels = drawn.subplots(1, len(kinds), sharex=True, sharey=True, squeeze=False)[0]
    legend = {}
    for panel, kind in zip(panels, kinds, strict=True):
        for i, (name, own) in enumerate(
            first.loc[first["kind"] == kind].groupby("population", sort=False)
        ):
            curve = own.groupby("step")["residual"].mean().clip(lower=FLOOR)
            style = {"color": COLORS[i], "ls": LINES[i], "marker": MARKERS[i], "ms": 4, "lw": 1.3}
            (legend[name],) = panel.plot(curve.index, curve.to_numpy(), **style)
        panel.set_title(str(kind))
        panel.axhline(ROUNDING, color="#aaa", lw=0.8)
    panels[0].set_yscale("log")
    plain_ticks(panels[0].yaxis)
    drawn.supxlabel("step", fontsize=9)
    drawn.supylabel("mean residual", fontsize=9)
    drawn.legend(legend.values(), legend.keys(), loc="outside upper left", ncols=5, handlelength=4)
    return drawn


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
    drawn = Figure(figsize=(WIDTH, 3.4), layout="constrained")
    panels = drawn.subplots(1, len(descents), sharey=True, squeeze=False)[0]
    legend = {}
    for panel, descent in zip(panels, descents, strict=True):
        here = last.loc[last["descent"] == descent]
        lrs = np.sort(here["lr"].unique())
        for i, (name, own) in enumerate(here.groupby("population", sort=False)):
            curve = []
            for (lr,), runs in split_by(own, ["lr"]):
                change = mean_interval(network_means(runs, runs["step_drift"].to_numpy(np.float64)))
                curve.append((lr, change.mean, change.mean - change.low, change.high - change.mean))
            lr, mean, below, above = np.nan_to_num(np.array(sorted(curve))).T
            bars = np.stack([np.minimum(below, 0.99 * mean), above])
            style = {
                "color": COLORS[i],
                "ls": LINES[i],
                "marker": MARKERS[i],
                "ms": 4,
                "lw": 1.3,
                "capsize": 2,
            }
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
    panels[0].set_yscale("log")
    plain_ticks(panels[0].yaxis)
    drawn.supxlabel("step size", fontsize=9)
    drawn.supylabel("mean change of a balance in one step", fontsize=9)
    drawn.legend(legend.values(), legend.keys(), loc="outside upper left", ncols=5, handlelength=4)
    return drawn


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
    drawn = Figure(figsize=(WIDTH, 0.9 + 0.3 * len(names) * len(bridges) / 2), layout="constrained")
    panels = drawn.subplots(1, len(targets), sharey=True, sharex=True, squeeze=False)[0]
    legend = {}
    for panel, target in zip(panels, targets, strict=True):
        for i, bridge in enumerate(bridges):
            own = (
                rows.loc[(rows["target"] == target) & (rows["bridge"] == bridge)]
                .set_index("population")
                .loc[names]
            )
            tau = own["kendall_tau"].to_numpy(np.float64)
            ends = np.stack([tau - own["kendall_tau_low"], own["kendall_tau_high"] - tau]).clip(0)
            place = np.arange(len(names)) + 0.16 * (i - (len(bridges) - 1) / 2)
            style = {"color": COLORS[i], "marker": MARKERS[i], "ls": "none", "ms": 5, "capsize": 2}
            legend[bridge] = panel.errorbar(tau, place, xerr=ends, **style)
        panel.set_title(f"predicting {words(str(target))}")
        panel.set_yticks(np.arange(len(names)), names)
        panel.axvline(0, color="#aaa", lw=0.8)
    panels[0].invert_yaxis()
    drawn.supxlabel("Kendall's tau", fontsize=9)
    drawn.legend(legend.values(), legend.keys(), loc="outside upper left", ncols=5)
    return drawn
