"""Messages along edges that flip with signs; the derivative holds no edges but its inputs."""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from metanet.layers.autograd import differentiable_once
from metanet.layers.edge_kernel import Edges, chunks
from metanet.layers.message_passing import Projections


class Messages(NamedTuple):
    """Sums over the edges of one part.

    Attributes:
        even: `[B, K, nodes, 1 + H / K]`.
        odd: `[B, K, nodes, H / K]`, None if there are none.
    """

    even: Tensor
    odd: Tensor | None


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
        received, returned = _or_zeros(received, edges.backward), _or_zeros(returned, edges.forward)
        gradients, of_weight = edges.empty_like(), torch.zeros_like(weight)
        for networks in chunks(edges.e):
            some, into = edges.of(networks), gradients.of(networks)
            to_written, to_read = received[networks], returned[networks]
            plus, minus = _pair(some, weight)
            kept = None if of_new is None else of_new[networks]
            of_halves = _gradient_of_halves(some, to_written, to_read, kept)
            up, down = _gradient_of_pair(of_halves, plus, minus)
            _into_values(into, _halves(plus, minus), to_written, to_read)
            of_weight += _into_edges_and_ends(some, into, weight, up, down)
        of_e, *of_ends = gradients
        return of_e if of_new is None else of_e.add_(of_new), of_weight, *of_ends, None


def _into_values(into: Edges, activations: "_Halves", to_written: Tensor, to_read: Tensor) -> None:
    """Write the gradients of what both ends send."""
    into.forward.copy_(activations.transposed().times(to_written))
    into.backward.copy_(activations.times(to_read))


def _into_edges_and_ends(
    edges: Edges, into: Edges, weight: Tensor, up: Tensor, down: Tensor
) -> Tensor:
    """Write the gradients of edge features and both ends' offsets; return that of the weight."""
    flat = (up - down).flatten(2)
    torch.bmm(weight.T.expand(len(flat), -1, -1), flat, out=into.e.flatten(2))
    total = up.add_(down)
    torch.sum(total, 3, out=into.written)
    torch.sum(total, 2, out=into.read)
    return torch.bmm(flat, edges.e.flatten(2).mT).sum(0)


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


def _gradient_of_halves(
    edges: Edges, to_written: Tensor, to_read: Tensor, kept: Tensor | None
) -> _Halves:
    """Gradients of even and odd part: one product each, of both ends' factors side by side."""
    width = _num_even(to_written)
    gradients = []
    for channels in (slice(None, width), slice(width, None)):
        left = torch.cat([to_written[..., channels], edges.backward[..., channels]], dim=-1)
        right = torch.cat([edges.forward[..., channels], to_read[..., channels]], dim=-1)
        gradients.append(left @ right.mT)
    if kept is not None:
        gradients[1].add_(kept)
    return _Halves(*gradients)


def _or_zeros(gradient: Tensor | None, like: Tensor) -> Tensor:
    return torch.zeros_like(like) if gradient is None else gradient


def _gradient_of_pair(halves: _Halves, plus: Tensor, minus: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients before the ReLUs of `a+` and `a-`; overwrites that of the even part."""
    threshold = torch.ops.aten.threshold_backward
    up = threshold(halves.even + halves.odd, plus, 0.0).div_(2)
    down = threshold(halves.even.sub_(halves.odd), minus, 0.0).div_(2)
    return up, down
