"""Message passing for networks of one weight space: edges are dense arrays `[B, K, W, R]`.

Nothing is gathered. Edges are what takes time and memory. `edge_messages` goes through them network by network, so that
a network's edges stay in a core's cache, and keeps only its inputs for the backward pass.
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from metanet.graphs.topology import EdgePart, ParameterGraph, Relation
from metanet.layers.autograd import differentiable_once
from metanet.layers.message_passing import MessageLayer, Projections
from metanet.layers.runner import Runner

CHUNK_FLOATS = 2**17
"""Edge channels of a chunk: half a megabyte of float32, so that the arrays at work fit a cache."""


class MessageRunner(Runner):
    """Runs a `GraphNetwork` of `MessageLayer`s; messages, and their averages, vary."""

    num_received: Tensor
    num_sent: Tensor

    def __init__(
        self,
        graph: ParameterGraph,
        num_received: Float[Tensor, " V"],
        num_sent: Float[Tensor, " V"],
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
        received, sent = self.inboxes(), self.inboxes()
        for index, part in enumerate(self.graph.edges):
            ends = ends_of(of_nodes, *self.nodes_of(part))
            e[index], forward, backward = self.messages(
                part, e[index], layer.edge.weight, ends, not last
            )
            received[part.written].append(forward)
            sent[part.read].append(backward)
        forward = self.mean(of_nodes.forward, received, self.num_received)
        backward = self.mean(of_nodes.forward, sent, self.num_sent)
        return layer.update(x, forward, backward)

    def mean(
        self,
        like: Float[Tensor, "B K V D"],
        inboxes: Sequence[Sequence[Tensor]],
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
        totals = []
        for node_set, messages in zip(self.graph.node_sets, inboxes, strict=True):
            if messages:
                totals.append(sum(messages[1:], messages[0]))
            else:
                totals.append(torch.zeros_like(like[:, :, node_set.nodes]))
        return (torch.cat(totals, dim=2) / count).transpose(1, 2)


class DenseGraph(MessageRunner):
    """Messages are averaged over all edges of a node; equals `metanet.layers.sparse.run`."""

    def __init__(self, graph: ParameterGraph):
        """Prepare.

        Args:
            graph: Topology of all networks.
        """
        read, written = (end.bincount(minlength=len(graph.orbit)) for end in graph.edge_index)
        super().__init__(graph, num_received=written, num_sent=read)

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


def edge_messages(
    e: Float[Tensor, "B K W R"], weight: Float[Tensor, "K K"], ends: Projections, keep: bool
) -> tuple[Float[Tensor, "B K W R"], Float[Tensor, "B K W D"], Float[Tensor, "B K R D"]]:
    """Messages along the edges of one part, summed at both ends.

        a = relu(E e + written + read)      a @ forward, over R      a^T @ backward, over W

    Args:
        e: Edge features `[B, K, W, R]`.
        weight: E.
        ends: What both ends bring.
        keep: Whether new edge features are wanted.

    Returns:
        New edge features `e + a` (the old ones if they are not wanted), sums at the written and at
        the read end. All are of the type of `e`, which under autocast may be another than that of
        the rest.
    """
    others = [value.to(e).contiguous() for value in (weight, *ends)]
    new, received, sent = _EdgeMessages.apply(e.contiguous(), *others, keep)
    return new if keep else e, received, sent


class Edges(NamedTuple):
    """Edges of one part and what their ends bring, or the gradients of these.

    Attributes:
        e: Features of the edges `[B, K, W, R]`.
        written: `[B, K, W]`.
        read: `[B, K, R]`.
        forward: `[B, K, R, D]`.
        backward: `[B, K, W, D]`.
    """

    e: Tensor
    written: Tensor
    read: Tensor
    forward: Tensor
    backward: Tensor

    def of(self, networks: slice) -> "Edges":
        """Those of some networks."""
        return Edges(*(values[networks] for values in self))

    def empty_like(self) -> "Edges":
        """Tensors of the same shapes, to be written."""
        return Edges(*(torch.empty_like(values) for values in self))

    def activations(self, weight: Float[Tensor, "K K"]) -> Float[Tensor, "B K W R"]:
        """`relu(E e + written + read)`."""
        a = self.written[..., None] + self.read[..., None, :]
        a.flatten(2).baddbmm_(weight.expand(len(self.e), -1, -1), self.e.flatten(2))
        return a.relu_()


class _EdgeMessages(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, e: Tensor, weight: Tensor, *rest: Any) -> tuple[Tensor | None, ...]:
        *ends, keep = rest
        edges = Edges(e, *ends)
        ctx.save_for_backward(weight, *edges)
        ctx.set_materialize_grads(False)
        new = torch.empty_like(e) if keep else None
        received, sent = torch.empty_like(edges.backward), torch.empty_like(edges.forward)
        for networks in chunks(e):
            some = edges.of(networks)
            a = some.activations(weight)
            if new is not None:
                torch.add(some.e, a, out=new[networks])
            matrices = a.flatten(0, 1)
            torch.bmm(matrices, some.forward.flatten(0, 1), out=received[networks].flatten(0, 1))
            torch.bmm(matrices.mT, some.backward.flatten(0, 1), out=sent[networks].flatten(0, 1))
        return new, received, sent

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, *grad_outputs: Tensor | None) -> tuple[Tensor | None, ...]:
        weight, *saved = ctx.saved_tensors
        edges = Edges(*saved)
        of_new, received, sent = grad_outputs
        received = torch.zeros_like(edges.backward) if received is None else received
        sent = torch.zeros_like(edges.forward) if sent is None else sent
        # d a = received forward^T + backward sent^T, one product of two factors side by side.
        left = torch.cat([received, edges.backward], dim=-1).flatten(0, 1)
        right = torch.cat([edges.forward, sent], dim=-1).flatten(0, 1)
        channels = len(weight)
        gradients, of_weight = edges.empty_like(), torch.zeros_like(weight)
        for networks in chunks(edges.e):
            some, into = edges.of(networks), gradients.of(networks)
            a = some.activations(weight)
            rows = slice(networks.start * channels, networks.stop * channels)
            delta = torch.bmm(left[rows], right[rows].mT).view_as(a)
            kept = None if of_new is None else of_new[networks]
            if kept is not None:
                delta.add_(kept)
            delta = torch.ops.aten.threshold_backward(delta, a, 0.0)
            of_weight += torch.bmm(delta.flatten(2), some.e.flatten(2).mT).sum(0)
            _into_edges(into.e, weight, delta, kept)
            torch.sum(delta, 3, out=into.written)
            torch.sum(delta, 2, out=into.read)
            matrices, to_written, to_read = (
                values.flatten(0, 1) for values in (a, received[networks], sent[networks])
            )
            torch.bmm(matrices.mT, to_written, out=into.forward.flatten(0, 1))
            torch.bmm(matrices, to_read, out=into.backward.flatten(0, 1))
        of_e, *of_ends = gradients
        return of_e, of_weight, *of_ends, None


def _into_edges(into: Tensor, weight: Tensor, delta: Tensor, kept: Tensor | None) -> None:
    """Write the gradient of edge features: `E^T delta`, and that of `e + a` with respect to `e`."""
    back, flat = weight.T.expand(len(delta), -1, -1), delta.flatten(2)
    if kept is None:
        torch.bmm(back, flat, out=into.flatten(2))
    else:
        torch.baddbmm(kept.flatten(2), back, flat, out=into.flatten(2))


def chunks(e: Float[Tensor, "B K W R"]) -> list[slice]:
    """Networks to go through at a time, so that their edges stay in the processor's cache.

    Args:
        e: Edge features.

    Returns:
        Slices of B.
    """
    budget = CHUNK_FLOATS if e.device.type == "cpu" else 256 * CHUNK_FLOATS
    size = max(1, budget // max(1, e[0].numel()))
    return [slice(start, start + size) for start in range(0, len(e), size)]
