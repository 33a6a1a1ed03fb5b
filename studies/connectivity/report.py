"""Tables, figures and the report of mode connectivity."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from studies.common.base import StudyConfig
from studies.common.figures import COLORS, MARKERS, WIDTH, draw_band, finish, line_style, panels
from studies.common.intervals import mean_interval, split_by
from studies.common.page import Report, Table, figure, heading, paragraph, section
from studies.common.segments import above_chord, midpoint

GROUP = ["population", "way"]
METRICS = ("test_loss", "train_loss", "test_accuracy", "train_accuracy")
WORDS = {
    "test_loss": "test loss (nats)",
    "train_loss": "training loss (nats)",
    "test_accuracy": "test accuracy (fraction)",
    "train_accuracy": "training accuracy (fraction)",
}
EXPLAIN = (
    "Barrier: the value at the middle of the segment less the mean of both ends (for accuracy: the "
    "mean of both ends less the "
    "middle), so that 0 is no barrier; highest: the largest such difference over the segment. Mean "
    "over pairs with Student's "
    "95% interval; n is the number of pairs, no network in two of them. Distance: root mean square "
    "over trained parameters, "
    "before and after alignment. Moved: share of the permutable neurons that the alignment put "
    "elsewhere; misordered: share "
    "that weight matching would move if all neurons of the standard architecture could be permuted."
)


def pair_barriers(rows: pd.DataFrame) -> pd.DataFrame:
    """Barriers of every pair.

    Args:
        rows: Rows of the study.

    Returns:
        One row for each population, way (alignment, and whether statistics were reset) and pair, in
        the order of the rows: `<metric>_barrier` in the middle and `<metric>_highest` for every
        metric, positive if the segment is worse than its ends, and what the rows say about the
        pair.
    """
    found = []
    for (population, way, pair), lines in split_by(_with_ways(rows), [*GROUP, "pair"]):
        segment = lines.sort_values("point")
        points = segment["point"].to_numpy(np.float64)
        row = {"population": population, "way": way, "pair": pair}
        for metric in METRICS:
            worse = -1.0 if metric.endswith("accuracy") else 1.0
            above = above_chord(worse * segment[metric].to_numpy(np.float64), points)
            row |= {f"{metric}_barrier": above[midpoint(points)], f"{metric}_highest": above.max()}
        ends = segment[["test_loss", "test_accuracy"]].iloc[[0, -1]].mean()
        row |= {"end_loss": ends["test_loss"], "end_accuracy": ends["test_accuracy"]}
        found.append(
            row
            | {
                name: segment[name].iloc[0]
                for name in ("distance_before", "distance", "moved", "misordered_share")
            }
        )
    return pd.DataFrame(found)


def _with_ways(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with their `way`: the alignment, and whether statistics were reset."""
    reset = np.where(rows["repaired"], ", statistics reset", "")
    return rows.assign(way=rows["alignment"] + reset)


def table_cells(pairs: pd.DataFrame) -> pd.DataFrame:
    """The table of barriers as text.

    Args:
        pairs: What `pair_barriers` returns.

    Returns:
        One line for each population and way.
    """
    lines = []
    for (population, way), own in split_by(pairs, GROUP):
        lines.append(
            {
                "population": population,
                "alignment": way,
                "n": str(len(own)),
                "ends: loss": f"{own['end_loss'].mean():.3f}",
                "accuracy": f"{own['end_accuracy'].mean():.3f}",
                "test loss barrier": str(mean_interval(own["test_loss_barrier"].to_numpy())),
                "highest": str(mean_interval(own["test_loss_highest"].to_numpy())),
                "train loss barrier": str(mean_interval(own["train_loss_barrier"].to_numpy())),
                "test accuracy barrier": str(
                    mean_interval(own["test_accuracy_barrier"].to_numpy())
                ),
                "distance": f"{own['distance_before'].mean():.4f} > {own['distance'].mean():.4f}",
                "moved": f"{own['moved'].mean():.2f}",
                "misordered": f"{own['misordered_share'].mean():.2f}",
            }
        )
    return pd.DataFrame(lines)


def make_tables(_config: StudyConfig, rows: pd.DataFrame, _out: Path) -> list[Table]:
    """The table of barriers.

    Args:
        _config: The study's config.
        rows: Its rows.
        _out: Its directory.

    Returns:
        One table.
    """
    return [Table("Barriers", table_cells(pair_barriers(rows)), EXPLAIN)]


