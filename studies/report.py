"""The report of a learnability study: one HTML file with its figures inside, readable without a network, scripts or color."""

import base64
import html
import io
import os
import platform
import shlex
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from studies.cells import load_predictions, read_labels
from studies.learnability import FLOOR, Learnability, choose_populations
from studies.summary import average_seeds, explain, largest, notes, table_cells, title
from zoo.population import load
from zoo.store import write_text

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
# dark to light, so that the order survives in grey; marker and line style tell lines apart without any color
COLORS = ("#1b1b1b", "#0b5fa5", "#c8501e", "#1f8a5b", "#8a5bb0", "#b08900", "#5c8fb5", "#b56a8c")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
LINES = ("-", (0, (5, 1.5)), "-.", (0, (1, 1.2)), (0, (6, 1, 1, 1, 1, 1)), (0, (3, 3)), (0, (8, 2)), (0, (1, 3)))

MATCHED_WHY = (
    "Label-matched: in each bin of the target every population keeps as many test networks, drawn at random, as the population "
    "with the fewest has there, so that “easier to predict” cannot mean “different labels”."
)

CSS = """
body { margin: 2.2rem auto; max-width: 66rem; padding: 0 1.5rem; color: #222; background: #fff;
       font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
h1 { font-size: 1.55rem; margin: 0 0 .3rem; } h2 { font-size: 1.15rem; margin: 2.4rem 0 .5rem; }
p { max-width: 48rem; margin: .4rem 0; } .quiet, figcaption { color: #555; font-size: .88rem; max-width: 52rem; }
figure { margin: 1rem 0 1.6rem; } figure img { width: 100%; height: auto; }
table { border-collapse: collapse; font-size: .88rem; margin: .8rem 0; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .22rem 1.1rem .22rem 0; white-space: nowrap; } thead th { border-bottom: 1.5px solid #444; }
td.long { white-space: normal; }
tr.first td { border-top: 1px solid #ccc; } tbody tr:first-child td { border-top: 0; }
pre { background: #f6f6f6; padding: .8rem 1rem; overflow-x: auto; font-size: .82rem; line-height: 1.4; }
"""


def write_report(config: Learnability, rows: pd.DataFrame, out: Path) -> Path:
    """Write `report.html`.

    Args:
        config: The study's config.
        rows: Its rows.
        out: Its directory, with the cells in it.

    Returns:
        The file.
    """
    with rc_context(STYLE):
        sections = [_section(config, rows.loc[rows["target"] == target], target, out) for target in config.targets]
    populations, metanets = rows["population"].nunique(), rows["metanet"].nunique()
    lead = (
        f"How well {metanets} metanets predict a network's {', '.join(map(_words, config.targets))} from its weights, in "
        f"{populations} populations of the zoo {config.zoo.name}. The metanet {FLOOR} is the floor: it sees no weights, only "
        f"the hyperparameters that a network was trained with."
    )
    body = f"<h1>Learnability</h1><p>{_escape(lead)}</p>{''.join(sections)}{_details(config, rows, out)}"
    page = (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Learnability: {_escape(config.zoo.name)}</title><style>{CSS}</style></head><body>{body}</body></html>\n"
    )
    path = out / "report.html"
    write_text(path, page)
    return path


