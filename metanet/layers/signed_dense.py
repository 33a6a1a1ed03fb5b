"""Message passing with signs for networks of one weight space, on dense arrays."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from metanet.graphs.signs import Parity, parity, parity_of_channels, signed_nodes
from metanet.graphs.topology import ParameterGraph
from metanet.layers.autograd import differentiable_once
from metanet.layers.dense import DenseGraph, Edges, chunks, edge_messages, ends_of
from metanet.layers.message_passing import Projections
from metanet.layers.signed import SignedGraphNetwork


class Messages(NamedTuple):
    """Sums over the edges of one part.

    Attributes:
        even: `[B, K, nodes, 1 + H / K]`.
        odd: `[B, K, nodes, H / K]`, None if there are none.
    """

    even: Tensor
    odd: Tensor | None


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
        even = torch.where(self.is_even, nodes, nodes.abs())
        odd = torch.where(self.is_odd, nodes, 0.0)
        x = network.even.node_encoder(even, self.dense.orbit)
        z = network.encode_odd(odd, self.dense.orbit, self.signed)
        e = [self._encode(network, part, kind) for kind, part in enumerate(edges)]
        last = len(network.odd_layers) - 1
        for index, (layer, odd_layer) in enumerate(network.rounds()):
            projections, messages = layer.projections(x), odd_layer.messages(z)
            values = Values(*(value.transpose(1, 2) for value in (*projections, *messages)))
            at_written, at_read = _Inboxes.of(self.dense), _Inboxes.of(self.dense)
            for kind, part in enumerate(self.graph.edges):
                shift = network.even.edge_encoder.shift[kind]
                e[kind], received, returned = self._messages(
                    kind, layer.edge.weight, shift, e[kind], values, index < last
                )
                at_written.add(part.written, received)
                at_read.add(part.read, returned)
            forward, odd_forward = self._means(values, at_written, self.dense.num_received)
            backward, odd_backward = self._means(values, at_read, self.dense.num_sent)
            all_odd = odd_layer.all_odd(z, odd_forward, odd_backward)
            x = layer.update(x + odd_layer.invariant(all_odd), forward, backward)
            z = odd_layer.update(z, all_odd, x, self.signed)
        return x, z

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
        written, read = self.dense.nodes_of(self.graph.edges[kind])
        ends = ends_of(Projections(*values[:4]), written, read)
        if self.parities[kind] not in FLIPS:
            e, received, returned = edge_messages(e, weight, ends, keep)
            return e, Messages(received, None), Messages(returned, None)
        flips_written, flips_read = FLIPS[self.parities[kind]]
        odd_forward, odd_backward = ends.forward[..., 1:], ends.backward[..., 1:]
        if flips_read:
            odd_forward = values.odd_forward[:, :, read]
        if flips_written:
            odd_backward = values.odd_backward[:, :, written]
        shifted = Projections(
            ends.written + shift[:, None],
            ends.read,
            torch.cat([ends.forward, odd_forward], dim=-1),
            torch.cat([ends.backward, odd_backward], dim=-1),
        )
        e, at_written, at_read = odd_edge_messages(e, weight, shifted, keep)
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


def odd_edge_messages(
    e: Float[Tensor, "B K W R"], weight: Float[Tensor, "K K"], ends: Projections, keep: bool
) -> tuple[Float[Tensor, "B K W R"], Messages, Messages]:
    """Messages along edges of one part that may flip, summed at both ends.

        a+, a- = relu(+-E e + written + read)
        even: (a+ + a-) / 2 @ forward    odd: (a+ - a-) / 2 @ forward

    Args:
        e: Edge features `[B, K, W, R]`.
        weight: E.
        ends: What both ends bring; of the `1 + 2 H / K` values that they send, the last `H / K` go
            with `a+ - a-`.
        keep: Whether new edge features are wanted.

    Returns:
        New edge features `e + (a+ - a-) / 2` (the old ones if they are not wanted), sums at the
        written and at the read end.
    """
    others = [value.to(e).contiguous() for value in (weight, *ends)]
    new, at_written, at_read = _OddEdgeMessages.apply(e.contiguous(), *others, keep)
    width = _num_even(ends.forward)
    received, returned = (
        Messages(sums[..., :width], sums[..., width:]) for sums in (at_written, at_read)
    )
    return new if keep else e, received, returned


class _OddEdgeMessages(torch.autograd.Function):
    """Goes network by network and keeps its inputs alone, as `edge_messages` does."""

    @staticmethod
    def forward(ctx: Any, e: Tensor, weight: Tensor, *rest: Any) -> tuple[Tensor | None, ...]:
        *ends, keep = rest
        edges = Edges(e, *ends)
        ctx.save_for_backward(weight, *edges)
        ctx.set_materialize_grads(False)
        new = torch.empty_like(e) if keep else None
        received, returned = torch.empty_like(edges.backward), torch.empty_like(edges.forward)
        for networks in chunks(e):
            some = edges.of(networks)
            activations = _halves(*_pair(some, weight))
            if new is not None:
                torch.add(some.e, activations.odd, out=new[networks])
            received[networks] = activations.times(some.forward)
            returned[networks] = activations.transposed().times(some.backward)
        return new, received, returned

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, *grad_outputs: Tensor | None) -> tuple[Tensor | None, ...]:
        weight, *saved = ctx.saved_tensors
        edges = Edges(*saved)
        of_new, received, returned = grad_outputs
        received = torch.zeros_like(edges.backward) if received is None else received
        returned = torch.zeros_like(edges.forward) if returned is None else returned
        gradients, of_weight = edges.empty_like(), torch.zeros_like(weight)
        for networks in chunks(edges.e):
            some, into = edges.of(networks), gradients.of(networks)
            to_written, to_read = received[networks], returned[networks]
            plus, minus = _pair(some, weight)
            of_halves = _gradient_of_halves(some, to_written, to_read)
            if of_new is not None:
                of_halves.odd.add_(of_new[networks])
            up, down = _gradient_of_pair(of_halves, plus, minus)
            activations = _halves(plus, minus)
            into.forward.copy_(activations.transposed().times(to_written))
            into.backward.copy_(activations.times(to_read))
            flat = (up - down).flatten(2)
            of_weight += torch.bmm(flat, some.e.flatten(2).mT).sum(0)
            torch.bmm(weight.T.expand(len(flat), -1, -1), flat, out=into.e.flatten(2))
            total = up.add_(down)
            torch.sum(total, 3, out=into.written)
            torch.sum(total, 2, out=into.read)
        of_e, *of_ends = gradients
        return of_e if of_new is None else of_e.add_(of_new), of_weight, *of_ends, None


class _Halves(NamedTuple):
    """Even and odd part of the activations: `(a+ + a-) / 2` and `(a+ - a-) / 2`, `[B, K, W, R]`."""

    even: Tensor
    odd: Tensor

    def transposed(self) -> "_Halves":
        """The same from the other end."""
        return _Halves(self.even.mT, self.odd.mT)

    def times(self, values: Tensor) -> Tensor:
        """Products of the even part with the first channels, of the odd part with the last."""
        width = _num_even(values)
        return torch.cat([self.even @ values[..., :width], self.odd @ values[..., width:]], dim=-1)


def _num_even(values: Tensor) -> int:
    """Of `1 + 2 H / K` channels, how many go with the even part of the activations."""
    return (values.shape[-1] + 1) // 2


def _pair(edges: Edges, weight: Tensor) -> tuple[Tensor, Tensor]:
    """`a+, a- = relu(+-E e + written + read)`."""
    odd = torch.bmm(weight.expand(len(edges.e), -1, -1), edges.e.flatten(2)).view_as(edges.e)
    even = edges.written[..., None] + edges.read[..., None, :]
    return (even + odd).relu_(), even.sub_(odd).relu_()


def _halves(plus: Tensor, minus: Tensor) -> _Halves:
    """Even and odd part of a pair of activations; overwrites the first."""
    return _Halves((plus + minus).div_(2), plus.sub_(minus).div_(2))


def _gradient_of_halves(edges: Edges, to_written: Tensor, to_read: Tensor) -> _Halves:
    """Gradients of even and odd part: one product each, of both ends' factors side by side."""
    width = _num_even(to_written)
    gradients = []
    for channels in (slice(None, width), slice(width, None)):
        left = torch.cat([to_written[..., channels], edges.backward[..., channels]], dim=-1)
        right = torch.cat([edges.forward[..., channels], to_read[..., channels]], dim=-1)
        gradients.append(left @ right.mT)
    return _Halves(*gradients)


def _gradient_of_pair(halves: _Halves, plus: Tensor, minus: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients before the ReLUs of `a+` and `a-`; overwrites that of the even part."""
    threshold = torch.ops.aten.threshold_backward
    up = threshold(halves.even + halves.odd, plus, 0.0).div_(2)
    down = threshold(halves.even.sub_(halves.odd), minus, 0.0).div_(2)
    return up, down
