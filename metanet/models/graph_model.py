"""What the metanets share that read the parameter graphs of one weight space."""

from collections.abc import Callable
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from metanet.contract import InputSpec
from metanet.graphs.topology import (
    GraphSizes,
    ParameterGraph,
    edge_features,
    node_features,
    parameter_graph,
)
from metanet.inputs.normalize import Normalized, ParamsNorm
from zoo.params import Params


class GraphModel(Normalized):
    """Normalized tensors, as features of nodes and edges, through a network of the graph and its runner."""

    def __init__(
        self,
        spec: InputSpec,
        norm: ParamsNorm,
        network: Callable[[GraphSizes], nn.Module],
        runner: Callable[[ParameterGraph], Any],
    ):
        """Build.

        Args:
            spec: Weight space and masks.
            norm: Normalization of tensors.
            network: Builds what is learned, for the sizes of the graph.
            runner: Builds what runs it on dense arrays, for the graph.

        Raises:
            ValueError: If the sizes of the network do not fit each other.
        """
        super().__init__()
        self.spec, self.norm = spec, norm
        self.graph = parameter_graph(spec.space)
        self.network = network(self.graph.sizes)
        self.dense = runner(self.graph)

    def forward(self, features: Params) -> Float[Tensor, "B"]:
        """Raw prediction."""
        params = self.norm(features)
        return self.dense(
            self.network, node_features(self.graph, params), edge_features(self.graph, params)
        )
