"""How permutations and scales of neurons act along one axis of a tensor, composite axes included."""

from collections.abc import Mapping, Sequence
from itertools import accumulate

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor

from zoo.weight_space import Axis, Factor, Label, Sum, WeightSpace, labels


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

    def of_product(factors: Axis) -> Tensor:
        index = torch.zeros(1, dtype=torch.int64)
        for factor in factors:
            own = of_factor(factor)
            index = (
                index[..., :, None].to(own.device) * own.shape[-1] + own[..., None, :]
            ).flatten(-2)
        return index

    def of_factor(factor: Factor) -> Tensor:
        if isinstance(factor, Sum):
            offsets = accumulate(map(space.size, factor.terms), initial=0)
            return _cat(
                [
                    of_product(term) + offset
                    for term, offset in zip(factor.terms, offsets, strict=False)
                ]
            )
        if isinstance(factor, Label) and factor.group in permutations:
            return permutations[factor.group]
        return torch.arange(space.size((factor,)))

    return of_product(axis)


def scale_of_axis(
    space: WeightSpace, scales: Mapping[str, Tensor], axis: Axis
) -> Float[Tensor, "*batch n"] | None:
    """How scales of neurons scale the positions of an axis that a tensor writes; the reciprocals hold where it is read.

    Args:
        space: The weight space.
        scales: For a group, the factor of each neuron, `[*batch, size]`; absent means 1.
        axis: Factors of the axis.

    Returns:
        The factor of each position, `[*batch, n]`; None if all are 1.
    """
    if not any(label.power and label.group in scales for label in labels(axis)):
        return None

    def of_product(factors: Axis) -> Tensor:
        scale = torch.ones(1, dtype=torch.float64)
        for factor in factors:
            own = of_factor(factor)
            scale = (scale[..., :, None].to(own.device) * own[..., None, :]).flatten(-2)
        return scale

    def of_factor(factor: Factor) -> Tensor:
        if isinstance(factor, Sum):
            return _cat([of_product(term) for term in factor.terms])
        if isinstance(factor, Label) and factor.group in scales:
            return scales[factor.group] ** factor.power
        return torch.ones(space.size((factor,)), dtype=torch.float64)

    return of_product(axis)


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
    batch = torch.broadcast_shapes(tensor.shape[: tensor.dim() - rank], index.shape[:-1])
    own = tensor.shape[tensor.dim() - rank :]
    shape = [1] * rank
    shape[dim] = index.shape[-1]
    places = index.expand(*batch, index.shape[-1]).reshape(*batch, *shape)
    return tensor.expand(*batch, *own).gather(
        dim, places.expand(*batch, *own[:dim], index.shape[-1], *own[rank + dim + 1 :])
    )


def _cat(parts: Sequence[Tensor]) -> Tensor:
    batch = torch.broadcast_shapes(*(part.shape[:-1] for part in parts))
    device = next((part.device for part in parts if part.device.type != "cpu"), parts[0].device)
    return torch.cat([part.to(device).expand(*batch, part.shape[-1]) for part in parts], dim=-1)