def make_report(config: StudyConfig, rows: pd.DataFrame, out: Path) -> Report:
    """The page of the study.

    Args:
        config: The study's config.
        rows: Its rows.
        out: Its directory.

    Returns:
        Its parts.
    """
    pairs = pair_barriers(rows)
    lead = (
        f"The loss on the straight segment between two networks of a population that were trained "
        f"independently, from the zoo {config.zoo.name}. If two minima are the same up to a "
        f"permutation of neurons, alignment takes the barrier between them away; if a population "
        f"has no such symmetry, there should be none to begin with."
    )
    parts = [heading("Mode connectivity", 1), paragraph(lead)]
    parts += [part for table in make_tables(config, rows, out) for part in section(table)]
    caption = (
        "Barrier in test loss, one small mark a pair; large mark and bar: mean and Student's 95% "
        "interval over pairs."
    )
    parts += [figure(plot_barriers(pairs), caption), heading("Along the segment")]
    for metric in ("test_loss", "train_loss", "test_accuracy"):
        caption = (
            f"Mean {WORDS[metric]} along the segment, one panel a population, n = {_span(pairs)} "
            f"pairs; bands: Student's 95% interval over pairs of the difference to the chord, "
            f"around the mean."
        )
        parts.append(figure(plot_segments(rows, metric), caption))
    facts = {"pairs": f"{_span(pairs)} in each population", "points": str(rows["point"].nunique())}
    return Report(f"Mode connectivity: {config.zoo.name}", parts, facts)


def plot_barriers(pairs: pd.DataFrame) -> Figure:
    """Barriers in test loss by population and alignment.

    Args:
        pairs: What `pair_barriers` returns.

    Returns:
        The figure.
    """
    lines = split_by(pairs, GROUP)
    ways = pairs["way"].unique().tolist()
    drawn = Figure(figsize=(WIDTH, 0.8 + 0.3 * len(lines)), layout="constrained")
    panel = drawn.subplots()
    for i, ((_, way), own) in enumerate(lines):
        values, color, marker = (
            own["test_loss_barrier"].to_numpy(),
            COLORS[ways.index(way)],
            MARKERS[ways.index(way)],
        )
        mean, low, high, _ = mean_interval(values)
        panel.plot(
            values, np.full(len(values), i), ls="", marker="|", ms=7, color=color, alpha=0.45
        )
        panel.plot([low, high], [i, i], color=color, lw=1.6)
        panel.plot([mean], [i], marker=marker, ms=6, color=color)
    panel.axvline(0, color="#444", lw=0.8)
    panel.set_yticks(range(len(lines)), [f"{population}, {way}" for (population, way), _ in lines])
    panel.invert_yaxis()
    panel.set_xlabel("barrier at the middle of the segment, test loss (nats)")
    return drawn


def plot_segments(rows: pd.DataFrame, metric: str) -> Figure:
    """A metric along the segment, one panel a population, one line an alignment.

    Args:
        rows: Rows of the study.
        metric: Name of the metric.

    Returns:
        The figure.
    """
    named = _with_ways(rows)
    populations, ways = named["population"].unique(), named["way"].unique()
    drawn, axes = panels(len(populations), 4, margin=0.6, height=2.3)
    legend = {}
    for panel, population in zip(axes, populations, strict=True):
        here = named.loc[named["population"] == population]
        for i, way in enumerate(ways):
            curves = here.loc[here["way"] == way].pivot(
                index="pair", columns="point", values=metric
            )
            if len(curves):
                legend[way] = _plot_mean(panel, curves, i)
        panel.set_title(population)
    return finish(drawn, "place t on the segment (1 - t) a + t b", WORDS[metric], legend, ncols=6)


def _plot_mean(panel: Axes, curves: pd.DataFrame, number: int) -> object:
    """Mean over pairs, with the interval of the difference to the chord, not of the ends."""
    points, values = curves.columns.to_numpy(np.float64), curves.to_numpy(np.float64)
    spread = [mean_interval(column) for column in above_chord(values, points).T]
    mean, half = values.mean(0), np.array([interval.high - interval.mean for interval in spread])
    ends = (mean, mean - half, mean + half)
    return draw_band(panel, points, ends, alpha=0.18, markevery=4, **line_style(number))


def _span(pairs: pd.DataFrame) -> str:
    counts = [len(own) for _, own in split_by(pairs, GROUP)]
    return str(min(counts)) if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"
