"""How a metanet reads networks: checked, treated, then turned into its features."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from metanet.contract import InputSpec, MetanetModule
from metanet.feature_rows import Features, concatenate, rows
from metanet.inputs.batches import Chosen, JoinedNetworks
from metanet.inputs.checks import check_architecture, check_params, check_shapes, check_spec
from metanet.inputs.features import hyperparameter_columns
from metanet.inputs.treatments import Treatment
from zoo.params import Params
from zoo.views import PopulationLike


def spec_of(population: PopulationLike, with_network: bool = False) -> InputSpec:
    """What a builder is told about the networks of a population.

    Args:
        population: A population with a train split.
        with_network: Whether the metanet runs networks.

    Returns:
        The spec, masks on the CPU.
    """
    return replace(
        _space_of(population),
        hyperparameters=hyperparameter_columns(population),
        architecture=population.known_architecture() if with_network else None,
    )


def _space_of(population: PopulationLike) -> InputSpec:
    """Weight space and masks."""
    masks = {name: mask.bool().cpu() for name, mask in population.free.items()}
    return InputSpec(population.space, masks)


@dataclass(frozen=True)
class Reader:
    """What stands between networks and a metanet.

    Attributes:
        specs: The networks that can be read, population by population.
        module: The metanet.
        treatment: Treatment of params, fitted.
    """

    specs: tuple[InputSpec, ...]
    module: MetanetModule
    treatment: Treatment

    @property
    def num_params(self) -> int:
        """Scalars of the largest network."""
        return max(spec.space.num_params for spec in self.specs)

    def fit(self, networks: JoinedNetworks) -> "Reader":
        """Fit the treatment on training networks.

        Args:
            networks: Training networks; no more are read than the treatment needs.

        Returns:
            A reader with the fitted treatment.

        Raises:
            ValueError: If there is a treatment, and the metanet reads no params; or if it learns
                from several weight spaces: a new one would lack what was learned.
        """
        if self.treatment.steps and self.module.reads != "params":
            raise ValueError(
                "treatment: expected 'none' for a metanet that reads no weights; "
                "there is nothing to treat"
            )
        learning = self.treatment.learning
        if not learning or not len(networks):
            return self
        if len(self.specs) != 1:
            raise ValueError(
                f"treatment {learning[0].name!r} learns from networks of one weight space: "
                "expected treatments that learn nothing for several populations, "
                "such as 'augment' or 'canonicalize'"
            )
        needed = self.treatment.num_fit
        count = len(networks) if needed is None else min(needed, len(networks))
        (chosen,) = networks.stream([torch.arange(count)])
        params = self._checked(self.specs[0], chosen.networks[0])
        return replace(self, treatment=self.treatment.fit(self.specs[0], params))

    def learned(self, generator: torch.Generator) -> Callable[[Chosen], Features]:
        """How training networks are seen, drawn anew by each call if the treatment is random.

        Args:
            generator: Of the draws.

        Returns:
            A function from networks to their features.
        """

        def treat(spec: InputSpec, params: Params) -> list[Params]:
            return [self.treatment.train(spec, params, generator)]

        return lambda chosen: self._features(chosen, treat)[0]

    def views(self, chosen: Chosen) -> list[Features]:
        """Features of networks to predict: views, the mean of whose raw predictions counts.

        Args:
            chosen: Networks.

        Returns:
            Features of each view.
        """
        return self._features(chosen, self.treatment.predict)

    def _features(
        self, chosen: Chosen, treat: Callable[[InputSpec, Any], list[Any]]
    ) -> list[Features]:
        """Features of each view, networks in the order in which they were chosen."""
        by_space = []
        for spec, networks in zip(self.specs, chosen.networks, strict=True):
            if networks is not None:
                views = [networks]  # a table of hyperparameters has no symmetry to treat
                if self.module.reads == "params":
                    views = treat(spec, self._checked(spec, networks))
                by_space.append([self.module.features_in(view, spec) for view in views])
        joined = [concatenate(same) for same in zip(*by_space, strict=True)]
        order = chosen.order
        return joined if order is None else [rows(features, order) for features in joined]

    def _checked(self, spec: InputSpec, networks: Any) -> Any:
        """Networks of the right weight space, tensors in its order."""
        check_params(spec, networks)
        return {name: networks[name] for name in spec.space.tensors}

    def of_population(self, population: PopulationLike) -> "Reader":
        """The reader of a population, perhaps of a weight space that was not fitted.

        Args:
            population: The population.

        Returns:
            The reader.

        Raises:
            ValueError: If the metanet cannot read it, or what its treatment has learned is bound
                to the sizes that it was fitted on.
        """
        if self.module.reads != "params":
            return self
        spec, what = _space_of(population), f"population {population.name!r}"
        fitted = self.specs[0]
        if self.module.transfers and (len(self.specs) > 1 or spec.space != fitted.space):
            return self._transferred(spec, what)
        check_spec(fitted, spec.space, spec.free, what)
        if fitted.architecture is not None:
            check_architecture(fitted, population.known_architecture(), what)
        return self

    def _transferred(self, spec: InputSpec, what: str) -> "Reader":
        if any(self.treatment.known):
            raise ValueError(
                "treatment: what it has learned from networks of one size "
                "does not fit another ('align')"
            )
        try:
            module = self.module.transfer(spec)
        except ValueError as error:
            raise ValueError(f"{what}: {error}") from error
        return Reader((spec,), module, self.treatment)

    def of_params(self, params: Params) -> "Reader":
        """The reader of params of a fitted weight space.

        Args:
            params: Full params ``[N, *shape]``.

        Returns:
            The reader.

        Raises:
            ValueError: If they do not fit one weight space.
        """
        return replace(self, specs=(self._spec_of_params(params),))

    def _spec_of_params(self, params: Params) -> InputSpec:
        """The fitted weight space whose tensors have these names and shapes."""
        if len(self.specs) == 1:
            check_shapes(self.specs[0], params)
            return self.specs[0]
        shapes = {name: tuple(tensor.shape[1:]) for name, tensor in params.items()}
        fitting = [spec for spec in self.specs if dict(spec.space.shapes) == shapes]
        if len(fitting) != 1:
            raise ValueError(
                f"params fit {len(fitting)} of the weight spaces that the metanet was fitted on, "
                f"expected 1: got tensors {shapes}; "
                "give a population, whose weight space is known"
            )
        return fitting[0]
