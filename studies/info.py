"""What a zoo holds, as text."""

import json
from pathlib import Path

import numpy as np

from zoo.manifest import PopulationEntry
from zoo.population import Population, Zoo

QUANTILES = (0, 0.25, 0.5, 0.75, 1)


def describe_zoo(zoo: Zoo) -> str:
    """Populations, counts, architecture, parameters, splits, accuracies, diverged networks and size of a zoo.

    Args:
        zoo: The zoo.

    Returns:
        Lines of text.
    """
    split = ", ".join(f"{name} {count}" for name, count in zoo.manifest.split.items())
    head = [
        f"{zoo.directory}: {len(zoo)} populations, {size_on_disk(zoo.directory) / 1e6:.1f} MB",
        f"input {list(zoo.manifest.input_shape)}, {zoo.manifest.num_classes} classes; networks a population: {split}",
    ]
    blocks = [_describe(population, zoo.manifest.populations[name]) for name, population in zoo.items()]
    return "\n\n".join(["\n".join(head), *blocks])


def size_on_disk(directory: Path) -> int:
    """Bytes of all files in a folder and below it."""
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def _describe(population: Population, entry: PopulationEntry) -> str:
    tables = [population.table(split) for split in population.splits]
    accuracy = np.concatenate([table["test_accuracy"].to_numpy(np.float64) for table in tables])
    diverged = sum(int(table["diverged"].to_numpy().sum()) for table in tables)
    finite = accuracy[np.isfinite(accuracy)]
    quantiles = " ".join(f"{value:.3f}" for value in np.quantile(finite, QUANTILES)) if finite.size else "none finite"
    kind = json.dumps(entry.asymmetry) if entry.asymmetry else "none"
    lines = {
        "networks": f"{len(population)}, {diverged} diverged",
        "architecture": json.dumps(entry.architecture),
        "asymmetry": kind,
        "parameters": f"{population.space.num_params}, {population.num_free} free",
        "test accuracy": f"{quantiles}  (minimum, quartiles, maximum)",
        "hyperparameters": ", ".join(population.hyperparameters),
    }
    return "\n".join([population.name, *(f"  {name:<16}{text}" for name, text in lines.items())])
