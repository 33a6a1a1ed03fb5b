"""A population with labels that say nothing: what is learned from it is the floor of chance."""

from functools import partial

import numpy as np
import pandas as pd

from zoo.views import PopulationLike, PopulationView, view

LEARNED = ("train", "validation")


def with_shuffled_labels(population: PopulationLike, target: str, seed: int) -> PopulationView:
    """A population with one column permuted among the networks of a split that have a value.

    Networks that diverged keep having none, and test networks keep theirs.

    Args:
        population: The population.
        target: The column.
        seed: Of the permutation.

    Returns:
        The view.
    """
    return view(population, table=partial(_shuffled, population, target, seed))


def _shuffled(population: PopulationLike, target: str, seed: int, split: str) -> pd.DataFrame:
    table = population.table(split)
    if split not in LEARNED:
        return table
    values = table[target].to_numpy(copy=True)
    finite = np.flatnonzero(np.isfinite(values))
    generator = np.random.default_rng([seed, LEARNED.index(split)])
    values[finite] = values[generator.permutation(finite)]
    return table.assign(**{target: values})
