"""How a metanet reads networks: checked, treated, then turned into its features."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import pandas as pd
import torch
from torch import nn

from metanet.contract import (
    Features,
    Networks,
    PopulationLike,
    InputSpec,
    features_of,
    is_mixed,
    reads,
)
from metanet.inputs.batches import NetworkSet
from metanet.inputs.checks import check_params
from metanet.inputs.features import categories
from metanet.inputs.treatments import Treatment
from zoo.network import Network
from zoo.params import Params


def spec_of(population: PopulationLike, network: Network | None) -> InputSpec:
    """What a builder is told about the networks of a population.

    Args:
        population: A population with a train split.
        network: What its networks compute, for a metanet that runs them.

    Returns:
        The spec, masks on the CPU.
    """
    return InputSpec(
        population.space,
        {name: mask.bool().cpu() for name, mask in population.free.items()},
        categories(population.table("train"), population.hyperparameters),
        network,
    )


@dataclass(frozen=True)
class Reader:
    """What stands between networks and a metanet.

    Attributes:
        spec: The networks that can be read.
        module: The metanet.
        treatment: Treatment of params, fitted.
    """

    spec: InputSpec
    module: nn.Module
    treatment: Treatment

    @property
    def num_params(self) -> int:
        """Scalars of one network."""
        return self.spec.space.num_params

    def fit(self, networks: NetworkSet) -> "Reader":
        """Fit the treatment on training networks.

        Args:
            networks: Training networks; no more are read than the treatment needs.

        Returns:
            A reader with the fitted treatment.

        Raises:
            ValueError: If there is a treatment, and the metanet reads no params.
        """
        if self.treatment.steps and reads(self.module) != "params":
            raise ValueError(
                "treatment: expected 'none' for a metanet that reads no weights; there is nothing to treat"
            )
        needed = self.treatment.num_fit
        count = len(networks) if needed is None else min(needed, len(networks))
        if not count:
            return self
        (some,) = networks.stream([torch.arange(count)])
        return replace(self, treatment=self.treatment.fit(self.spec, self._checked(some)))  # type: ignore[arg-type]

    def learned(self, generator: torch.Generator) -> Callable[[Networks], Features]:
        """How training networks are seen, drawn anew by each call if the treatment is random.

        Args:
            generator: Of the draws.

        Returns:
            A function from networks to their features.
        """

        def compute(networks: Networks) -> Features:
            checked = self._checked(networks)
            if isinstance(checked, pd.DataFrame):
                return features_of(self.module, checked)
            return self._features(self.treatment.train(self.spec, checked, generator))

        return compute

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
        return [self._features(view) for view in self.treatment.predict(self.spec, checked)]

    def _features(self, params: Params) -> Features:
        """What the metanet reads; one for several weight spaces is told of which these are."""
        if is_mixed(self.module):
            return self.module.features(params, self.spec)  # type: ignore[operator]
        return features_of(self.module, params)

    def transfer(self, spec: InputSpec) -> "Reader":
        """A reader of networks of other widths, for a metanet with a method `transfer`.

        Args:
            spec: The other networks.

        Returns:
            The reader.

        Raises:
            ValueError: If the metanet, or what its treatment has learned, is bound to the sizes
                that it was fitted on.
        """
        if any(self.treatment.known):
            raise ValueError(
                "treatment: what it has learned from networks of one size does not fit another ('align')"
            )
        return replace(self, spec=spec, module=self.module.transfer(spec))  # type: ignore[operator]

    def _checked(self, networks: Networks) -> Networks:
        """Networks of the right weight space, tensors in its order."""
        if isinstance(networks, pd.DataFrame):
            return networks
        check_params(self.spec, networks)
        return {name: networks[name] for name in self.spec.space.tensors}
