"""Tables, figures and the report of merging."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from studies.common.base import StudyConfig
from studies.common.figures import WIDTH, draw_band, finish, line_style
from studies.common.intervals import mean_interval, split_by
from studies.common.page import Report, Table, figure, heading, paragraph, section

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
    for (population, parts, size, way), own in split_by(rows, GROUP):
        values = {metric: mean_interval(own[metric].to_numpy(np.float64)) for metric in WORDS}
        line = {"population": population, "parts": str(parts), "k": str(size), "way": way}
        line["n"] = f"{len(own)}{'' if np.all(own['disjoint'].to_numpy()) else '*'}"
        lines.append(line | {WORDS[metric]: str(value) for metric, value in values.items()})
    return pd.DataFrame(lines)


def make_tables(_config: StudyConfig, rows: pd.DataFrame, _out: Path) -> list[Table]:
    """The table of merged networks.

    Args:
        _config: The study's config.
        rows: Its rows.
        _out: Its directory.

    Returns:
        One table.
    """
    return [Table("All numbers", table_cells(rows), EXPLAIN)]


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
    parts += [part for table in make_tables(config, rows, out) for part in section(table)]
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
    ways = rows["way"].unique().tolist()
    columns, lines = len(rows["population"].unique()), len(rows["train_parts"].unique())
    order = rows[["train_parts", "population"]].drop_duplicates().to_numpy().tolist()
    drawn = Figure(figsize=(WIDTH, 0.6 + 2.4 * lines), layout="constrained")
    places = drawn.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
    row_of = {parts: i for i, parts in enumerate(rows["train_parts"].unique().tolist())}
    column_of = {population: i for i, population in enumerate(rows["population"].unique().tolist())}
    legend = {}
    for parts, population in order:
        panel = places[row_of[parts], column_of[population]]
        here = rows.loc[(rows["train_parts"] == parts) & (rows["population"] == population)]
        for way in here["way"].unique():
            i, own = ways.index(way), here.loc[here["way"] == way]
            curve = [
                (size, *mean_interval(v.to_numpy(np.float64)))
                for size, v in own.groupby("size")[metric]
            ]
            size, *ends, _ = np.array(curve).T
            legend[way] = draw_band(panel, size, ends, alpha=0.15, **line_style(i))
        panel.set_xscale("log", base=2)
        sizes = sorted(rows["size"].unique())
        panel.set_xticks(sizes, [str(size) for size in sizes])
        told = "all images" if parts == 1 else f"one of {parts} parts each"
        panel.set_title(f"{population}, {told}")
    return finish(drawn, "networks merged, k", WORDS[metric], legend)
