"""`scale_gmn`: message passing that is invariant to scales and signs of neurons as well."""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import nn

from metanet.contract import InputSpec, Options, Training
from metanet.graphs.signs import has_signs
from metanet.inputs.normalize import ParamsNorm
from metanet.layers.signed import SignedGraphNetwork
from metanet.layers.signed_dense import SignedDenseGraph
from metanet.models.graph_model import MessagePassing
from zoo.params import Params
from zoo.symmetry.action import GroupElement, act
from zoo.symmetry.balance import balancing_scales


class ScaleGraphMetanet(MessagePassing):
    """A graph neural network that is invariant to every declared symmetry.

    They are permutations, positive scales and signs. Positive scales go first, exactly and once for
    each network: its neurons are scaled to the balanced point of the orbit
    (`zoo.symmetry.balance`), which needs no reciprocal of a weight and exists for dead neurons and
    tiny weights as well. What is left of the symmetry are signs and permutations, and the graph
    network is equivariant to those: nodes and edges have channels that flip with the signs of their
    neurons beside channels that do not (`metanet.layers.signed`). Without signs in the space, it is
    the network of `gmn`. Fixed entries are not read, nor do they balance anything.

    References:
        Kalogeropoulos et al. 2024, arXiv 2406.10685 ("ScaleGMN"); Kempf and Ness 1979 (points of
        least norm).
    """

    recommended = Training(epochs=30, batch_size=32, lr=1e-2, weight_decay=0.01, patience=8)
    invariant = "symmetries"
    presets: ClassVar[Mapping[str, Options]] = {
        "published": {"width": 128, "edge_width": 128, "layers": 4}
    }

    @staticmethod
    def norm_of(spec: InputSpec) -> ParamsNorm:
        """Normalization that commutes with flips of signs."""
        return ParamsNorm(spec, centered=False)

    @staticmethod
    def parts(spec: InputSpec) -> tuple[type[nn.Module], type[nn.Module]]:
        """A network with odd channels, where there are signs."""
        if has_signs(spec.space):
            return SignedGraphNetwork, SignedDenseGraph
        return MessagePassing.parts(spec)

    @torch.no_grad()
    def features(self, networks: Params) -> Params:
        """Params at the balanced point of the orbit of positive scales, fixed entries zero."""
        space, masks = self.spec.space, self.spec.free
        free = {
            name: torch.where(masks[name], tensor, 0.0) if name in masks else tensor
            for name, tensor in networks.items()
        }
        return act(space, GroupElement({}, balancing_scales(space, free)), free)
