"""One linear map and an activation for all entries of a tensor, with sums over rows and columns.

Entries are what takes memory: `pointwise` goes through them network by network, in a core's cache.
"""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from metanet.layers.autograd import (
    chunks,
    differentiable_once,
    gradients_of_map,
    into_ends,
    mapped,
    of_networks,
    or_zeros,
    outer_sum,
)


def pointwise(
    e: Float[Tensor, "B K W R"],
    weight: Float[Tensor, "C K"],
    row: Float[Tensor, "B C W"],
    column: Float[Tensor, "B C R"],
    slope: float,
    keep: bool,
) -> tuple[Float[Tensor, "B _ W R"], Float[Tensor, "B C W"], Float[Tensor, "B C R"]]:
    """One linear map for all entries of a part, and its sums.

        a = act(M e + row + column)      sum of a over R      sum of a over W

    Args:
        e: Features of entries.
        weight: M.
        row: What all entries of a row receive.
        column: What all entries of a column receive.
        slope: Of the activation below zero.
        keep: Whether a itself is wanted.

    Returns:
        a (the old features if it is not wanted), its sums over R and over W. All are of the type of
        `e`, which under autocast may be another than that of the rest.
    """
    a, rows, columns = _Pointwise.apply(weight.to(e), e, row.to(e), column.to(e), slope, keep)
    return a if keep else e, rows, columns


class _Part(NamedTuple):
    """Entries, and what belongs to their rows and columns.

    Attributes:
        e: `[B, channels, W, R]`; None for a gradient that nobody gives or wants.
        row: `[B, C, W]`.
        column: `[B, C, R]`.
    """

    e: Any
    row: Tensor
    column: Tensor


class _Pointwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor | None, ...]:
        weight, e, row, column, ctx.slope, keep = arguments
        ctx.set_materialize_grads(False)
        part, ctx.slices = _Part(e, row, column), _slices(e, weight)
        a = _room(e, weight, len(e) if keep else ctx.slices[0].stop)
        rows, columns = torch.empty_like(row), torch.empty_like(column)
        for networks in ctx.slices:
            room = a[networks] if keep else a
            some = _activations(of_networks(part, networks), weight, ctx.slope, room)
            into_ends(some, rows[networks], columns[networks])
        ctx.save_for_backward(weight, *part, *[a] * keep)
        return a if keep else None, rows, columns

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, *grad_outputs: Tensor | None) -> tuple[Tensor | None, ...]:
        weight, e, row, column, *kept = ctx.saved_tensors
        part = _Part(e, row, column)
        of_a, of_rows, of_columns = grad_outputs
        of_sums = _Part(of_a, or_zeros(of_rows, row), or_zeros(of_columns, column))
        of_e = torch.empty_like(e) if ctx.needs_input_grad[1] else None
        gradients = _Part(of_e, torch.empty_like(row), torch.empty_like(column))
        room, again = (_room(e, weight, ctx.slices[0].stop) for _ in range(2))
        total = torch.zeros_like(weight)
        for networks in ctx.slices:
            some = of_networks(part, networks)
            a = kept[0][networks] if kept else _activations(some, weight, ctx.slope, again)
            delta = _before_activation(of_networks(of_sums, networks), a, ctx.slope, room)
            total += gradients_of_map(delta, some.e, weight, of_networks(gradients, networks))
        return total, *gradients, None, None


def _before_activation(of_sums: _Part, a: Tensor, slope: float, room: Tensor) -> Tensor:
    """The gradient before the activation of some networks, written into the first of the room."""
    delta = outer_sum(of_sums.row, of_sums.column, room[: len(a)])
    if of_sums.e is not None:
        delta.add_(of_sums.e)
    backward = torch.ops.aten.leaky_relu_backward
    return backward.grad_input(delta, a, slope, True, grad_input=delta)


def _activations(part: _Part, weight: Tensor, slope: float, room: Tensor) -> Tensor:
    """`act(M e + row + column)`, written into the first networks of the room."""
    a = mapped(part.e, weight, part.row, part.column, room[: len(part.e)])
    return nn.functional.leaky_relu_(a, slope)


def _room(e: Tensor, weight: Tensor, count: int) -> Tensor:
    """Room for activations, used again chunk by chunk: fresh memory costs more than arithmetic."""
    return e.new_empty(count, len(weight), *e.shape[2:])


def _slices(e: Tensor, weight: Tensor) -> list[slice]:
    return chunks(e, e[0, 0].numel() * max(weight.shape))
