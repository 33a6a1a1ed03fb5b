"""Tables, figures and the report of merging."""

from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from studies.common.base import StudyConfig, one_table
from studies.common.figures import draw_band, finish, line_style, lines_by, panels
from studies.common.intervals import mean_interval
from studies.common.page import Report, figure, heading, paragraph, sections
from studies.common.rows import numbers, split_by

GROUP = ["population", "train_parts", "size", "way"]
WORDS = {
    "test_loss": "test loss (nats)",
    "test_accuracy": "test accuracy (fraction)",
    "train_loss": "training loss (nats)",
}
EXPLAIN = (
    "Mean over groups of k networks with Student's 95% interval; n is the number of groups. A "
    "star: groups share networks, so "
    "the interval is too narrow. Single: the mean of the networks of a group, each alone. "
    "Ensemble: mean of their "
    "probabilities, k times as many parameters. Average: mean of their parameters, as they are; "
    "aligned: after weight matching "
    "to the first of them, or in turn to the mean of the others. Parts: into how many disjoint "
    "parts the training images were "
    "divided, each network learning from one."
)


def table_cells(rows: pd.DataFrame) -> pd.DataFrame:
    """The table of merged networks as text.

    Args:
        rows: Rows of the study.

    Returns:
        One line for each population, number of parts, size and way.
    """
    lines = []
    for (population, parts, size, way), groups in split_by(rows, GROUP):
        line = {"population": population, "parts": str(parts), "k": str(size), "way": way}
        line["n"] = f"{len(groups)}{'' if np.all(groups['disjoint']) else '*'}"
        for metric, title in WORDS.items():
            line[title] = str(mean_interval(numbers(groups, metric)))
        lines.append(line)
    return pd.DataFrame(lines)


make_tables = one_table("All numbers", table_cells, EXPLAIN)


def make_report(config: StudyConfig, rows: pd.DataFrame, out: Path) -> Report:
    """The page of the study.

    Args:
        config: The study's config.
        rows: Its rows.
        out: Its directory.

    Returns:
        Its parts.
    """
    lead = (
        f"One network from the parameters of k networks of the zoo {config.zoo.name}, by their "
        f"mean. The more networks, the farther from each of them the mean is, unless they lie in "
        f"one basin."
    )
    parts = [heading("Merging", 1), paragraph(lead)]
    for metric in ("test_loss", "test_accuracy"):
        caption = (
            f"{WORDS[metric].capitalize()} against the number k of networks merged; bands: 95% "
            f"interval over groups."
        )
        parts.append(figure(plot_sizes(rows, metric), caption))
    parts += sections(make_tables(config, rows, out))
    counts = rows.groupby(GROUP).size()
    facts = {"groups": f"{counts.min()} to {counts.max()} of each size"}
    return Report(f"Merging: {config.zoo.name}", parts, facts)


def plot_sizes(rows: pd.DataFrame, metric: str) -> Figure:
    """A metric against the number of merged networks; a panel a population, a line a way.

    Args:
        rows: Rows of the study.
        metric: Name of the metric.

    Returns:
        The figure.
    """
    populations = rows["population"].unique()
    places = list(product(rows["train_parts"].unique(), populations))
    drawn, axes = panels(len(places), len(populations), margin=0.6, height=2.4)
    panel_of = dict(zip(places, axes, strict=True))
    sizes = sorted(rows["size"].unique().tolist())
    legend = {}
    for (parts, population), inside in split_by(rows, ["train_parts", "population"]):
        panel = panel_of[parts, population]
        for i, way, here in lines_by(inside, "way", rows["way"].unique()):
            legend[way] = _plot_means(panel, here, metric, i)
        panel.set_xscale("log", base=2)
        panel.set_xticks(sizes, [str(size) for size in sizes])
        images = "all images" if parts == 1 else f"one of {parts} parts each"
        panel.set_title(f"{population}, {images}")
    return finish(drawn, "networks merged, k", WORDS[metric], legend)


def _plot_means(panel: Axes, rows: pd.DataFrame, metric: str, number: int) -> Line2D:
    """Means over groups by their size, with intervals."""
    means = {size: mean_interval(numbers(groups, metric)) for size, groups in rows.groupby("size")}
    curves = np.array(list(means.values())).T[:3]
    return draw_band(panel, list(means), curves, alpha=0.15, **line_style(number))
