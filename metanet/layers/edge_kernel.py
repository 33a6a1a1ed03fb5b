"""Messages along dense edges `[B, K, W, R]`, with a derivative that holds no edges but its inputs.

Edges are what takes time and memory. `edge_messages` goes through them network by network, so that
a network's edges stay in a core's cache, and keeps only its inputs for the backward pass.
"""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from metanet.layers.autograd import differentiable_once
from metanet.layers.message_passing import Projections

CHUNK_FLOATS = 2**17
"""Edge channels of a chunk: half a megabyte of float32, so that the arrays at work fit a cache."""


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
        of_sums = _Sums(edges, received, sent)
        gradients, of_weight = edges.empty_like(), torch.zeros_like(weight)
        for networks in chunks(edges.e):
            some, into = edges.of(networks), gradients.of(networks)
            kept = None if of_new is None else of_new[networks]
            a = some.activations(weight)
            delta = _before_relu(of_sums.through(networks).view_as(a), kept, a)
            of_weight += torch.bmm(delta.flatten(2), some.e.flatten(2).mT).sum(0)
            _into_edges(into.e, weight, delta, kept)
            _into_ends(into, a, delta, of_sums.received[networks], of_sums.sent[networks])
        of_e, *of_ends = gradients
        return of_e, of_weight, *of_ends, None


def _before_relu(delta: Tensor, kept: Tensor | None, a: Tensor) -> Tensor:
    """The gradient before the ReLU of activations a; overwrites that after it."""
    if kept is not None:
        delta.add_(kept)
    return torch.ops.aten.threshold_backward(delta, a, 0.0)


class _Sums:
    """Gradients of the sums at both ends, and what they say of the activations."""

    def __init__(self, edges: Edges, received: Tensor | None, sent: Tensor | None):
        self.received = torch.zeros_like(edges.backward) if received is None else received
        self.sent = torch.zeros_like(edges.forward) if sent is None else sent
        # d a = received forward^T + backward sent^T, one product of two factors side by side.
        self.left = torch.cat([self.received, edges.backward], dim=-1)
        self.right = torch.cat([edges.forward, self.sent], dim=-1)

    def through(self, networks: slice) -> Tensor:
        """The gradient of the activations of some networks, `[B K, W, R]`."""
        left, right = self.left[networks].flatten(0, 1), self.right[networks].flatten(0, 1)
        return torch.bmm(left, right.mT)


def _into_edges(into: Tensor, weight: Tensor, delta: Tensor, kept: Tensor | None) -> None:
    """Write the gradient of edge features: `E^T delta`, and that of `e + a` with respect to `e`."""
    back, flat = weight.T.expand(len(delta), -1, -1), delta.flatten(2)
    if kept is None:
        torch.bmm(back, flat, out=into.flatten(2))
    else:
        torch.baddbmm(kept.flatten(2), back, flat, out=into.flatten(2))


def _into_ends(into: Edges, a: Tensor, delta: Tensor, received: Tensor, sent: Tensor) -> None:
    """Write the gradients of what both ends bring."""
    torch.sum(delta, 3, out=into.written)
    torch.sum(delta, 2, out=into.read)
    matrices = a.flatten(0, 1)
    torch.bmm(matrices.mT, received.flatten(0, 1), out=into.forward.flatten(0, 1))
    torch.bmm(matrices, sent.flatten(0, 1), out=into.backward.flatten(0, 1))


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