def _section(config: Learnability, rows: pd.DataFrame, target: str, out: Path) -> str:
    averages = average_seeds(rows)
    best = largest(averages)
    labels = {
        name: np.concatenate([read_labels(population, split, target).y.numpy() for split in population.splits])
        for name, population in choose_populations(config, load(config.zoo)).items()
    }
    parts = [f"<h2>Predicting {_escape(_words(target))}</h2>", _table(best, ("r2", "kendall_tau", "spearman", "mae"))]
    parts += [f'<p class="quiet">{_escape(text)}</p>' for text in (" ".join(explain(best)), *notes(rows))]
    parts.append("<h2>Learning curves</h2>")
    for metric in ("r2", "kendall_tau"):
        caption = (
            f"{title(metric)} against the number of training networks: mean over seeds; bands: 95% bootstrap interval over "
            f"test networks, mean over seeds. Scores below {LOWEST} are cut off."
        )
        parts.append(_figure(plot_curves(averages, metric), caption))
    caption = (
        f"Predicted against true {_words(target)} of the test networks, seed {rows['seed'].iloc[0]}; on the dashed line the "
        f"prediction is exact."
    )
    scatter = plot_predictions(rows, main_metanets(best), target, out)
    parts += ["<h2>Predicted against true</h2>", _figure(scatter, caption)]
    caption = f"{_words(target).capitalize()} of all networks with a finite value, by population; dashed: the median."
    parts += ["<h2>What there is to predict</h2>", _figure(plot_labels(labels, target), caption)]
    matched = _table(best, ("matched_r2", "matched_kendall_tau", "matched_spearman", "matched_mae"))
    return "".join([*parts, "<h2>The same on label-matched test networks</h2>", f"<p>{_escape(MATCHED_WHY)}</p>", matched])


def main_metanets(best: pd.DataFrame) -> list[str]:
    """The metanets whose predictions are shown: the flat `mlp`, if there, and the best one but the floor, by mean R^2."""
    means = pd.Series(best.groupby("metanet", sort=False)["r2"].mean()).to_dict()
    ranked = sorted((name for name in means if name != FLOOR or len(means) == 1), key=lambda name: -means[name])
    return list(dict.fromkeys([*(["mlp"] if "mlp" in ranked else []), ranked[0]]))


def plot_curves(averages: pd.DataFrame, metric: str) -> Figure:
    """Learning curves: a metric against the number of training networks.

    Args:
        averages: What `average_seeds` returns, of one target.
        metric: Name of the metric.

    Returns:
        A figure with one panel a metanet and one line a population.
    """
    metanets, populations = averages["metanet"].unique(), averages["population"].unique()
    columns = len(metanets) if len(metanets) <= 4 else 3
    lines = -(-len(metanets) // columns)
    figure = Figure(figsize=(WIDTH, 0.6 + 2.6 * lines), layout="constrained")
    panels = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).ravel().tolist()
    for panel, metanet in zip(panels, metanets, strict=False):
        for i, population in enumerate(populations):
            here = averages.loc[(averages["metanet"] == metanet) & (averages["population"] == population)]
            here = here.sort_values("num_train")
            color, marker, line = (cycle[i % len(cycle)] for cycle in (COLORS, MARKERS, LINES))
            panel.fill_between(here["num_train"], here[f"{metric}_low"], here[f"{metric}_high"], color=color, alpha=0.1, lw=0)
            panel.plot(here["num_train"], here[metric], color=color, marker=marker, ls=line, ms=4, lw=1.3, label=population)
        panel.set_title(f"{metanet} (floor)" if metanet == FLOOR else metanet)
    _dress_curves(panels, len(metanets), columns, averages, metric)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper left", ncols=5, handlelength=4)
    return figure


