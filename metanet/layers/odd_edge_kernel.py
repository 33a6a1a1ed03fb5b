"""Messages along edges that flip with signs; the derivative holds no edges but its inputs."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from metanet.layers.autograd import into_edges, into_ends, outer_sum
from metanet.layers.edge_kernel import Edges, Messages, run
from metanet.layers.message_passing import Projections


def odd_edge_messages(
    e: Float[Tensor, "B K W R"], weight: Float[Tensor, "K K"], ends: Projections, keep: bool
) -> tuple[Float[Tensor, "B K W R"], Float[Tensor, "B K W D"], Float[Tensor, "B K R D"]]:
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
        written and at the read end: `1 + H / K` even channels, then `H / K` odd ones.
    """
    return run(_Odd(), e, weight, ends, keep)


class _Odd:
    """The kernel of `odd_edge_messages`."""

    def messages(self, edges: Edges, weight: Tensor) -> Messages:
        halves = _halves(*_pair(edges, weight))
        received, sent = halves.times(edges.forward), halves.transposed().times(edges.backward)
        return Messages(halves.odd, received, sent)

    def gradients(self, edges: Edges, weight: Tensor, of: Messages, into: Edges) -> Tensor:
        plus, minus = _pair(edges, weight)
        up, down = _gradient_of_pair(_gradient_of_halves(edges, of), plus, minus)
        halves = _halves(plus, minus)
        into.forward.copy_(halves.transposed().times(of.received))
        into.backward.copy_(halves.times(of.sent))
        delta = up - down
        into_edges(into.e, weight, delta)
        if of.change is not None:
            into.e.add_(of.change)
        into_ends(up.add_(down), into.written, into.read)
        return torch.bmm(delta.flatten(2), edges.e.flatten(2).mT).sum(0)


class _Halves(NamedTuple):
    """Even and odd part of the activations: `(a+ + a-) / 2` and `(a+ - a-) / 2`, `[B, K, W, R]`."""

    even: Tensor
    odd: Tensor

    def transposed(self) -> "_Halves":
        """The same from the other end."""
        return _Halves(self.even.mT, self.odd.mT)

    def times(self, values: Tensor) -> Tensor:
        """Products of the even part with the first channels, of the odd part with the last."""
        even, odd = even_and_odd(values)
        return torch.cat([self.even @ even, self.odd @ odd], dim=-1)


def even_and_odd(values: Float[Tensor, "*batch D"]) -> tuple[Tensor, ...]:
    """The `1 + H / K` channels that go with the even part of activations, and the others."""
    return values.tensor_split([(values.shape[-1] + 1) // 2], dim=-1)


def _pair(edges: Edges, weight: Tensor) -> tuple[Tensor, Tensor]:
    """`a+, a- = relu(+-E e + written + read)`."""
    odd = torch.bmm(weight.expand(len(edges.e), -1, -1), edges.e.flatten(2)).view_as(edges.e)
    even = outer_sum(edges.written, edges.read)
    return (even + odd).relu_(), even.sub_(odd).relu_()


def _halves(plus: Tensor, minus: Tensor) -> _Halves:
    """Even and odd part of a pair of activations; overwrites the first."""
    return _Halves((plus + minus).div_(2), plus.sub_(minus).div_(2))


def _gradient_of_halves(edges: Edges, of: Messages) -> _Halves:
    """Gradients of even and odd part: one product each, of both ends' factors side by side."""
    values = of.received, edges.backward, edges.forward, of.sent
    halves = _Halves(
        *(
            torch.cat([received, backward], dim=-1) @ torch.cat([forward, sent], dim=-1).mT
            for received, backward, forward, sent in zip(*map(even_and_odd, values), strict=True)
        )
    )
    if of.change is not None:
        halves.odd.add_(of.change)
    return halves


def _gradient_of_pair(halves: _Halves, plus: Tensor, minus: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients before the ReLUs of `a+` and `a-`; overwrites that of the even part."""
    threshold = torch.ops.aten.threshold_backward
    up = threshold(halves.even + halves.odd, plus, 0.0).div_(2)
    down = threshold(halves.even.sub_(halves.odd), minus, 0.0).div_(2)
    return up, down
