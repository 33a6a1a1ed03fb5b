"""How permutations and scales of neurons act along one axis of a tensor, composite or not."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial, reduce
from itertools import accumulate

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor

from zoo.pattern import Axis, Label, Sum, labels
from zoo.weight_space import WeightSpace


def permutation_of_axis(
    space: WeightSpace, permutations: Mapping[str, Tensor], axis: Axis
) -> Int64[Tensor, "*batch n"] | None:
    """How permutations of neurons move the positions of an axis.

    Args:
        space: The weight space.
        permutations: For a group, the neuron that comes to each place, `[*batch, size]`; a group
            that is absent stays.
        axis: Factors of the axis.

    Returns:
        The old position that comes to each place, `[*batch, n]`; None if all stay.
    """
    moved = {
        label: permutations[label.group] for label in labels(axis) if label.group in permutations
    }
    if not moved:
        return None
    return _of_product(
        space,
        axis,
        moved,
        torch.arange,
        lambda one, other: one * other.shape[-1] + other,
        torch.add,
    )


def scale_of_axis(
    space: WeightSpace, scales: Mapping[str, Tensor], axis: Axis
) -> Float[Tensor, "*batch n"] | None:
    """How scales of neurons scale the positions of an axis where it is written.

    Where the axis is read, the reciprocals hold.

    Args:
        space: The weight space.
        scales: For a group, the factor of each neuron, `[*batch, size]`; absent means 1.
        axis: Factors of the axis.

    Returns:
        The factor of each position, `[*batch, n]`; None if all are 1.
    """
    scaled = {
        label: (scales[label.group] ** label.power).double()
        for label in labels(axis)
        if label.power and label.group in scales
    }
    if not scaled:
        return None
    ones = partial(torch.ones, dtype=torch.float64)
    return _of_product(space, axis, scaled, ones, torch.mul, lambda of_term, _start: of_term)


def _of_product(
    space: WeightSpace,
    axis: Axis,
    values: Mapping[Label, Tensor],
    blank: Callable[..., Tensor],
    combined: Callable[[Tensor, Tensor], Tensor],
    shifted: Callable[[Tensor, int], Tensor],
) -> Shaped[Tensor, "*batch n"]:
    """One value for each position of an axis, from the values along each of its factors.

    Args:
        space: The weight space.
        axis: Factors of the axis.
        values: Values `[*batch, size]` of some factors, at least one.
        blank: Makes the values of a factor of some size that has none, on some device.
        combined: The value at a pair of positions, the outer one first.
        shifted: Values of a term of a direct sum, given at which position of it the term starts.

    Returns:
        `[*batch, n]`.
    """
    device = next(iter(values.values())).device
    factors = []
    for factor in axis:
        if isinstance(factor, Sum):
            terms = [
                _of_product(space, term, values, blank, combined, shifted) for term in factor.terms
            ]
            starts = accumulate((term.shape[-1] for term in terms), initial=0)
            factors.append(_concatenated(list(map(shifted, terms, starts))))
        elif isinstance(factor, Label) and factor in values:
            factors.append(values[factor].to(device))
        else:
            factors.append(blank(space.size((factor,)), device=device))
    return reduce(lambda one, other: outer(one, other, combined), factors)


def outer(
    one: Shaped[Tensor, "*#batch n"],
    other: Shaped[Tensor, "*#batch m"],
    combined: Callable[[Tensor, Tensor], Tensor] = torch.mul,
) -> Shaped[Tensor, "..."]:
    """All pairs of two vectors, `[*batch, n m]`: their products, or combined in another way."""
    return combined(one[..., :, None], other[..., None, :]).flatten(-2)


def along(vector: Shaped[Tensor, "*batch n"], axis: int, rank: int) -> Shaped[Tensor, "..."]:
    """One value for each position along an axis, shaped to multiply tensors `[*batch, ...]`.

    Args:
        vector: `[*batch, n]`.
        axis: Which of the axes after the leading ones.
        rank: How many of them there are.

    Returns:
        `[*batch, 1, ..., n, ..., 1]`.
    """
    batch, size = vector.shape[:-1], vector.shape[-1]
    return vector.reshape(*batch, *(1,) * axis, size, *(1,) * (rank - axis - 1))


def take(
    tensor: Shaped[Tensor, "..."], index: Int64[Tensor, "*batch n"], dim: int, rank: int
) -> Shaped[Tensor, "..."]:
    """Reorder one axis of a tensor, by one index for all leading places or by one for each.

    Args:
        tensor: `[*batch, ...]` with `rank` axes after the leading ones.
        index: Old position of each new one; leading axes broadcast against those of the tensor.
        dim: The axis, negative.
        rank: Axes of `tensor` that are not leading.

    Returns:
        The reordered tensor.
    """
    index = index.to(tensor.device)
    if index.dim() == 1:
        return tensor.index_select(dim, index)
    tensor, places = torch.broadcast_tensors(tensor, along(index, rank + dim, rank))
    return tensor.gather(dim, places)


def summed_to(values: Float[Tensor, "..."], kept: Sequence[int], rank: int) -> Float[Tensor, "..."]:
    """Sums over axes of a tensor.

    Args:
        values: `[*batch, ...]` with `rank` axes after the leading ones.
        kept: The axes that stay, in the order that they have.
        rank: Axes of `values` that are not leading.

    Returns:
        `[*batch, *kept]`.
    """
    others = [i - rank for i in range(rank) if i not in kept]
    return values.sum(others) if others else values


def _concatenated(parts: Sequence[Tensor]) -> Tensor:
    """Parts `[*batch, n]` one after the other."""
    batch = torch.broadcast_shapes(*(part.shape[:-1] for part in parts))
    return torch.cat([part.expand(*batch, -1) for part in parts], dim=-1)
