"""The rows of a learnability study in short.

Means and spread over seeds, as numbers and as text.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype

from metanet.inputs.treatments import NONE
from studies.common.intervals import estimate_of, interval_text
from studies.common.rows import span_text
from studies.learnability.scores import TRUE

GROUP = ["target", "labels", "metanet", "treatment", "population", "test_population"]
SHOWN = ("r2", "kendall_tau", "matched_kendall_tau")
TITLES = {
    "r2": "R\u00b2",
    "kendall_tau": "Kendall \u03c4",
    "spearman": "Spearman \u03c1",
    "mae": "MAE",
}


def title(metric: str) -> str:
    """A metric's name for people; `matched_` stays as a word in front."""
    plain = metric.removeprefix("matched_")
    return ("matched " if plain != metric else "") + TITLES.get(plain, plain)


def home(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows that are scored on the test networks of the population that was learned from."""
    return rows.loc[rows["population"] == rows["test_population"]]


def abroad(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows that are scored on another population."""
    return rows.loc[rows["population"] != rows["test_population"]]


def shown_name(line: Any) -> str:
    """A metanet's name for people, with what its labels were."""
    return line["metanet"] if line["labels"] == TRUE else f"{line['metanet']}, shuffled labels"


def average_seeds(rows: pd.DataFrame) -> pd.DataFrame:
    """Average rows over seeds.

    Args:
        rows: Rows of a study.

    Returns:
        One row for each combination of the columns `GROUP` and `num_train`, in the order of the
        rows: the mean over seeds of every numeric column (also of the ends of the intervals), the
        standard deviation over seeds of each metric in `<metric>_seed_std` (NaN for one seed), and
        `num_seeds`.
    """
    keys = [*GROUP, "num_train"]
    grouped = rows.groupby(keys, sort=False)
    numbers = [
        name
        for name in rows.columns
        if name not in (*keys, "seed") and is_numeric_dtype(rows[name])
    ]
    metrics = [name for name in numbers if f"{name}_low" in numbers]
    means = pd.DataFrame(grouped[numbers].mean())
    spread = pd.DataFrame(grouped[metrics].std(ddof=1)).add_suffix("_seed_std")
    return means.join(spread).assign(num_seeds=grouped.size()).reset_index()


def largest(averages: pd.DataFrame, keys: list[str] = GROUP) -> pd.DataFrame:
    """Of each combination of some columns the line with the most training networks.

    Args:
        averages: What `average_seeds` returns, or other lines with a `num_train`.
        keys: The columns.

    Returns:
        Those lines, by the first column, the second and so on, each in order of appearance.
    """
    best = averages.loc[averages.groupby(keys, sort=False)["num_train"].idxmax().to_list()]
    order = [pd.factorize(best[name])[0] for name in reversed(keys)]
    return best.iloc[np.lexsort(order)].reset_index(drop=True)


def format_interval(line: Mapping[str, Any], metric: str) -> str:
    """A metric as `0.84 [0.80, 0.88]`, with the spread over seeds `±0.02` if there are several.

    Args:
        line: A line of `average_seeds` by column.
        metric: Name of a metric.

    Returns:
        The text, `n/a` if the metric was not scored.
    """
    spread = line[f"{metric}_seed_std"]
    digits = ".2f" if metric.removeprefix("matched_") != "mae" else ".4f"
    seeds = f" \u00b1{spread:{digits}}" if np.isfinite(spread) else ""
    return interval_text(estimate_of(line, metric), digits) + seeds


def table_cells(lines: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """The lines of a study's table as text.

    Args:
        lines: What `largest` returns, of one target.
        metrics: Metrics to show.

    Returns:
        Columns metanet, treatment (if there are several), population, tested on (if that is
        another), then one for each metric.
    """
    records = lines.to_dict("records")
    cells = pd.DataFrame({"metanet": [shown_name(line) for line in records]})
    if set(lines["treatment"]) != {NONE}:
        cells["treatment"] = lines["treatment"].to_list()
    cells["population"] = lines["population"].to_list()
    if lines["population"].to_list() != lines["test_population"].to_list():
        cells["tested on"] = lines["test_population"].to_list()
    for metric in metrics:
        cells[title(metric)] = [format_interval(line, metric) for line in records]
    return cells


def explain(lines: pd.DataFrame) -> list[str]:
    """What the numbers of a table are.

    Args:
        lines: What `largest` returns, of one target.

    Returns:
        Two sentences.
    """
    counts = {
        name: span_text(lines[name]) for name in ("n_train", "n_test", "n_matched", "num_seeds")
    }
    return [
        f"{counts['n_train']} training and {counts['n_test']} test networks a population, "
        f"{counts['n_matched']} of the latter "
        f"label-matched.",
        f"Mean over {counts['num_seeds']} seed{'' if counts['num_seeds'] == '1' else 's'}, "
        f"[95% bootstrap interval over test networks], \u00b1 standard deviation over seeds.",
    ]


def notes(rows: pd.DataFrame) -> list[str]:
    """What a reader must know beside the numbers.

    Metrics that were not scored, networks that were left out.

    Args:
        rows: Rows of one target.

    Returns:
        One sentence each.
    """
    sentences = [f"Matched metrics n/a: {note}." for note in sorted(set(rows["note"]) - {""})]
    dropped = pd.Series(rows.groupby("population", sort=False)["num_dropped"].max()).to_dict()
    counts = ", ".join(f"{name} {count}" for name, count in dropped.items() if count)
    if counts:
        sentences.append(f"Diverged networks without a finite target, left out: {counts}.")
    return sentences
