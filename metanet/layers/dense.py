"""Message passing for networks of one weight space: edges are dense arrays `[B, K, W, R]`.

Nothing is gathered.
"""

from abc import abstractmethod
from collections.abc import Sequence
from functools import reduce

import torch
from jaxtyping import Float, Int64, Num
from torch import Tensor

from metanet.graphs.parts import EdgePart, Relation
from metanet.graphs.topology import ParameterGraph
from metanet.layers.edge_kernel import edge_messages
from metanet.layers.message_passing import MessageLayer, Projections
from metanet.layers.runner import Runner


class MessageRunner(Runner):
    """Runs a `GraphNetwork` of `MessageLayer`s; messages, and their averages, vary."""

    num_received: Tensor
    num_sent: Tensor

    def __init__(
        self,
        graph: ParameterGraph,
        num_received: Num[Tensor, " V"],
        num_sent: Num[Tensor, " V"],
    ):
        """Prepare.

        Args:
            graph: Topology of all networks.
            num_received: What the sum of the messages along the edges is divided by, node by node.
            num_sent: The same for messages against the edges.
        """
        super().__init__(graph)
        for name, counts in {"num_received": num_received, "num_sent": num_sent}.items():
            divisor = counts.clamp(min=1)[:, None].to(self.members)
            self.register_buffer(name, divisor, persistent=False)

    @abstractmethod
    def messages(
        self,
        part: EdgePart | Relation,
        e: Float[Tensor, "B _ _ _"],
        weight: Float[Tensor, "K K"],
        ends: Projections,
        keep: bool,
    ) -> tuple[Float[Tensor, "B _ _ _"], Float[Tensor, "B K W D"], Float[Tensor, "B K R D"]]:
        """Messages along one part of the edges, summed or averaged at both ends.

        Args:
            part: The part.
            e: Its edge features.
            weight: The map `E` of edge features.
            ends: What both ends bring.
            keep: Whether new edge features are wanted.

        Returns:
            New edge features, and what arrives at the written and at the read end.
        """

    def run_layer(
        self,
        layer: MessageLayer,
        x: Float[Tensor, "B V H"],
        e: list[Float[Tensor, "B _ _ _"]],
        last: bool,
    ) -> Float[Tensor, "B V H"]:
        """One round of messages."""
        of_nodes = Projections(*(values.transpose(1, 2) for values in layer.projections(x)))
        received, sent = self.exchange(
            e,
            lambda place, edges: self.messages(
                self.graph.edges[place],
                edges,
                layer.edge.weight,
                ends_of(of_nodes, *self.nodes_of(place)),
                not last,
            ),
        )
        forward = self.mean(of_nodes.forward, received, self.num_received)
        backward = self.mean(of_nodes.forward, sent, self.num_sent)
        return layer.update(x, forward, backward)

    def mean(
        self,
        like: Float[Tensor, "B K V D"],
        inboxes: Sequence[list[Tensor]],
        count: Float[Tensor, "V 1"],
    ) -> Float[Tensor, "B V K D"]:
        """Means of the messages of all nodes.

        Args:
            like: Zeros for nodes without messages are of its type.
            inboxes: For each node set, its messages part by part, `[B, K, nodes, D]`.
            count: What the sum of each node's messages is divided by.

        Returns:
            The means.
        """
        totals = self.collect(inboxes, lambda _, messages: reduce(torch.add, messages), like)
        return (totals / count).transpose(1, 2)


def degrees(graph: ParameterGraph) -> tuple[Int64[Tensor, " V"], Int64[Tensor, " V"]]:
    """Numbers of edges that leave each node, and that arrive."""
    sent, received = (torch.zeros(len(graph.orbit), dtype=torch.int64) for _ in range(2))
    for part in graph.edges:
        sent[graph.node_sets[part.read].nodes] += part.shape[0]
        received[graph.node_sets[part.written].nodes] += part.shape[1]
    return sent, received


class DenseGraph(MessageRunner):
    """Messages are averaged over all edges of a node; equals `metanet.layers.sparse.run`."""

    def __init__(self, graph: ParameterGraph):
        """Prepare.

        Args:
            graph: Topology of all networks.
        """
        sent, received = degrees(graph)
        super().__init__(graph, num_received=received, num_sent=sent)

    def messages(
        self,
        part: EdgePart | Relation,  # noqa: ARG002, all parts are alike
        e: Float[Tensor, "B K W R"],
        weight: Float[Tensor, "K K"],
        ends: Projections,
        keep: bool,
    ) -> tuple[Float[Tensor, "B K W R"], Float[Tensor, "B K W D"], Float[Tensor, "B K R D"]]:
        """Messages along one part of the edges, summed at both ends."""
        return edge_messages(e, weight, ends, keep)


def ends_of(of_nodes: Projections, written: slice, read: slice) -> Projections:
    """What both ends bring: `[B, K, W]`, `[B, K, R]`, `[B, K, R, D]`, `[B, K, W, D]`."""
    return Projections(
        written=of_nodes.written[:, :, written],
        read=of_nodes.read[:, :, read],
        forward=of_nodes.forward[:, :, read],
        backward=of_nodes.backward[:, :, written],
    )
