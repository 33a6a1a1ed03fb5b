"""Tables, figures and the report of mode connectivity."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float64
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from studies.common.base import StudyConfig, one_table
from studies.common.figures import (
    WIDTH,
    draw_band,
    finish,
    line_style,
    lines_by,
    panels_by,
)
from studies.common.intervals import mean_interval
from studies.common.page import Report, figure, heading, paragraph, sections
from studies.common.rows import numbers, span_text, split_by
from studies.common.segments import above_chord, midpoint

GROUP = ["population", "way"]
METRICS = ("test_loss", "train_loss", "test_accuracy", "train_accuracy")
OF_PAIR = ("distance_before", "distance", "moved", "misordered_share")
BARRIERS = {
    "test loss barrier": "test_loss_barrier",
    "highest": "test_loss_highest",
    "train loss barrier": "train_loss_barrier",
    "test accuracy barrier": "test_accuracy_barrier",
}
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
    pairs = []
    for (population, way, pair), lines in split_by(_with_ways(rows), [*GROUP, "pair"]):
        segment = lines.sort_values("point")
        points = numbers(segment, "point")
        row = {"population": population, "way": way, "pair": pair}
        for metric in METRICS:
            worse = -1.0 if metric.endswith("accuracy") else 1.0
            above = above_chord(worse * numbers(segment, metric), points)
            row |= {f"{metric}_barrier": above[midpoint(points)], f"{metric}_highest": above.max()}
        ends = segment[["test_loss", "test_accuracy"]].iloc[[0, -1]].mean()
        row |= {"end_loss": ends["test_loss"], "end_accuracy": ends["test_accuracy"]}
        pairs.append(row | segment[list(OF_PAIR)].iloc[0].to_dict())
    return pd.DataFrame(pairs)


def _with_ways(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with their `way`: the alignment, and whether statistics were reset."""
    reset = np.where(rows["repaired"], ", statistics reset", "")
    return rows.assign(way=rows["alignment"] + reset)


def table_cells(rows: pd.DataFrame) -> pd.DataFrame:
    """The table of barriers as text.

    Args:
        rows: Rows of the study.

    Returns:
        One line for each population and way.
    """
    lines = []
    for (population, way), pairs in split_by(pair_barriers(rows), GROUP):
        means = pd.Series(pairs.drop(columns=GROUP).mean())
        line = {"population": population, "alignment": way, "n": str(len(pairs))}
        line |= {"ends: loss": f"{means['end_loss']:.3f}"}
        line |= {"accuracy": f"{means['end_accuracy']:.3f}"}
        for title, column in BARRIERS.items():
            line[title] = str(mean_interval(numbers(pairs, column)))
        line |= {"distance": f"{means['distance_before']:.4f} > {means['distance']:.4f}"}
        line |= {"moved": f"{means['moved']:.2f}", "misordered": f"{means['misordered_share']:.2f}"}
        lines.append(line)
    return pd.DataFrame(lines)


make_tables = one_table("Barriers", table_cells, EXPLAIN)


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
    parts += sections(make_tables(config, rows, out))
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
    groups = split_by(pairs, GROUP)
    ways = pairs["way"].unique().tolist()
    drawn = Figure(figsize=(WIDTH, 0.8 + 0.3 * len(groups)), layout="constrained")
    panel = drawn.subplots()
    for i, ((_, way), here) in enumerate(groups):
        _plot_pairs(panel, i, numbers(here, "test_loss_barrier"), line_style(ways.index(way)))
    panel.axvline(0, color="#444", lw=0.8)
    panel.set_yticks(range(len(groups)), [", ".join(names) for names, _ in groups])
    panel.invert_yaxis()
    panel.set_xlabel("barrier at the middle of the segment, test loss (nats)")
    return drawn


def _plot_pairs(
    panel: Axes, place: int, values: Float64[np.ndarray, " n"], style: Mapping[str, Any]
) -> None:
    """A mark for each pair, and their mean with its interval."""
    color = style["color"]
    mean, low, high, _ = mean_interval(values)
    places = np.full(len(values), place)
    panel.plot(values, places, ls="", marker="|", ms=7, color=color, alpha=0.45)
    panel.plot([low, high], [place, place], color=color, lw=1.6)
    panel.plot([mean], [place], marker=style["marker"], ms=6, color=color)


def plot_segments(rows: pd.DataFrame, metric: str) -> Figure:
    """A metric along the segment, one panel a population, one line an alignment.

    Args:
        rows: Rows of the study.
        metric: Name of the metric.

    Returns:
        The figure.
    """
    named = _with_ways(rows)
    drawn, places = panels_by(named, "population", 4, margin=0.6, height=2.3)
    legend = {}
    for panel, _, inside in places:
        for i, way, here in lines_by(inside, "way", named["way"].unique()):
            curves = here.pivot(index="pair", columns="point", values=metric)
            legend[way] = _plot_mean(panel, curves, i)
    return finish(drawn, "place t on the segment (1 - t) a + t b", WORDS[metric], legend, ncols=6)


def _plot_mean(panel: Axes, curves: pd.DataFrame, number: int) -> object:
    """Mean over pairs, with the interval of the difference to the chord, not of the ends."""
    points, values = curves.columns.to_numpy(np.float64), curves.to_numpy(np.float64)
    spread = [mean_interval(column) for column in above_chord(values, points).T]
    mean, half = values.mean(0), np.array([interval.high - interval.mean for interval in spread])
    ends = (mean, mean - half, mean + half)
    return draw_band(panel, points, ends, alpha=0.18, markevery=4, **line_style(number))


def _span(pairs: pd.DataFrame) -> str:
    return span_text(pairs.groupby(GROUP).size())