def _dress_curves(panels: Sequence[Axes], used: int, columns: int, averages: pd.DataFrame, metric: str) -> None:
    sizes = sorted(averages["num_train"].unique())
    low, high = (np.nan_to_num(averages[f"{metric}_{end}"].to_numpy(np.float64)) for end in ("low", "high"))
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
        rows: Rows of one target.
        metanets: Metanets to show, one line of panels each.
        target: Name of the target.
        out: Directory of the study.

    Returns:
        A figure with one panel for each metanet and population.
    """
    populations = rows["population"].unique()
    figure = Figure(figsize=(WIDTH, 0.5 + WIDTH / max(len(populations), 4) * len(metanets)), layout="constrained")
    panels = figure.subplots(len(metanets), len(populations), sharex=True, sharey=True, squeeze=False)
    first = rows.loc[rows["seed"] == rows["seed"].iloc[0]].sort_values("num_train", kind="stable")
    truths = []
    for line, metanet in zip(panels, metanets, strict=True):
        for panel, population in zip(line, populations, strict=True):
            row = first.loc[(first["metanet"] == metanet) & (first["population"] == population)].iloc[-1]
            found = load_predictions(out / "cells" / f"{row['cell']}.npz")
            panel.scatter(found.truth, found.prediction, s=7, color="#0b5fa5", alpha=0.45, lw=0, rasterized=True)
            panel.set_title(f"{population}\n{metanet}: {title('r2')} {row['r2']:.2f}, \u03c4 {row['kendall_tau']:.2f}")
            panel.title.set_fontsize(8)
            truths.append(found.truth)
    low, high = np.concatenate(truths).min(), np.concatenate(truths).max()
    margin = 0.05 * (high - low) or 1.0
    for panel in panels.ravel():
        panel.plot([low, high], [low, high], color="#444", lw=0.8, ls="--")
        panel.set(xlim=(low - margin, high + margin), ylim=(low - margin, high + margin), aspect="equal")
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
    panels = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).ravel().tolist()
    bins = np.histogram_bin_edges(np.concatenate(list(labels.values())), bins=40)
    for panel, (name, values) in zip(panels, labels.items(), strict=False):
        panel.hist(values, bins=bins, color="#9dbad5", ec="#44617c", lw=0.3, weights=np.full(values.size, 1 / values.size))
        panel.axvline(float(np.median(values)), color="#1b1b1b", lw=1.2, ls="--")
        panel.set_title(f"{name}\n{values.size} networks, median {np.median(values):.3g}", fontsize=8)
    for panel in panels[len(labels) :]:
        panel.set_visible(False)
    figure.supxlabel(_unit(target), fontsize=9)
    figure.supylabel("share of networks", fontsize=9)
    return figure


def _figure(figure: Figure, caption: str) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", dpi=150, metadata={"Date": None})
    data = base64.b64encode(buffer.getvalue()).decode()
    text = _escape(caption)
    return f'<figure><img alt="{text}" src="data:image/svg+xml;base64,{data}"><figcaption>{text}</figcaption></figure>'


def _table(best: pd.DataFrame, metrics: Sequence[str]) -> str:
    cells = table_cells(best, metrics)
    head = "".join(f"<th>{_escape(name)}</th>" for name in cells.columns)
    lines, before = [], None
    for values in cells.to_numpy().tolist():
        start = '<tr class="first">' if values[0] != before else "<tr>"
        lines.append(start + "".join(f"<td>{_escape(value)}</td>" for value in values) + "</tr>")
        before = values[0]
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"


def _details(config: Learnability, rows: pd.DataFrame, out: Path) -> str:
    packages = ("symzoo", "torch", "scikit-learn", "numpy", "pandas")
    seconds = pd.Series(rows.groupby("metanet", sort=False)["seconds"].sum()).to_dict()
    facts = {
        "command": shlex.join(["symzoo", "study", "learnability", "--config", str(out / "config.yaml"), "--out", str(out)]),
        "cells": f"{len(rows)}, seeds {', '.join(map(str, config.seeds))}",
        "seconds of one core": ", ".join(f"{name} {value:.0f}" for name, value in seconds.items()),
        "versions": ", ".join([f"Python {platform.python_version()}", *(f"{name} {_version(name)}" for name in packages)]),
        "hardware": f"{_processor()}, {os.cpu_count()} cores, {platform.system()} (where this page was written)",
    }
    lines = "".join(f'<tr><td>{name}</td><td class="long">{_escape(text)}</td></tr>' for name, text in facts.items())
    return f"<h2>How it was made</h2><table><tbody>{lines}</tbody></table><pre>{_escape(config.to_yaml())}</pre>"


def _version(package: str) -> str:
    try:
        return version(package)
    except ImportError:
        return "not installed"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    names = [line for line in info.read_text().splitlines() if line.startswith("model name")] if info.is_file() else []
    return names[0].partition(":")[2].strip() if names else platform.processor() or platform.machine()


def _words(name: str) -> str:
    return name.replace("_", " ")


def _unit(target: str) -> str:
    return UNITS.get(target, _words(target))


def _escape(text: str) -> str:
    return html.escape(text, quote=True)
