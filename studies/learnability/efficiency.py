"""Sample efficiency: how many training networks a metanet needs to reach a given R^2."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from metanet.inputs.treatments import NONE
from studies.common.rows import numbers, split_by
from studies.learnability.summary import GROUP, shown_name


def networks_needed(
    sizes: Float[np.ndarray, "k"], curve: Float[np.ndarray, "k"], level: int | float
) -> float:
    """Where a learning curve first reaches a level, by linear interpolation in ``log n``.

    Args:
        sizes: Increasing numbers of training networks.
        curve: The score at each.
        level: The score to reach.

    Returns:
        Number of networks; 0 if the curve is there at its first size, infinity if it never is.
    """
    reached = np.flatnonzero(curve >= level)
    if not reached.size:
        return math.inf
    after = int(reached[0])
    if after == 0:
        return 0.0
    share = (level - curve[after - 1]) / (curve[after] - curve[after - 1])
    low, high = np.log(sizes[after - 1]), np.log(sizes[after])
    return float(np.exp(low + share * (high - low)))


def efficiency_lines(
    averages: pd.DataFrame, reach: Sequence[float], metric: str = "r2"
) -> pd.DataFrame:
    """Numbers of training networks that reach given scores, of every line with two or more.

    The interval is where the curves of the interval's ends reach the score (both means over seeds
    of the ends of the 95% bootstrap interval over test networks): the upper ends reach it first,
    which gives `low`, the lower ends last, which gives `high`.

    Args:
        averages: What `average_seeds` returns.
        reach: Scores to reach.
        metric: The score.

    Returns:
        One row for each line and score: `level`, `networks`, `low`, `high` as `networks_needed`
            gives them, and `smallest` and
        `largest`, the ends of the curve.
    """
    ends = {"networks": metric, "low": f"{metric}_high", "high": f"{metric}_low"}
    lines = []
    for names, group in split_by(averages, GROUP):
        curve = group.sort_values("num_train")
        sizes = numbers(curve, "num_train")
        for level in reach if len(sizes) > 1 else ():
            line = dict(zip(GROUP, names, strict=True)) | {"level": level}
            for name, column in ends.items():
                line[name] = networks_needed(sizes, numbers(curve, column), level)
            lines.append({**line, "smallest": int(sizes[0]), "largest": int(sizes[-1])})
    return pd.DataFrame(lines)


def efficiency_cells(lines: pd.DataFrame) -> pd.DataFrame:
    """The table of sample efficiency as text.

    Args:
        lines: Lines of one target of `efficiency_lines`.

    Returns:
        Columns metanet, treatment, population, then one for each level: `180 [150, 260]`; `<=100`
        where the smallest number is enough, `not reached` or, as an end, `>400` where the largest
        is not.
    """
    keys = ["metanet", "treatment"]
    records = []
    for _, group in split_by(lines, GROUP):
        first = group.iloc[0]
        record = {"metanet": shown_name(first), "treatment": first["treatment"]}
        record["population"] = first["population"]
        for line in group.to_dict("records"):
            record[f"R\u00b2 = {line['level']:g}"] = _text(line)
        records.append(record)
    rank = lambda names: pd.factorize(names)[0]  # noqa: E731
    cells = pd.DataFrame(records).sort_values(keys, key=rank, kind="stable")
    return cells if set(cells["treatment"]) != {NONE} else cells.drop(columns="treatment")


def explain_efficiency(lines: pd.DataFrame) -> str:
    """What the numbers are.

    Args:
        lines: Lines of one target of `efficiency_lines`.

    Returns:
        Sentences.
    """
    return (
        "Training networks at which the learning curve, mean over seeds at "
        f"{lines['smallest'].min()} to "
        f"{lines['largest'].max()} of them, first reaches that R\u00b2, linear in log n between "
        "points; [where the curves "
        f"of the upper and of the lower ends of its 95% bootstrap interval do]."
    )


def _text(line: Any) -> str:
    low, value, high = (_number(line[name], line) for name in ("low", "networks", "high"))
    if not math.isfinite(line["networks"]):
        value = "not reached"
    is_exact = low == value == high or not math.isfinite(line["low"])
    return value if is_exact else f"{value} [{low}, {high}]"


def _number(value: int | float, line: Any) -> str:
    if value == 0:
        return f"\u2264{line['smallest']}"
    return f"{value:.0f}" if math.isfinite(value) else f">{line['largest']}"
