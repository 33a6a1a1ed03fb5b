"""Sums of products of parameters over all entries but some: what conserved quantities and their residuals are made of.

    diagonal   sum of  p a b            for each neuron, `p` the power with which its scale acts on an entry
    matrix     sum of  a b^T, -b a^T    for each pair of neurons, where a group is written, where it is read
    sums       sum of  a                for each column

Everything takes leading axes as they come and loops over blocks of tensors only, never over neurons.
"""

import math
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import groupby

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import one_hot

from zoo.blocks import Block, blocks
from zoo.weight_space import WeightSpace


@dataclass(frozen=True)
class Term:
    """One block of a tensor and what a law does with it.

    Attributes:
        block: The block.
        kept: Axes of the block that the law keeps, in the order in which its values have them; the others are summed over.
        power: Weight of the block in the law: the power with which a scale acts on it, negative where it is read.
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
    named = [(block, i) for block in blocks(space) for i, dim in enumerate(block.dims) if dim.group == group and dim.power]
    return tuple(Term(block, (i,), block.dims[i].power) for block, i in named)


def diagonal(terms: Sequence[Term], a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> Float[Tensor, "..."]:
    """Sum of `power a b` over all entries, for each place of the kept axes.

    Args:
        terms: Terms that keep axes of the same sizes.
        a: Tensors `[*batch, *shape]`.
        b: Tensors of the same shapes.

    Returns:
        `[*batch, *kept]`.
    """
    return _total(term.power * _rows_dot(term, a, b) for term in terms)


def diagonal_residual(
    terms: Sequence[Term], params: Mapping[str, Tensor], gradients: Mapping[str, Tensor]
) -> Float[Tensor, "..."]:
    """How far gradients are from being orthogonal to a scaling, for each neuron `j`.

    |<grad, xi_j>| / (|grad restricted to the entries that xi_j moves| |xi_j|), and 0 for 0 / 0

    Args:
        terms: Terms that keep axes of the same sizes.
        params: Tensors `[*batch, *shape]`.
        gradients: Of the same shapes.

    Returns:
        `[*batch, *kept]`, between 0 and 1.
    """
    along = diagonal(terms, gradients, params).abs()
    moved, own = [], []
    for _, same in groupby(terms, key=lambda term: term.block):
        alike = list(same)
        moved.append(_of_powers(alike, params, torch.square))
        own.append(_of_powers(alike, gradients, lambda power: (power != 0).to(power)))
    return _quotient(along, _total(own).sqrt() * _total(moved).sqrt())


def matrix(terms: Sequence[Term], a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> Float[Tensor, "*rest h h"]:
    """Sum of `a b^T` where a group is written, minus that of `(a b^T)^T` where it is read.

    With `a` a gradient and `b` the params, its product with any `h x h` matrix `A` is the derivative along `W -> A W`,
    `V -> -V A`.

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
    """How far gradients are from being orthogonal to every mixing `A` of the neurons: `|M| / (|grad| |params|)`, 0 for 0 / 0.

    `M` is `matrix(terms, gradients, params)`, and `|M|` the largest derivative along any `A` of norm 1.

    Args:
        terms: Terms that keep axes of the same sizes, the neurons last; powers 1 and -1.
        params: Tensors `[*batch, *shape]`.
        gradients: Of the same shapes.

    Returns:
        `[*batch, *heads]`, between 0 and 1.
    """
    along = matrix(terms, gradients, params).square().sum((-2, -1)).sqrt()
    sizes = [_total(_rows(t, values).square().sum((-2, -1)) for t in terms).sqrt() for values in (gradients, params)]
    return _quotient(along, sizes[0] * sizes[1])


def sums(terms: Sequence[Term], a: Mapping[str, Tensor], leading: int) -> Float[Tensor, "..."]:
    """Sums over the axes that are not kept, with the columns of all terms one after the other.

    Args:
        terms: Terms that keep some axes of the same sizes, and then any that are flattened to columns.
        a: Tensors `[*batch, *shape]`.
        leading: Number of the axes of the same sizes.

    Returns:
        `[*batch, *kept, columns]`.
    """
    return torch.cat([_columns(term, a, leading).sum(-1) for term in terms], dim=-1)


def sums_residual(terms: Sequence[Term], gradients: Mapping[str, Tensor], leading: int) -> Float[Tensor, "..."]:
    """How far gradients are from being orthogonal to a shift of each column: `|sum g| / (sqrt(n) |g|)`, and 0 for 0 / 0.

    Args:
        terms: Terms that keep some axes of the same sizes, and then any that are flattened to columns.
        gradients: Tensors `[*batch, *shape]`.
        leading: Number of the axes of the same sizes.

    Returns:
        `[*batch, *kept, columns]`, between 0 and 1.
    """
    columns = [_columns(term, gradients, leading) for term in terms]
    return torch.cat([_quotient(c.sum(-1).abs(), c.norm(dim=-1) * math.sqrt(c.shape[-1])) for c in columns], dim=-1)


def _rows(term: Term, values: Mapping[str, Tensor]) -> Float[Tensor, "..."]:
    """A block as `[*batch, *kept, all others]`."""
    block = term.block.view(values[term.block.tensor])
    lead, rank = block.dim() - len(term.block.dims), len(term.block.dims)
    others = [i for i in range(rank) if i not in term.kept]
    order = [*range(lead), *(lead + i for i in (*term.kept, *others))]
    ordered = block if order == sorted(order) else block.permute(order)
    return ordered.reshape(*ordered.shape[: lead + len(term.kept)], -1)


def _columns(term: Term, values: Mapping[str, Tensor], leading: int) -> Float[Tensor, "..."]:
    """A block as `[*batch, *leading, columns, all others]`."""
    rows = _rows(term, values)
    batch = rows.dim() - len(term.kept) - 1
    return rows.reshape(*rows.shape[: batch + leading], -1, rows.shape[-1])


def _rows_dot(term: Term, a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> Float[Tensor, "..."]:
    return torch.linalg.vecdot(_rows(term, a), _rows(term, b))


def _of_powers(alike: Sequence[Term], values: Mapping[str, Tensor], weight: Callable[[Tensor], Tensor]) -> Tensor:
    """Sum of `weight(power) value^2` over one block, with the sum of all powers with which neuron `j` acts on an entry."""
    first = alike[0]
    powers = torch.tensor(float(first.power))
    if len(alike) == 1:
        return float(weight(powers)) * _rows_dot(first, values, values)
    dims = first.block.dims
    total = torch.zeros(dims[first.kept[0]].size, *(dim.size for dim in dims), dtype=torch.float64)
    for term in alike:
        (axis,) = term.kept
        eye = one_hot(torch.arange(dims[axis].size)).double()
        total += term.power * eye.reshape(-1, *(1,) * axis, dims[axis].size, *(1,) * (len(dims) - axis - 1))
    squares = first.block.view(values[first.block.tensor]).square()
    flat = squares.reshape(*squares.shape[: squares.dim() - len(dims)], -1)
    return flat @ weight(total).flatten(1).T.to(flat)


def _total(parts: Iterable[Tensor]) -> Tensor:
    return reduce(operator.add, parts)


def _quotient(along: Tensor, size: Tensor) -> Tensor:
    """`along / size`, 0 where both are 0; rounding may not lift it over 1."""
    return torch.where(size > 0, along / torch.where(size > 0, size, 1), along).clamp(max=1)
