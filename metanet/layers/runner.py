"""What all runners of a `GraphNetwork` share: networks of one weight space, as dense arrays."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from metanet.graphs.topology import ParameterGraph
from metanet.layers.message_passing import GraphNetwork


class Runner(nn.Module):
    """Encodes nodes and edges, calls `run_layer` for each round, reads the means of node sets."""

    orbit: Tensor
    members: Tensor

    def __init__(self, graph: ParameterGraph):
        """Prepare.

        Args:
            graph: Topology of all networks.
        """
        super().__init__()
        self.graph = graph
        members = F.one_hot(graph.node_set).T.to(torch.get_default_dtype())
        self.register_buffer("orbit", graph.orbit, persistent=False)
        self.register_buffer("members", members, persistent=False)

    def forward(
        self,
        network: GraphNetwork,
        nodes: Float[Tensor, "B V C"],
        edges: Sequence[Float[Tensor, "B _ _ _"]],
    ) -> Float[Tensor, "B *K"]:
        """Raw predictions.

        Args:
            network: What was learned.
            nodes: Features of nodes.
            edges: Features of edges, part by part.

        Returns:
            Raw outputs, as the head gives them.
        """
        x = network.node_encoder(nodes, self.orbit)
        e = self.encode(network, edges)
        for at, layer in enumerate(network.layers):
            x = self.run_layer(layer, x, e, at + 1 == len(network.layers))
        return network.decode(self.means(network.norm(x)))

    def encode(
        self, network: GraphNetwork, edges: Sequence[Float[Tensor, "B _ _ _"]]
    ) -> list[Float[Tensor, "B K _ _"]]:
        """Edges at the start, part by part, channels first."""
        return [
            network.edge_encoder.dense(part, kind)
            for kind, part in zip(self.graph.kinds, edges, strict=True)
        ]

    def exchange(
        self, e: list[Tensor], messages: Callable[[int, Tensor], tuple[Tensor, Any, Any]]
    ) -> tuple[list[list[Any]], list[list[Any]]]:
        """Go through the edges part by part.

        Args:
            e: Features of edges; replaced by new ones.
            messages: For the place of a part and its edges: new ones, what arrives at the nodes
                that it writes, and what arrives at those that it reads.

        Returns:
            For each node set, what arrives at its nodes from parts that write it, and from parts
            that read it.
        """
        received, sent = ([[] for _ in self.graph.node_sets] for _ in range(2))
        for place, part in enumerate(self.graph.edges):
            e[place], at_written, at_read = messages(place, e[place])
            received[part.written].append(at_written)
            sent[part.read].append(at_read)
        return received, sent

    def collect(
        self,
        inboxes: Sequence[list[Any]],
        combine: Callable[[slice, list[Any]], Tensor],
        like: Float[Tensor, "B K V D"],
    ) -> Float[Tensor, "B K V D"]:
        """What arrives at all nodes.

        Args:
            inboxes: For each node set, what arrives at its nodes.
            combine: Makes one tensor `[B, K, nodes, D]` of it, for the nodes of the set.
            like: Nodes where nothing arrives receive zeros of its shape and type.

        Returns:
            What `combine` says, node set after node set.
        """
        nodes = [node_set.nodes for node_set in self.graph.node_sets]
        arrived = [
            combine(of_set, inbox) if inbox else torch.zeros_like(like[:, :, of_set])
            for of_set, inbox in zip(nodes, inboxes, strict=True)
        ]
        return torch.cat(arrived, dim=2)

    def nodes_of(self, place: int) -> tuple[slice, slice]:
        """Nodes that a part of the edges writes, and nodes that it reads."""
        sets, part = self.graph.node_sets, self.graph.edges[place]
        return sets[part.written].nodes, sets[part.read].nodes

    @abstractmethod
    def run_layer(
        self, layer: Any, x: Float[Tensor, "B V H"], e: list[Float[Tensor, "B K _ _"]], last: bool
    ) -> Float[Tensor, "B V H"]:
        """One round.

        Args:
            layer: What was learned for it.
            x: Features of nodes.
            e: Features of edges; replaced by new ones, unless it is the last round.
            last: Whether nothing reads the edges anymore.

        Returns:
            New features of nodes.
        """

    def means(self, x: Float[Tensor, "B V H"]) -> Float[Tensor, "B sets H"]:
        """Means over each node set; zero for a set without nodes."""
        return self.members @ x / self.members.sum(1, keepdim=True).clamp(min=1)
