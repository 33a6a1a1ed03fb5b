"""Message passing with signs for networks of one weight space, on dense arrays."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from metanet.graphs.signs import Parity, parity, parity_of_channels, signed_nodes
from metanet.graphs.topology import ParameterGraph
from metanet.layers.dense import DenseGraph, ends_of
from metanet.layers.edge_kernel import edge_messages
from metanet.layers.message_passing import Projections
from metanet.layers.odd_edge_kernel import even_and_odd, odd_edge_messages
from metanet.layers.signed import SignedGraphNetwork

FLIPS: dict[Parity, tuple[bool, bool]] = {
    "odd": (True, True),
    "written": (True, False),
    "read": (False, True),
}
"""Whether edges flip with the signs of the written nodes, and of the read nodes."""


class SignedDenseGraph(nn.Module):
    """Runs a `SignedGraphNetwork` on networks of one weight space."""

    signed: Tensor
    is_even: Tensor
    is_odd: Tensor

    def __init__(self, graph: ParameterGraph):
        """Prepare.

        Args:
            graph: Topology of all networks.
        """
        super().__init__()
        self.graph, self.dense = graph, DenseGraph(graph)
        self.parities: list[Parity] = [parity(graph, part) for part in graph.edges]
        even, odd = parity_of_channels(graph)
        for name, mask in {"signed": signed_nodes(graph), "is_even": even, "is_odd": odd}.items():
            self.register_buffer(name, mask, persistent=False)

    def forward(
        self,
        network: SignedGraphNetwork,
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
        even = network.finish(*self.features(network, nodes, edges))
        return network.even.decode(self.dense.means(even))

    def features(
        self,
        network: SignedGraphNetwork,
        nodes: Float[Tensor, "B V C"],
        edges: Sequence[Float[Tensor, "B _ _ _"]],
    ) -> tuple[Float[Tensor, "B V H"], Float[Tensor, "B V H"]]:
        """Even and odd features of nodes after all layers; arguments as for `forward`."""
        orbit = self.dense.orbit
        x = network.even.node_encoder(torch.where(self.is_even, nodes, nodes.abs()), orbit)
        z = network.encode_odd(torch.where(self.is_odd, nodes, 0.0), orbit, self.signed)
        e = [self._encode(network, part, kind) for kind, part in enumerate(edges)]
        shifts = network.even.edge_encoder.shift
        last = len(network.odd_layers) - 1
        for index, (layer, odd_layer) in enumerate(network.rounds()):
            of_nodes = _joined(layer.projections(x), *odd_layer.messages(z))
            even, odd = self._exchanged(layer.edge.weight, shifts, e, of_nodes, index < last)
            all_odd = odd_layer.all_odd(z, *odd)
            x = layer.update(x + odd_layer.invariant(all_odd), *even)
            z = odd_layer.update(z, all_odd, x, self.signed)
        return x, z

    def _encode(self, network: SignedGraphNetwork, part: Tensor, kind: int) -> Tensor:
        """Edges at the start; the shift of those that flip is added to what their nodes bring."""
        encoder = network.even.edge_encoder
        if self.parities[kind] not in FLIPS:
            return encoder.dense(part if self.parities[kind] == "even" else part.abs(), kind)
        weight = encoder.map_of(part.shape[-1], kind).expand(len(part), -1, -1)
        return (weight @ part.flatten(1, 2).mT).unflatten(2, part.shape[1:3])

    def _exchanged(
        self, weight: Tensor, shifts: Tensor, e: list[Tensor], of_nodes: Projections, keep: bool
    ) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Means of even messages forward and backward, and of odd ones; replaces the edges."""
        received, sent = self.dense.exchange(
            e,
            lambda kind, edges: self._messages(
                kind,
                weight,
                shifts[kind],
                edges,
                ends_of(of_nodes, *self.dense.nodes_of(kind)),
                keep,
            ),
        )
        forward, odd_forward = self._means(of_nodes.forward, received, self.dense.num_received)
        backward, odd_backward = self._means(of_nodes.forward, sent, self.dense.num_sent)
        return (forward, backward), (odd_forward, odd_backward)

    def _messages(
        self, kind: int, weight: Tensor, shift: Tensor, e: Tensor, ends: Projections, keep: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """New edges of one part, and messages at both ends: even channels, then odd ones if any."""
        if self.parities[kind] not in FLIPS:
            (forward, _), (backward, _) = even_and_odd(ends.forward), even_and_odd(ends.backward)
            even = Projections(ends.written, ends.read, forward, backward)
            return edge_messages(e, weight, even, keep)
        flips_written, flips_read = FLIPS[self.parities[kind]]
        with_odd = Projections(
            written=ends.written + shift[:, None],
            read=ends.read,
            forward=ends.forward if flips_read else _even_twice(ends.forward),
            backward=ends.backward if flips_written else _even_twice(ends.backward),
        )
        e, at_written, at_read = odd_edge_messages(e, weight, with_odd, keep)
        return (
            e,
            at_written if flips_written else _all_even(at_written),
            at_read if flips_read else _all_even(at_read),
        )

    def _means(
        self, like: Tensor, inboxes: list[list[Tensor]], count: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Means of the even and of the odd messages of all nodes."""
        like_even, like_odd = even_and_odd(like)
        width = like_even.shape[-1]
        even = [[sums[..., :width] for sums in inbox] for inbox in inboxes]
        odd = [[sums[..., width:] for sums in inbox if sums.shape[-1] > width] for inbox in inboxes]
        return self.dense.mean(like_even, even, count), self.dense.mean(like_odd, odd, count)


def _joined(even: Projections, forward: Tensor, backward: Tensor) -> Projections:
    """What nodes bring to their edges, odd channels after even ones, all before the nodes."""
    both = even._replace(
        forward=torch.cat([even.forward, forward], dim=-1),
        backward=torch.cat([even.backward, backward], dim=-1),
    )
    return Projections(*(values.transpose(1, 2) for values in both))


def _even_twice(sent: Tensor) -> Tensor:
    """What nodes send that flips with no sign, in the place of odd channels."""
    even, _ = even_and_odd(sent)
    return torch.cat([even, even[..., 1:]], dim=-1)


def _all_even(sums: Tensor) -> Tensor:
    """Sums at nodes that edges do not flip with: all their channels are even."""
    even, odd = even_and_odd(sums)
    return torch.cat([even[..., :1], even[..., 1:] + odd], dim=-1)
