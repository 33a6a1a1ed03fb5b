"""Messages along dense edges `[B, K, W, R]`, with a derivative that holds no edges but its inputs.

`edge_messages` goes through the edges network by network, and keeps only its inputs for the
backward pass. `run` is what it shares with `metanet.layers.odd_edge_kernel`.
"""

from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from metanet.layers.autograd import (
    chunks,
    differentiable_once,
    gradients_of_map,
    mapped,
    of_networks,
    or_zeros,
)
from metanet.layers.message_passing import Projections


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
    return run(_Plain(), e, weight, ends, keep)


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


class Messages(NamedTuple):
    """What a kernel computes, or the gradients of it.

    Attributes:
        change: Of the edges, `[B, K, W, R]`; None for a gradient if it is not wanted.
        received: Sums at the written end, `[B, K, W, D]`.
        sent: Sums at the read end, `[B, K, R, D]`.
    """

    change: Tensor | None
    received: Tensor
    sent: Tensor


@runtime_checkable
class Kernel(Protocol):
    """What happens to edges, some networks at a time."""

    def messages(self, edges: Edges, weight: Tensor) -> Messages:
        """The change of the edges, and sums at both ends."""
        ...

    def gradients(self, edges: Edges, weight: Tensor, of: Messages, into: Edges) -> Tensor:
        """Write the gradients of edges and ends, from those of the messages; return the weight's.

        Edges are passed on beside their change: the gradient of the change is theirs, too.
        """
        ...


def run(
    kernel: Kernel, e: Float[Tensor, "B K W R"], weight: Tensor, ends: Projections, keep: bool
) -> tuple[Float[Tensor, "B K W R"], Float[Tensor, "B K W D"], Float[Tensor, "B K R D"]]:
    """Messages of a kernel; see `edge_messages`."""
    given = [value.to(e).contiguous() for value in (weight, e, *ends)]
    new, received, sent = _Run.apply(kernel, keep, *given)
    return new if keep else e, received, sent


class _Run(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor | None, ...]:
        ctx.kernel, keep, weight, *given = arguments
        edges = Edges(*given)
        ctx.save_for_backward(weight, *edges)
        ctx.set_materialize_grads(False)
        new = torch.empty_like(edges.e) if keep else None
        received, sent = torch.empty_like(edges.backward), torch.empty_like(edges.forward)
        for networks in chunks(edges.e, edges.e[0].numel()):
            some = of_networks(edges, networks)
            change, received[networks], sent[networks] = ctx.kernel.messages(some, weight)
            if new is not None:
                torch.add(some.e, change, out=new[networks])
        return new, received, sent

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, *grad_outputs: Tensor | None) -> tuple[Tensor | None, ...]:
        weight, *saved = ctx.saved_tensors
        edges = Edges(*saved)
        of_new, received, sent = grad_outputs
        of = Messages(of_new, or_zeros(received, edges.backward), or_zeros(sent, edges.forward))
        gradients, total = Edges(*map(torch.empty_like, edges)), torch.zeros_like(weight)
        for networks in chunks(edges.e, edges.e[0].numel()):
            some, of_some, into = (of_networks(all_, networks) for all_ in (edges, of, gradients))
            total += ctx.kernel.gradients(some, weight, of_some, into)
        return None, None, total, *gradients


class _Plain:
    """The kernel of `edge_messages`."""

    def messages(self, edges: Edges, weight: Tensor) -> Messages:
        a = _activations(edges, weight)
        return Messages(a, a @ edges.forward, a.mT @ edges.backward)

    def gradients(self, edges: Edges, weight: Tensor, of: Messages, into: Edges) -> Tensor:
        a = _activations(edges, weight)
        into.forward.copy_(a.mT @ of.received)
        into.backward.copy_(a @ of.sent)
        # d a = received forward^T + backward sent^T, one product of two factors side by side.
        left = torch.cat([of.received, edges.backward], dim=-1)
        right = torch.cat([edges.forward, of.sent], dim=-1)
        delta = left @ right.mT
        if of.change is not None:
            delta.add_(of.change)
        delta = torch.ops.aten.threshold_backward(delta, a, 0.0)
        return gradients_of_map(delta, edges.e, weight, into[:3], of.change)


def _activations(edges: Edges, weight: Tensor) -> Float[Tensor, "B K W R"]:
    """`relu(E e + written + read)`."""
    return mapped(edges.e, weight, edges.written, edges.read).relu_()
