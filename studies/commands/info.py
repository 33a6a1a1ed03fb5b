"""What a zoo holds, as text."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float

from zoo.sharing.histogram import histogram_lines
from zoo.store.columns import has_diverged
from zoo.store.manifest import PopulationEntry
from zoo.store.population import Population
from zoo.store.zoo import Zoo

QUANTILES = (0, 0.25, 0.5, 0.75, 1)


def describe_zoo(zoo: Zoo) -> str:
    """Populations, architectures, counts, splits, accuracies and size of a zoo.

    Args:
        zoo: The zoo.

    Returns:
        Lines of text.
    """
    task = zoo.manifest.task
    head = [
        f"{zoo.directory}: {len(zoo)} populations, {size_on_disk(zoo.directory) / 1e6:.1f} MB",
        f"{task.kind}, input {task.input_shape}, output {task.output_shape}",
        *(f"view {name}: {', '.join(members)}" for name, members in zoo.manifest.views.items()),
    ]
    blocks = [
        _describe(population, zoo.manifest.populations[name]) for name, population in zoo.items()
    ]
    return "\n\n".join(["\n".join(head), *blocks])


def describe_column(
    zoo: Zoo,
    column: str,
    populations: Sequence[str] = (),
    bins: int = 20,
    width: int = 80,
    blocks: bool = True,
) -> str:
    """A histogram of one column for each population, on the same bins, of networks that converged.

    Args:
        zoo: The zoo.
        column: A column of the tables, of numbers.
        populations: Which ones, all if none are named.
        bins: Number of bins.
        width: Columns of a line.
        blocks: Whether bars are block characters or `#`.

    Returns:
        Lines of text.

    Raises:
        ValueError: If a population or the column is unknown, or the column holds text.
    """
    tables = {
        name: _table(population) for name, population in zoo.choose(populations or None).items()
    }
    first = next(iter(tables.values()))
    numeric = [str(name) for name in first if pd.api.types.is_numeric_dtype(first[name])]
    if column not in numeric:
        raise ValueError(f"column {column!r}: expected a column of numbers, one of {numeric}")
    converged = {
        name: table.loc[~has_diverged(table), column].to_numpy(np.float64)
        for name, table in tables.items()
    }
    bounds = _bounds(np.concatenate(list(converged.values())))
    histograms = []
    for name, values in converged.items():
        head = f"{name}: {column} of {_counts(values, len(tables[name]) - len(values))}"
        histograms.append("\n".join([head, *histogram_lines(values, bins, width, bounds, blocks)]))
    return "\n\n".join(histograms)


def _bounds(values: Float[np.ndarray, " N"]) -> tuple[float, float] | None:
    finite = values[np.isfinite(values)]
    return (float(finite.min()), float(finite.max())) if finite.size else None


def _table(population: Population) -> pd.DataFrame:
    return pd.concat([population.table(split) for split in population.splits])


def _counts(values: Float[np.ndarray, " N"], diverged: int) -> str:
    """How many networks a histogram shows, and how many it cannot show."""
    num_finite = int(np.isfinite(values).sum())
    text = f"{num_finite} networks; {diverged} diverged"
    if lost := len(values) - num_finite:
        text += f", {lost} more without a finite value"
    return text


def can_show_blocks(encoding: str | None) -> bool:
    """Whether text of an encoding, such as a terminal's, may hold block characters."""
    try:
        "▏█".encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def size_on_disk(directory: Path) -> int:
    """Bytes of all files in a folder and below it."""
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def _describe(population: Population, entry: PopulationEntry) -> str:
    table = _table(population)
    lines = {
        "networks": f"{len(population)}, {int(has_diverged(table).sum())} diverged",
        "splits": ", ".join(f"{name} {count}" for name, count in population.sizes.items()),
        "architecture": json.dumps(entry.architecture) if entry.architecture else "not known",
        "asymmetry": json.dumps(entry.asymmetry) if entry.asymmetry else "none",
        "parameters": f"{population.space.num_params}, {population.num_free} free",
    }
    metrics = population.manifest.columns_of("metric")
    for name in ["test_accuracy"] if "test_accuracy" in metrics else metrics:
        spread = _quantiles(table[name].to_numpy(np.float64))
        lines[name.replace("_", " ")] = f"{spread}  (minimum, quartiles, maximum)"
    lines["hyperparameters"] = ", ".join(population.hyperparameters)
    return "\n".join([population.name, *(f"  {name:<16}{text}" for name, text in lines.items())])


def _quantiles(values: Float[np.ndarray, " N"]) -> str:
    finite = values[np.isfinite(values)]
    if not finite.size:
        return "none finite"
    return " ".join(f"{value:.3f}" for value in np.quantile(finite, QUANTILES))
