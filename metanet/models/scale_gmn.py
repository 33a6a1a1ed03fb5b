"""`scale_gmn`: message passing on the parameter graph, invariant to scales and signs of neurons as well."""

from collections.abc import Mapping
from functools import partial
from typing import ClassVar

import torch

from metanet.contract import InputSpec, Training
from metanet.graphs.signs import has_signs
from metanet.inputs.normalize import ParamsNorm
from metanet.layers.dense import DenseGraph
from metanet.layers.message_passing import GraphNetwork
from metanet.layers.signed import SignedGraphNetwork
from metanet.layers.signed_dense import SignedDenseGraph
from metanet.models.graph_model import GraphModel
from zoo.params import Params
from zoo.symmetry.action import GroupElement, act
from zoo.symmetry.balance import balancing_scales


class ScaleGraphMetanet(GraphModel):
    """A graph neural network invariant to every declared symmetry: permutations, positive scales and signs.

    Positive scales go first, exactly and once for each network: its neurons are scaled to the
    balanced point of the orbit (`zoo.symmetry.balance`), which needs no reciprocal of a weight and
    exists for dead neurons and tiny weights as well. What is left of the symmetry are signs and
    permutations, and the graph network is equivariant to those: nodes and edges have channels that
    flip with the signs of their neurons beside channels that do not (`metanet.layers.signed`).
    Without signs in the space, it is the network of `gmn`. Fixed entries are not read, nor do they
    balance anything.

    References:
        Kalogeropoulos et al. 2024, arXiv 2406.10685 ("ScaleGMN"); Kempf and Ness 1979 (points of
        least norm).
    """

    recommended = Training(epochs=30, batch_size=32, lr=1e-2, weight_decay=0.01, patience=8)
    invariant = "symmetries"
    presets: ClassVar[Mapping[str, Mapping[str, int | float]]] = {
        "published": {"width": 128, "edge_width": 128, "layers": 4}
    }

    def __init__(self, spec: InputSpec, *, width: int = 32, edge_width: int = 8, layers: int = 3):
        """Build.

        Args:
            spec: Weight space and masks.
            width: Channels of nodes; as many again if there are signs.
            edge_width: Channels of edges, a divisor of `width`.
            layers: Rounds of messages.

        Raises:
            ValueError: If there is no layer or no channel, or `edge_width` does not divide `width`.
        """
        kind, runner = (
            (SignedGraphNetwork, SignedDenseGraph)
            if has_signs(spec.space)
            else (GraphNetwork, DenseGraph)
        )
        network = partial(kind, width=width, edge_width=edge_width, layers=layers)
        super().__init__(spec, ParamsNorm(spec, centered=False), network, runner)

    @torch.no_grad()
    def features(self, networks: Params) -> Params:
        """Params at the balanced point of the orbit of positive scales, fixed entries zero."""
        space, masks = self.spec.space, self.spec.free
        free = {
            name: torch.where(masks[name], tensor, 0.0) if name in masks else tensor
            for name, tensor in networks.items()
        }
        return act(space, GroupElement({}, balancing_scales(space, free)), free)
