"""Sums of products of parameters: what conserved quantities and their residuals are made of.

    diagonal   sum of  p a b            for each neuron, `p` the power of its scale at an entry
    matrix     sum of  a b^T, -b a^T    for each pair of neurons, where it is written, where read
    sums       sum of  a                for each column

Everything takes leading axes as they come and loops over blocks of tensors only, never over
neurons.
"""

import math
import operator
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import groupby
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from zoo.symmetry.axes import along, summed_to
from zoo.symmetry.blocks import Block, cut_blocks
from zoo.weight_space import WeightSpace

Products = dict[str, Tensor]


@dataclass(frozen=True)
class Term:
    """One block of a tensor and what a law does with it.

    Attributes:
        block: The block.
        kept: Axes of the block that the law keeps, in the order in which its values have them; the
            others are summed over.
        power: Weight of the block in the law: the power with which a scale acts on it, negative
            where it is read.
    """

    block: Block
    kept: tuple[int, ...]
    power: int


def scaling_terms(space: WeightSpace, group: str) -> tuple[Term, ...]:
    """The blocks on which the scales of a group's neurons act, once for each axis on which they do.

    Args:
        space: The weight space.
        group: Name of the group.

    Returns:
        The terms; several for a block that names the group more than once.

    Raises:
        ValueError: If there is no such group.
    """
    if group not in space.groups:
        raise ValueError(f"unknown group {group!r}; groups of the space are {sorted(space.groups)}")
    return tuple(
        Term(block, (i,), dim.power)
        for block in cut_blocks(space)
        for i, dim in enumerate(block.dims)
        if dim.group == group and dim.power
    )


def diagonal(terms: Sequence[Term], products: Mapping[str, Tensor]) -> Float[Tensor, "..."]:
    """Sum of `power a b` over all entries, for each place of the kept axes.

    Args:
        terms: Terms that keep axes of the same sizes, in the order of their blocks.
        products: The products `a b`, entry by entry, `[*batch, *shape]`.

    Returns:
        `[*batch, *kept]`.
    """
    return _total(term.power * _summed(term, products) for term in terms)


def pairs(
    params: Mapping[str, Tensor], gradients: Mapping[str, Tensor], names: Collection[str]
) -> list[Products]:
    """The products `params^2`, `params grad` and `grad^2` of some tensors, entry by entry.

    Args:
        params: Tensors `[*batch, *shape]`.
        gradients: Of the same shapes.
        names: Names of the tensors.

    Returns:
        Three dictionaries of tensors `[*batch, *shape]`.
    """
    return [
        {name: a[name] * b[name] for name in names}
        for a, b in ((params, params), (params, gradients), (gradients, gradients))
    ]


def diagonal_residual(terms: Sequence[Term], products: Sequence[Products]) -> Float[Tensor, "..."]:
    """How far gradients are from being orthogonal to a scaling, for each neuron `j`.

    |<grad, xi_j>| / (|grad restricted to the entries that xi_j moves| |xi_j|), and 0 for 0 / 0

    Args:
        terms: Terms that keep axes of the same sizes, in the order of their blocks.
        products: As `pairs` gives them.

    Returns:
        `[*batch, *kept]`, between 0 and 1.
    """
    pieces = [list(same) for _, same in groupby(terms, key=lambda term: term.block)]
    weights = (lambda power: power**2, lambda power: power, lambda power: power != 0)
    moved, along, restricted = (
        _total(_weighted(alike, p, w) for alike in pieces)
        for p, w in zip(products, weights, strict=True)
    )
    return _quotient(along.abs(), (moved * restricted).sqrt())


def matrix(
    terms: Sequence[Term], a: Mapping[str, Tensor], b: Mapping[str, Tensor]
) -> Float[Tensor, "*rest h h"]:
    """Sum of `a b^T` where a group is written, minus that of `(a b^T)^T` where it is read.

    With `a` a gradient and `b` the params, its product with any `h x h` matrix `A` is the
    derivative along `W -> A W`, `V -> -V A`.

    Args:
        terms: Terms that keep axes of the same sizes, the neurons last; powers 1 and -1.
        a: Tensors `[*batch, *shape]`.
        b: Tensors of the same shapes.

    Returns:
        `[*batch, *heads, h, h]`.
    """
    products = []
    for term in terms:
        rows, others = (_rows(term, values) for values in (a, b))
        product = rows @ others.mT
        products.append(product if term.power > 0 else -product.mT)
    return _total(products)


