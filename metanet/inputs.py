"""Params as metanets that know tensors read them: normalized by tensor, fixed entries zero."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from metanet.contract import Source
from metanet.features import flat_free
from metanet.normalize import TensorNorm
from zoo.params import Params, unflatten


class ParamsInput(nn.Module):
    """Free entries, flat, as features of networks; normalized and put back into their tensors for a forward pass."""

    places: Tensor

    def __init__(self, source: Source):
        """Prepare; starts without a normalization.

        Args:
            source: Weight space and masks.
        """
        super().__init__()
        self.source = source
        self.norm = TensorNorm(list(source.free_sizes.values()))
        masks = [source.free.get(name, torch.ones(shape)).flatten().bool() for name, shape in source.space.shapes.items()]
        self.register_buffer("places", torch.cat(masks).nonzero().squeeze(1), persistent=False)

    def features(self, networks: Mapping[str, Tensor]) -> Float[Tensor, "N D"]:
        """Flat free entries.

        Args:
            networks: Full params `[N, *shape]`.

        Returns:
            One row a network.
        """
        return flat_free(self.source, networks)

    def calibrate(self, features: Float[Tensor, "N D"]) -> None:
        """Fit the normalization.

        Args:
            features: Features of the training networks.
        """
        self.norm.calibrate(features)

    def forward(self, features: Float[Tensor, "B D"]) -> Params:
        """Params as a metanet reads them.

        Args:
            features: Flat free entries.

        Returns:
            Tensors `[B, *shape]`.
        """
        free = self.norm(features)
        if free.shape[1] == self.source.space.num_params:
            return unflatten(self.source.space, free)
        full = free.new_zeros(len(free), self.source.space.num_params)
        return unflatten(self.source.space, full.index_copy(1, self.places, free))
