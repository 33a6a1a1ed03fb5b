"""How a metanet reads networks: checked, treated, then turned into its features."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import pandas as pd
import torch
from torch import nn

from metanet.checks import check_params
from metanet.contract import Features, Networks, PopulationLike, Source, concatenate, features_of, is_mixed, reads
from metanet.features import categories
from metanet.treatments import Treatment
from zoo.network import Network
from zoo.params import Params


def source_of(population: PopulationLike, network: Network | None) -> Source:
    """What a builder is told about the networks of a population.

    Args:
        population: A population with a train split.
        network: What its networks compute, for a metanet that runs them.

    Returns:
        The source, masks on the CPU.
    """
    return Source(
        population.space,
        {name: mask.bool().cpu() for name, mask in population.free.items()},
        categories(population.table("train"), population.hyperparameters),
        network,
    )


@dataclass(frozen=True)
class Reader:
    """What stands between networks and a metanet.

    Attributes:
        source: The networks that can be read.
        module: The metanet.
        treatment: Treatment of params, fitted.
    """

    source: Source
    module: nn.Module
    treatment: Treatment

    def fit(self, networks: Networks) -> "Reader":
        """Fit the treatment on training networks.

        Args:
            networks: Training networks.

        Returns:
            A reader with the fitted treatment.

        Raises:
            ValueError: If there is a treatment, and the metanet reads no params.
        """
        if self.treatment.steps and reads(self.module) != "params":
            raise ValueError("treatment: expected 'none' for a metanet that reads no weights; there is nothing to treat")
        checked = self._checked(networks)
        if isinstance(checked, pd.DataFrame):
            return self
        return replace(self, treatment=self.treatment.fit(self.source, checked))

    def passes(self, networks: Networks, generator: torch.Generator) -> Callable[[], Features]:
        """Features of training networks, drawn anew by each call if the treatment is random.

        Args:
            networks: Training networks.
            generator: Of the draws.

        Returns:
            A function that gives the features of one pass.
        """
        checked = self._checked(networks)

        def draw() -> Features:
            if isinstance(checked, pd.DataFrame):
                return features_of(self.module, checked)
            return self._features(self.treatment.train(self.source, checked, generator))

        return draw

    def side_by_side(self, draw: Callable[[], Features]) -> tuple[Features, int]:
        """Several passes at once, for a metanet that trains in one go.

        Args:
            draw: Features of one pass.

        Returns:
            Features of `copies` passes, one after the other, and the number of copies.
        """
        copies = self.treatment.copies if self.treatment.is_random else 1
        return concatenate([draw() for _ in range(copies)]), copies

    def views(self, networks: Networks) -> list[Features]:
        """Features of networks to predict: one or more views, the mean of whose raw predictions counts.

        Args:
            networks: Params ``[N, *shape]`` or a table.

        Returns:
            Features of each view.
        """
        checked = self._checked(networks)
        if isinstance(checked, pd.DataFrame):
            return [features_of(self.module, checked)]
        return [self._features(view) for view in self.treatment.predict(self.source, checked)]

    def _features(self, params: Params) -> Features:
        """What the metanet reads; one for several weight spaces is told of which these are."""
        if is_mixed(self.module):
            return self.module.features(params, self.source)  # type: ignore[operator]
        return features_of(self.module, params)

    def transfer(self, source: Source) -> "Reader":
        """A reader of networks of other widths, for a metanet with a method `transfer`.

        Args:
            source: The other networks.

        Returns:
            The reader.

        Raises:
            ValueError: If the metanet, or what its treatment has learned, is bound to the sizes that it was fitted on.
        """
        if any(self.treatment.known):
            raise ValueError("treatment: what it has learned from networks of one size does not fit another ('align')")
        return replace(self, source=source, module=self.module.transfer(source))  # type: ignore[operator]

    def _checked(self, networks: Networks) -> Networks:
        """Networks of the right weight space, tensors in its order."""
        if isinstance(networks, pd.DataFrame):
            return networks
        check_params(self.source, networks)
        return {name: networks[name] for name in self.source.space.tensors}
