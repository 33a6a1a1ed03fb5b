"""Tables, figures and the report of mode connectivity."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from studies.common.base import StudyConfig
from studies.common.intervals import mean_interval, split_by
from studies.common.page import details, figure, heading, paragraph, quiet, table, write_page
from studies.common.segments import above_chord, midpoint
from studies.learnability.plots import COLORS, LINES, MARKERS, STYLE, WIDTH
from studies.learnability.summary import render

GROUP = ["population", "way"]
METRICS = ("test_loss", "train_loss", "test_accuracy", "train_accuracy")
WORDS = {
    "test_loss": "test loss (nats)",
    "train_loss": "training loss (nats)",
    "test_accuracy": "test accuracy (fraction)",
    "train_accuracy": "training accuracy (fraction)",
}
EXPLAIN = (
    "Barrier: the value at the middle of the segment less the mean of both ends (for accuracy: the mean of both ends less the "
    "middle), so that 0 is no barrier; highest: the largest such difference over the segment. Mean over pairs with Student's "
    "95% interval; n is the number of pairs, no network in two of them. Distance: root mean square over trained parameters, "
    "before and after alignment. Moved: share of the permutable neurons that the alignment put elsewhere; unprompted: share "
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
    named = rows.assign(
        way=[_way(*pair) for pair in zip(rows["alignment"], rows["repaired"], strict=True)]
    )
    for (population, way, pair), lines in split_by(named, [*GROUP, "pair"]):
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
                for name in ("distance_before", "distance", "moved", "unprompted")
            }
        )
    return pd.DataFrame(found)


def _way(alignment: str, repaired: bool) -> str:
    return f"{alignment}, statistics reset" if repaired else alignment


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
                "unprompted": f"{own['unprompted'].mean():.2f}",
            }
        )
    return pd.DataFrame(lines)


def format_study(_config: StudyConfig, rows: pd.DataFrame, _out: Path) -> str:
    """The table of a study for the terminal.

    Args:
        _config: The study's config.
        rows: Its rows.
        _out: Its directory.

    Returns:
        Lines of text.
    """
    return f"{render(table_cells(pair_barriers(rows)))}\n\n{EXPLAIN}"


def write_report(config: StudyConfig, rows: pd.DataFrame, out: Path) -> Path:
    """Write `report.html`.

    Args:
        config: The study's config.
        rows: Its rows.
        out: Its directory.

    Returns:
        The file.
    """
    pairs = pair_barriers(rows)
    lead = (
        f"The loss on the straight segment between two networks of a population that were trained independently, from the zoo "
        f"{config.zoo.name}. If two minima are the same up to a permutation of neurons, alignment takes the barrier between "
        f"them away; if a population has no such symmetry, there should be none to begin with."
    )
    parts = [
        heading("Mode connectivity", 1),
        paragraph(lead),
        heading("Barriers"),
        table(table_cells(pairs)),
        quiet(EXPLAIN),
    ]
    with rc_context(STYLE):
        caption = "Barrier in test loss, one small mark a pair; large mark and bar: mean and Student's 95% interval over pairs."
        parts += [figure(plot_barriers(pairs), caption), heading("Along the segment")]
        for metric in ("test_loss", "train_loss", "test_accuracy"):
            caption = (
                f"Mean {WORDS[metric]} along the segment, one panel a population, n = {_span(pairs)} pairs; bands: Student's "
                f"95% interval over pairs of the difference to the chord, around the mean."
            )
            parts.append(figure(plot_segments(rows, metric), caption))
    facts = {"pairs": f"{_span(pairs)} in each population", "points": str(rows["point"].nunique())}
    parts.append(details("mode-connectivity", out, facts, config.to_yaml()))
    return write_page(out, f"Mode connectivity: {config.zoo.name}", parts)


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
    named = rows.assign(
        way=[_way(*pair) for pair in zip(rows["alignment"], rows["repaired"], strict=True)]
    )
    populations, ways = named["population"].unique(), named["way"].unique()
    columns = min(len(populations), 4)
    lines = -(-len(populations) // columns)
    drawn = Figure(figsize=(WIDTH, 0.6 + 2.3 * lines), layout="constrained")
    panels = (
        drawn.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).ravel().tolist()
    )
    legend = {}
    for panel, population in zip(panels, populations, strict=False):
        for i, way in enumerate(ways):
            own = named.loc[(named["population"] == population) & (named["way"] == way)]
            if len(own):
                legend[way] = _plot_mean(
                    panel, own.pivot(index="pair", columns="point", values=metric), i
                )
        panel.set_title(population)
    for panel in panels[len(populations) :]:
        panel.set_visible(False)
    drawn.legend(legend.values(), legend.keys(), loc="outside upper left", ncols=6, handlelength=4)
    drawn.supxlabel("place t on the segment (1 - t) a + t b", fontsize=9)
    drawn.supylabel(WORDS[metric], fontsize=9)
    return drawn


def _plot_mean(panel: Axes, curves: pd.DataFrame, i: int) -> object:
    """Mean over pairs, with the interval of what the segment adds to its chord: how good the ends are is not its concern."""
    points, values = curves.columns.to_numpy(np.float64), curves.to_numpy(np.float64)
    spread = [mean_interval(column) for column in above_chord(values, points).T]
    mean, half = values.mean(0), np.array([interval.high - interval.mean for interval in spread])
    panel.fill_between(points, mean - half, mean + half, color=COLORS[i], alpha=0.18, lw=0)
    (line,) = panel.plot(
        points, mean, color=COLORS[i], ls=LINES[i], marker=MARKERS[i], markevery=4, ms=4, lw=1.3
    )
    return line


def _span(pairs: pd.DataFrame) -> str:
    counts = [len(own) for _, own in split_by(pairs, GROUP)]
    return str(min(counts)) if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"