def matrix_residual(
    terms: Sequence[Term], params: Mapping[str, Tensor], gradients: Mapping[str, Tensor]
) -> Float[Tensor, "..."]:
    """How far gradients are from being orthogonal to every mixing `A` of the neurons.

    |M| / (|grad| |params|), and 0 for 0 / 0, with M = matrix(terms, gradients, params)

    `|M|` is the largest derivative along any `A` of norm 1.

    Args:
        terms: Terms that keep axes of the same sizes, the neurons last; powers 1 and -1.
        params: Tensors `[*batch, *shape]`.
        gradients: Of the same shapes.

    Returns:
        `[*batch, *heads]`, between 0 and 1.
    """
    along = matrix(terms, gradients, params).square().sum((-2, -1)).sqrt()
    sizes = [
        _total(_rows(t, values).square().sum((-2, -1)) for t in terms).sqrt()
        for values in (gradients, params)
    ]
    return _quotient(along, sizes[0] * sizes[1])


def sums(terms: Sequence[Term], a: Mapping[str, Tensor], leading: int) -> Float[Tensor, "..."]:
    """Sums over the axes that are not kept, with the columns of all terms one after the other.

    Args:
        terms: Terms that keep some axes of the same sizes, and then any that are flattened to
            columns.
        a: Tensors `[*batch, *shape]`.
        leading: Number of the axes of the same sizes.

    Returns:
        `[*batch, *kept, columns]`.
    """
    return _joined_columns(terms, a, leading, lambda column: column.sum(-1))


def sums_residual(
    terms: Sequence[Term], gradients: Mapping[str, Tensor], leading: int
) -> Float[Tensor, "..."]:
    """How far gradients are from being orthogonal to a shift of each column.

    |sum g| / (sqrt(n) |g|), and 0 for 0 / 0

    Args:
        terms: As `sums` takes them.
        gradients: Tensors `[*batch, *shape]`.
        leading: As `sums` takes it.

    Returns:
        `[*batch, *kept, columns]`, between 0 and 1.
    """
    return _joined_columns(terms, gradients, leading, _cosine_with_ones)


def _cosine_with_ones(column: Tensor) -> Tensor:
    size = column.norm(dim=-1) * math.sqrt(column.shape[-1])
    return _quotient(column.sum(-1).abs(), size)


def _joined_columns(
    terms: Sequence[Term],
    values: Mapping[str, Tensor],
    leading: int,
    reduced: Callable[[Tensor], Tensor],
) -> Float[Tensor, "..."]:
    """The columns `[*batch, *leading, columns, rest]` of all terms, reduced along the last axis."""
    parts = []
    for term in terms:
        rows = _rows(term, values)
        last = rows.dim() - 2
        first = last - (len(term.kept) - leading) + 1
        columns = rows.flatten(first, last) if first <= last else rows.unsqueeze(-2)
        parts.append(reduced(columns))
    return torch.cat(parts, dim=-1)


def _rows(term: Term, values: Mapping[str, Tensor]) -> Float[Tensor, "..."]:
    """A block as `[*batch, *kept, all others]`."""
    return term.block.entries(values[term.block.tensor], term.kept)


def _summed(term: Term, values: Mapping[str, Tensor]) -> Float[Tensor, "..."]:
    """Sums of a block over all axes but those kept."""
    block = term.block
    return summed_to(block.view(values[block.tensor]), term.kept, len(block.dims))


def _weighted(
    alike: Sequence[Term], products: Products, weight: Callable[[Any], Any]
) -> Float[Tensor, "..."]:
    """Sum of `weight(power) product` over a block for each neuron; all its terms are given."""
    first = alike[0]
    if len(alike) == 1:
        return int(weight(first.power)) * _summed(first, products)
    values = first.block.entries(products[first.block.tensor], ())
    return values @ weight(_summed_powers(alike)).flatten(1).mT.to(values)


def _summed_powers(alike: Sequence[Term]) -> Float[Tensor, "h ..."]:
    """The power with which the scale of each neuron acts on each entry of a block."""
    # It acts once for each axis on which the entry belongs to the neuron, so powers add up.
    sizes = [dim.size for dim in alike[0].block.dims]
    powers = torch.zeros(sizes[alike[0].kept[0]], *sizes)
    for term in alike:
        (axis,) = term.kept
        powers += term.power * along(torch.eye(sizes[axis]), axis, len(sizes))
    return powers


def _total(parts: Iterable[Tensor]) -> Tensor:
    return reduce(operator.add, parts)


def _quotient(along: Tensor, size: Tensor) -> Tensor:
    """`along / size`, 0 where both are 0; rounding may not lift it over 1."""
    return (along / torch.where(size > 0, size, 1)).clamp(max=1)
