"""One linear map and an activation for all entries of a tensor, with sums over rows and columns.

Entries are what takes memory: `pointwise` goes through them network by network, in a core's cache.
"""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from metanet.layers.autograd import differentiable_once

CHUNK_FLOATS = 2**17
"""Entries times channels of a chunk: half a megabyte of float32, so that it fits a core's cache."""


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
    others = [value.to(e) for value in (weight, row, column)]
    a, rows, columns = _Pointwise.apply(e, *others, slope, keep)
    return a if keep else e, rows, columns


class _Part(NamedTuple):
    """One part of the edges: features of entries, and what rows and columns receive."""

    e: Tensor
    row: Tensor
    column: Tensor

    def of(self, networks: slice) -> "_Part":
        """Those of some networks."""
        return _Part(self.e[networks], self.row[networks], self.column[networks])

    def empty_like(self) -> "_Part":
        """Tensors of the same shapes, to be written."""
        return _Part(*(torch.empty_like(value) for value in self))

    def activations(self, weight: Tensor, slope: float, out: Tensor) -> Tensor:
        """`act(M e + row + column)`, written into the first networks of `out`."""
        count = len(self.e)
        a = torch.add(self.row[..., None], self.column[..., None, :], out=out[:count])
        a.flatten(2).baddbmm_(weight.expand(count, -1, -1), self.e.flatten(2))
        return nn.functional.leaky_relu_(a, slope)


class _Pointwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor | None, ...]:
        e, weight, row, column, ctx.slope, keep = arguments
        ctx.set_materialize_grads(False)
        part, chunks = _Part(e, row, column), _chunks(e, weight)
        a = _empty(e, weight, len(e) if keep else chunks[0].stop)
        rows, columns = torch.empty_like(row), torch.empty_like(column)
        for networks in chunks:
            out = a[networks] if keep else a
            some = part.of(networks).activations(weight, ctx.slope, out)
            torch.sum(some, 3, out=rows[networks])
            torch.sum(some, 2, out=columns[networks])
        ctx.save_for_backward(weight, *part, *[a] * keep)
        return a if keep else None, rows, columns

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, *grad_outputs: Tensor | None) -> tuple[Tensor | None, ...]:
        weight, *saved = ctx.saved_tensors
        part, kept = _Part(*saved[:3]), saved[3:]
        of_sums = _Sums(part, *grad_outputs)
        gradients = part.empty_like()
        of_weight = torch.zeros_like(weight)
        chunks = _chunks(part.e, weight)
        buffer = _empty(part.e, weight, chunks[0].stop)
        again = None if kept else torch.empty_like(buffer)
        for networks in chunks:
            some, into = part.of(networks), gradients.of(networks)
            a = kept[0][networks] if again is None else some.activations(weight, ctx.slope, again)
            delta = of_sums.through(networks, a, ctx.slope, buffer)
            of_weight += _into_ends(some, into, delta)
            if ctx.needs_input_grad[0]:
                _into_entries(into.e, weight, delta)
        of_e = gradients.e if ctx.needs_input_grad[0] else None
        return of_e, of_weight, gradients.row, gradients.column, None, None


class _Sums:
    """Gradients of the activations and of their sums."""

    def __init__(self, part: _Part, a: Tensor | None, rows: Tensor | None, columns: Tensor | None):
        self.a = a
        self.rows = torch.zeros_like(part.row) if rows is None else rows
        self.columns = torch.zeros_like(part.column) if columns is None else columns

    def through(self, networks: slice, a: Tensor, slope: float, out: Tensor) -> Tensor:
        """The gradient before the activation of some networks, written into the first of `out`."""
        row, column = self.rows[networks][..., None], self.columns[networks][..., None, :]
        delta = torch.add(row, column, out=out[: len(a)])
        if self.a is not None:
            delta.add_(self.a[networks])
        backward = torch.ops.aten.leaky_relu_backward
        return backward.grad_input(delta, a, slope, True, grad_input=delta)


def _into_ends(part: _Part, into: _Part, delta: Tensor) -> Tensor:
    """Write the gradients of rows and columns; the gradient of the weight."""
    torch.sum(delta, 3, out=into.row)
    torch.sum(delta, 2, out=into.column)
    return torch.bmm(delta.flatten(2), part.e.flatten(2).mT).sum(0)


def _into_entries(into: Tensor, weight: Tensor, delta: Tensor) -> None:
    """Write the gradient of the features of entries, `M^T delta`."""
    flat = delta.flatten(2)
    torch.bmm(weight.T.expand(len(flat), -1, -1), flat, out=into.flatten(2))


def _empty(e: Tensor, weight: Tensor, count: int) -> Tensor:
    """Room for activations, used again chunk by chunk: fresh memory costs more than arithmetic."""
    return e.new_empty(count, len(weight), *e.shape[2:])


def _chunks(e: Tensor, weight: Tensor) -> list[slice]:
    budget = CHUNK_FLOATS if e.device.type == "cpu" else 256 * CHUNK_FLOATS
    size = max(1, budget // max(1, e[0, 0].numel() * max(weight.shape)))
    return [slice(start, start + size) for start in range(0, len(e), size)]
