"""Message passing with signs for networks of one weight space, on dense arrays."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from metanet.graphs.signs import Parity, parity, parity_of_channels, signed_nodes
from metanet.graphs.topology import ParameterGraph
from metanet.layers.dense import DenseGraph, ends_of
from metanet.layers.edge_kernel import edge_messages
from metanet.layers.message_passing import Projections
from metanet.layers.odd_edge_kernel import Messages, odd_edge_messages
from metanet.layers.signed import SignedGraphNetwork


class Values(NamedTuple):
    """What all nodes bring to their edges: `Projections` of even channels, and what odd ones send.

    Attributes:
        written: `[B, K, V]`.
        read: `[B, K, V]`.
        forward: `[B, K, V, 1 + H / K]`.
        backward: `[B, K, V, 1 + H / K]`.
        odd_forward: `[B, K, V, H / K]`.
        odd_backward: `[B, K, V, H / K]`.
    """

    written: Tensor
    read: Tensor
    forward: Tensor
    backward: Tensor
    odd_forward: Tensor
    odd_backward: Tensor

    @classmethod
    def of(cls, even: Projections, odd: tuple[Tensor, Tensor]) -> "Values":
        """Channels before nodes."""
        return cls(*(value.transpose(1, 2) for value in (*even, *odd)))

    def at(self, written: slice, read: slice) -> "Values":
        """What both ends of one part of the edges bring."""
        even = ends_of(Projections(*self[:4]), written, read)
        return Values(*even, self.odd_forward[:, :, read], self.odd_backward[:, :, written])


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
    ) -> Float[Tensor, "B"]:
        """Raw predictions.

        Args:
            network: What was learned.
            nodes: Features of nodes.
            edges: Features of edges, part by part.

        Returns:
            One number a network.
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
            values = Values.of(layer.projections(x), odd_layer.messages(z))
            even, odd = self._exchanged(layer.edge.weight, shifts, e, values, index < last)
            all_odd = odd_layer.all_odd(z, *odd)
            x = layer.update(x + odd_layer.invariant(all_odd), *even)
            z = odd_layer.update(z, all_odd, x, self.signed)
        return x, z

    def _exchanged(
        self, weight: Tensor, shifts: Tensor, e: list[Tensor], values: Values, keep: bool
    ) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Means of the even and of the odd messages, forward and backward; replaces the edges."""
        at_written, at_read = _Inboxes.of(self.dense), _Inboxes.of(self.dense)
        for kind, part in enumerate(self.graph.edges):
            e[kind], received, returned = self._messages(
                kind, weight, shifts[kind], e[kind], values, keep
            )
            at_written.add(part.written, received)
            at_read.add(part.read, returned)
        forward, odd_forward = self._means(values, at_written, self.dense.num_received)
        backward, odd_backward = self._means(values, at_read, self.dense.num_sent)
        return (forward, backward), (odd_forward, odd_backward)

    def _encode(self, network: SignedGraphNetwork, part: Tensor, kind: int) -> Tensor:
        """Edges at the start; the shift of those that flip is added to what their nodes bring."""
        encoder = network.even.edge_encoder
        if self.parities[kind] not in FLIPS:
            return encoder.dense(part if self.parities[kind] == "even" else part.abs(), kind)
        weight = (encoder.weight[: part.shape[-1]] * (1 + encoder.scale[kind])).T
        linear = weight.expand(len(part), -1, -1) @ part.flatten(1, 2).mT
        return linear.unflatten(2, part.shape[1:3])

    def _messages(
        self, kind: int, weight: Tensor, shift: Tensor, e: Tensor, values: Values, keep: bool
    ) -> tuple[Tensor, Messages, Messages]:
        """New edges of one part, and messages at its written and at its read nodes."""
        ends = values.at(*self.dense.nodes_of(self.graph.edges[kind]))
        if self.parities[kind] not in FLIPS:
            e, received, returned = edge_messages(e, weight, Projections(*ends[:4]), keep)
            return e, Messages(received, None), Messages(returned, None)
        flips_written, flips_read = FLIPS[self.parities[kind]]
        odd_forward = ends.odd_forward if flips_read else ends.forward[..., 1:]
        odd_backward = ends.odd_backward if flips_written else ends.backward[..., 1:]
        with_odd = Projections(
            written=ends.written + shift[:, None],
            read=ends.read,
            forward=torch.cat([ends.forward, odd_forward], dim=-1),
            backward=torch.cat([ends.backward, odd_backward], dim=-1),
        )
        e, at_written, at_read = odd_edge_messages(e, weight, with_odd, keep)
        return e, _routed(at_written, flips_written), _routed(at_read, flips_read)

    def _means(self, values: Values, inboxes: "_Inboxes", count: Tensor) -> tuple[Tensor, Tensor]:
        """Means of the even and of the odd messages of all nodes."""
        even = self.dense.mean(values.forward, inboxes.even, count)
        odd = self.dense.mean(values.odd_forward, inboxes.odd, count)
        return even, odd


class _Inboxes(NamedTuple):
    """For each node set, the messages that arrive at its nodes, part by part."""

    even: list[list[Tensor]]
    odd: list[list[Tensor]]

    @classmethod
    def of(cls, dense: DenseGraph) -> "_Inboxes":
        """Empty ones."""
        return cls(dense.inboxes(), dense.inboxes())

    def add(self, node_set: int, messages: Messages) -> None:
        """Messages of one part arrive."""
        self.even[node_set].append(messages.even)
        if messages.odd is not None:
            self.odd[node_set].append(messages.odd)


def _routed(messages: Messages, odd: bool) -> Messages:
    """Messages as they are where edges flip with the signs of the nodes, else all as even ones."""
    if odd or messages.odd is None:
        return messages
    one, rest = messages.even[..., :1], messages.even[..., 1:]
    return Messages(torch.cat([one, rest + messages.odd], dim=-1), None)
