"""What the figures of all studies share.

Panels, legends, a style that is readable without color.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullFormatter

from studies.common.rows import split_by

WIDTH = 10.5  # inches, a laptop's text width
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
# dark to light, so that the order survives in grey; marker and line style tell lines apart without
# any color
COLORS = ("#1b1b1b", "#0b5fa5", "#c8501e", "#1f8a5b", "#8a5bb0", "#b08900", "#5c8fb5", "#b56a8c")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
LINES = (
    "-",
    (0, (5, 1.5)),
    "-.",
    (0, (1, 1.2)),
    (0, (6, 1, 1, 1, 1, 1)),
    (0, (3, 3)),
    (0, (8, 2)),
    (0, (1, 3)),
)


def panels(
    count: int, columns: int, *, margin: int | float, height: int | float, sharex: bool = True
) -> tuple[Figure, list[Axes]]:
    """A figure of panels in lines, from left to right, with one y-axis for all.

    Args:
        count: Number of panels.
        columns: Most panels in a line.
        margin: Height of what is around the panels, in inches.
        height: Height of a line of panels, in inches.
        sharex: Whether they have one x-axis too.

    Returns:
        The figure and its panels.
    """
    columns = min(count, columns)
    lines = -(-count // columns)
    drawn = Figure(figsize=(WIDTH, margin + height * lines), layout="constrained")
    grid = drawn.subplots(lines, columns, sharex=sharex, sharey=True, squeeze=False)
    every = grid.ravel().tolist()
    for panel in every[count:]:
        panel.set_visible(False)
    return drawn, every[:count]


def panels_by(
    rows: pd.DataFrame, column: str, columns: int | None = None, **layout: Any
) -> tuple[Figure, list[tuple[Axes, Any, pd.DataFrame]]]:
    """A panel for each value of a column, titled by it.

    Args:
        rows: Rows to draw.
        column: Name of the column.
        columns: Most panels in a line; None for one line.
        **layout: Of `panels`.

    Returns:
        The figure, and each panel with the value and its rows.
    """
    groups = split_by(rows, column)
    drawn, axes = panels(len(groups), columns or len(groups), **layout)
    for panel, (value, _) in zip(axes, groups, strict=True):
        panel.set_title(str(value))
    return drawn, [(panel, *group) for panel, group in zip(axes, groups, strict=True)]


def lines_by(
    rows: pd.DataFrame, column: str, values: Iterable[Any]
) -> Iterator[tuple[int, Any, pd.DataFrame]]:
    """The lines of a panel, numbered alike in all panels.

    Args:
        rows: Rows of the panel.
        column: Column that tells lines apart.
        values: Its values in all panels.

    Yields:
        Number, value and rows of each line that the panel has.
    """
    for number, value in enumerate(values):
        here = rows.loc[rows[column] == value]
        if len(here):
            yield number, value, here


def finish(
    drawn: Figure,
    xlabel: str = "",
    ylabel: str = "",
    legend: Mapping[Any, Any] | None = None,
    **layout: int | float,
) -> Figure:
    """Give a figure one title for its x-axes, one for its y-axes, and a legend above the panels.

    Args:
        drawn: The figure.
        xlabel: Title of the x-axes, none if empty.
        ylabel: Title of the y-axes, none if empty.
        legend: What the lines are called, and one line of each; no legend if None.
        **layout: `ncols`, 5 by default, and `handlelength`, 4 by default, of the legend.

    Returns:
        The same figure.
    """
    if xlabel:
        drawn.supxlabel(xlabel, fontsize=9)
    if ylabel:
        drawn.supylabel(ylabel, fontsize=9)
    if legend is not None:
        wanted: dict[str, Any] = {"ncols": 5, "handlelength": 4} | layout
        drawn.legend(legend.values(), legend.keys(), loc="outside upper left", **wanted)
    return drawn


def line_style(number: int, **changes: Any) -> dict[str, Any]:
    """Color, dashes and marker of a line by its number; they repeat when they are used up.

    Args:
        number: Number of the line.
        **changes: What is different, or more.

    Returns:
        Options of `plot`.
    """
    cycles = {"color": COLORS, "ls": LINES, "marker": MARKERS}
    chosen = {name: cycle[number % len(cycle)] for name, cycle in cycles.items()}
    return chosen | {"ms": 4, "lw": 1.3} | changes


def draw_band(
    panel: Axes, x: Any, curves: Iterable[Any], alpha: int | float, **style: Any
) -> Line2D:
    """Draw a line in a band.

    Args:
        panel: Where.
        x: Places.
        curves: Values of the line, of the lower and of the upper end of the band.
        alpha: How dense the band is.
        **style: Of the line.

    Returns:
        The line.
    """
    middle, low, high = curves
    panel.fill_between(x, low, high, color=style["color"], alpha=alpha, lw=0)
    (line,) = panel.plot(x, middle, **style)
    return line


def draw_shares(panel: Axes, values: Any, number: int, **style: Any) -> Line2D:
    """Draw the share of values that are at most what is on the axis.

    Args:
        panel: Where.
        values: The values.
        number: Number of the line.
        **style: Of the line.

    Returns:
        The line.
    """
    shares = np.arange(1, len(values) + 1) / len(values)
    style |= {name: line_style(number)[name] for name in ("color", "ls")}
    (line,) = panel.step(np.sort(values), shares, where="post", lw=1.4, **style)
    return line


def bar_lengths(value: Any, low: Any, high: Any) -> Any:
    """Lengths of error bars below and above values."""
    return np.stack([value - low, high - value]).clip(0)


def words(name: str) -> str:
    """A column's name for people."""
    return name.replace("_", " ")


def plain_ticks(axis: Axis) -> None:
    """Label the decades of a logarithmic axis as plain numbers, and nothing between them.

    Figures do not parse mathematics, which matplotlib's labels are.

    Args:
        axis: The axis, whose scale is set already.
    """
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())
