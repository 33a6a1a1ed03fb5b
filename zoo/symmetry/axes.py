"""How permutations and scales of neurons act along one axis of a tensor, composite or not."""

from collections.abc import Mapping, Sequence
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
    if not any(label.group in permutations for label in labels(axis)):
        return None
    return _index_of_product(space, permutations, axis)


def _index_of_product(
    space: WeightSpace, permutations: Mapping[str, Tensor], factors: Axis
) -> Int64[Tensor, "*batch n"]:
    index = torch.zeros(1, dtype=torch.int64)
    for factor in factors:
        if isinstance(factor, Sum):
            parts = [_index_of_product(space, permutations, term) for term in factor.terms]
            offsets = accumulate((part.shape[-1] for part in parts), initial=0)
            inner = _concatenated([p + start for p, start in zip(parts, offsets, strict=False)])
        elif isinstance(factor, Label) and factor.group in permutations:
            inner = permutations[factor.group]
        else:
            inner = torch.arange(space.size((factor,)))
        outer = index[..., :, None].to(inner.device)
        index = (outer * inner.shape[-1] + inner[..., None, :]).flatten(-2)
    return index


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
    if not any(label.power and label.group in scales for label in labels(axis)):
        return None
    return _scale_of_product(space, scales, axis)


def _scale_of_product(
    space: WeightSpace, scales: Mapping[str, Tensor], factors: Axis
) -> Float[Tensor, "*batch n"]:
    scale = torch.ones(1, dtype=torch.float64)
    for factor in factors:
        if isinstance(factor, Sum):
            inner = _concatenated([_scale_of_product(space, scales, t) for t in factor.terms])
        elif isinstance(factor, Label) and factor.group in scales:
            inner = scales[factor.group] ** factor.power
        else:
            inner = torch.ones(space.size((factor,)), dtype=torch.float64)
        scale = (scale[..., :, None].to(inner.device) * inner[..., None, :]).flatten(-2)
    return scale


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


def kept_first(
    values: Shaped[Tensor, "..."], kept: Sequence[int], rank: int
) -> Shaped[Tensor, "..."]:
    """A tensor with some axes first and all others flattened to one, of length 1 if there are none.

    Args:
        values: `[*batch, ...]` with `rank` axes after the leading ones.
        kept: The axes that stay, in the order that they get.
        rank: Axes of `values` that are not leading.

    Returns:
        `[*batch, *kept, rest]`.
    """
    lead = values.dim() - rank
    others = [i for i in range(rank) if i not in kept]
    moved = values.permute(*range(lead), *(lead + i for i in (*kept, *others)))
    return moved.flatten(lead + len(kept)) if others else moved[..., None]


def take(
    tensor: Shaped[Tensor, "..."], index: Int64[Tensor, "*batch n"], dim: int, rank: int
) -> Shaped[Tensor, "..."]:
    """Reorder one axis of a tensor, by one index for all leading places or by one for each.

    Args:
        tensor: `[*batch, ...]` with `rank` axes after the leading ones.
        index: Old positions of the new ones; leading axes broadcast against those of the tensor.
        dim: The axis, negative.
        rank: Axes of `tensor` that are not leading.

    Returns:
        The reordered tensor.
    """
    index = index.to(tensor.device)
    if index.dim() == 1:
        return tensor.index_select(dim, index)
    first = tensor.dim() - rank
    batch = torch.broadcast_shapes(tensor.shape[:first], index.shape[:-1])
    shape = list(tensor.shape[first:])
    tensor = tensor.expand((*batch, *shape))
    shape[dim] = index.shape[-1]
    places = along(index, rank + dim, rank)
    return tensor.gather(dim, places.expand((*batch, *shape)))


def _concatenated(parts: Sequence[Tensor]) -> Tensor:
    """Parts `[*batch, n]` one after the other, on the first device that is not the processor."""
    batch = torch.broadcast_shapes(*(part.shape[:-1] for part in parts))
    device = next((part.device for part in parts if part.device.type != "cpu"), parts[0].device)
    return torch.cat([part.to(device).expand(*batch, part.shape[-1]) for part in parts], dim=-1)
