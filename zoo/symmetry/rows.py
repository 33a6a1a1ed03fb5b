"""Networks of any leading axes as rows `[N, ...]`, and a chunk of them at a time."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from zoo.params import Params, batch_shape
from zoo.weight_space import WeightSpace


def as_rows(space: WeightSpace, params: Mapping[str, Tensor]) -> tuple[tuple[int, ...], Params]:
    """Leading axes of networks, and the networks along one axis, without gradients.

    Args:
        space: The weight space.
        params: Tensors `[*batch, *shape]`.

    Returns:
        The leading axes, and tensors `[N, *shape]`.

    Raises:
        ValueError: If the params do not fit the space.
    """
    lead = batch_shape(space, params)
    count = math.prod(lead)
    rows = {n: params[n].detach().reshape(count, *shape) for n, shape in space.shapes.items()}
    return lead, rows


def chunks(space: WeightSpace, params: Mapping[str, Tensor], max_entries: int) -> list[slice]:
    """Slices of networks `[N, *shape]` with at most so many entries; one slice if `N` is 0."""
    count = next((len(tensor) for tensor in params.values()), 1)
    size = max(1, max_entries // max(1, space.num_params))
    return [slice(start, start + size) for start in range(0, max(count, 1), size)]


def rows_of(values: Mapping[str, Tensor], rows: slice) -> Params:
    """Some rows of every tensor."""
    return {name: tensor[rows] for name, tensor in values.items()}


def joined(parts: Sequence[Mapping[str, Tensor]]) -> Params:
    """The rows of all parts, one after the other; every part has the same names."""
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
