"""A population whose labels say nothing about its networks: what is learned from it is the floor of chance."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from metanet.contract import PopulationLike

LEARNED = ("train", "validation")


@dataclass(frozen=True)
class ShuffledLabels:
    """A population with one column permuted among the networks of a split; the test networks keep theirs.

    Attributes:
        population: The population.
        target: The column.
        seed: Of the permutation.
    """

    population: PopulationLike
    target: str
    seed: int

    def __getattr__(self, name: str) -> Any:
        # Private names are asked for by copying and pickling, when there is no population yet.
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.population, name)

    def table(self, split: str) -> pd.DataFrame:
        """The table, with the target permuted among the networks that have one; those that diverged keep having none."""
        table = self.population.table(split)
        if split not in LEARNED:
            return table
        values = table[self.target].to_numpy(copy=True)
        finite = np.flatnonzero(np.isfinite(values))
        generator = np.random.default_rng([self.seed, LEARNED.index(split)])
        values[finite] = values[generator.permutation(finite)]
        return table.assign(**{self.target: values})
