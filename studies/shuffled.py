"""A population whose labels say nothing about its networks: what is learned from it is the floor of chance."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from torch import Tensor

from metanet.contract import PopulationLike
from zoo.params import Params
from zoo.weight_space import WeightSpace

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

    @property
    def name(self) -> str:
        """Its name."""
        return self.population.name

    @property
    def space(self) -> WeightSpace:
        """Weight space."""
        return self.population.space

    @property
    def free(self) -> Mapping[str, Tensor]:
        """Masks of trained entries."""
        return self.population.free

    @property
    def hyperparameters(self) -> tuple[str, ...]:
        """Hyperparameter columns."""
        return self.population.hyperparameters

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits."""
        return self.population.splits

    def params(self, split: str) -> Params:
        """Parameters, as they are."""
        return self.population.params(split)

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
