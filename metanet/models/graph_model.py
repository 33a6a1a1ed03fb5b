"""What the metanets share that read the parameter graphs of one weight space."""

from collections.abc import Callable
from functools import partial
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from metanet.contract import InputSpec
from metanet.graphs.topology import (
    ParameterGraph,
    edge_features,
    node_features,
    on_cpu,
    parameter_graph,
)
from metanet.inputs.normalize import Normalized, ParamsNorm
from metanet.layers.dense import DenseGraph
from metanet.layers.message_passing import GraphNetwork
from zoo.options import Depth, Width
from zoo.params import Params


class GraphModel(Normalized):
    """Normalized tensors, as features of nodes and edges, through a network of the graph."""

    def __init__(
        self,
        spec: InputSpec,
        norm: ParamsNorm,
        network: Callable[..., nn.Module],
        runner: Callable[[ParameterGraph], Any],
    ):
        """Build.

        Args:
            spec: Weight space and masks.
            norm: Normalization of tensors.
            network: Builds what is learned, for the sizes of the graph and the number of outputs.
            runner: Builds what runs it on dense arrays, for the graph.

        Raises:
            ValueError: If the sizes of the network do not fit each other.
        """
        super().__init__()
        self.spec, self.norm = spec, norm
        self.graph = parameter_graph(spec.space)
        self.network = network(self.graph.sizes, num_outputs=spec.num_outputs)
        self.dense = on_cpu(runner, self.graph)

    def forward(self, features: Params) -> Float[Tensor, "B *K"]:
        """Raw prediction."""
        params = self.norm(features)
        return self.dense(
            self.network, node_features(self.graph, params), edge_features(self.graph, params)
        )


class MessagePassing(GraphModel):
    """Base of graph neural networks; those that differ in a part override `norm_of` or `parts`."""

    def __init__(
        self, spec: InputSpec, *, width: Width = 32, edge_width: Width = 8, layers: Depth = 3
    ):
        """Build.

        Args:
            spec: Weight space and masks.
            width: Channels of nodes; as many again if there are odd channels.
            edge_width: Channels of edges, a divisor of `width`.
            layers: Rounds of messages.

        Raises:
            ValueError: If there is no layer or no channel, or `edge_width` does not divide `width`.
        """
        self.options = {"width": width, "edge_width": edge_width, "layers": layers}
        kind, runner = self.parts(spec)
        super().__init__(spec, self.norm_of(spec), partial(kind, **self.options), runner)

    @staticmethod
    def norm_of(spec: InputSpec) -> ParamsNorm:
        """Normalization of the tensors of a weight space."""
        return ParamsNorm(spec)

    @staticmethod
    def parts(spec: InputSpec) -> tuple[type[nn.Module], type[nn.Module]]:
        """The network of the graph, and what runs it on dense arrays."""
        del spec
        return GraphNetwork, DenseGraph
