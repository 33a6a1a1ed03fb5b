"""Networks of any leading axes as rows `[N, ...]`, and a chunk of them at a time."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from zoo.params import Params, check_finite, select
from zoo.weight_space import WeightSpace

Result = TypeVar("Result")


def as_rows(
    space: WeightSpace, params: Mapping[str, Tensor], what: str = "params"
) -> tuple[tuple[int, ...], Params]:
    """Leading axes of networks, and the networks along one axis, without gradients.

    Args:
        space: The weight space.
        params: Tensors `[*batch, *shape]`.
        what: What they are, for messages.

    Returns:
        The leading axes, and tensors `[N, *shape]`.

    Raises:
        ValueError: If the params do not fit the space, or an entry is not finite.
    """
    lead = check_finite(space, params, what)
    count = math.prod(lead)
    rows = {n: params[n].detach().reshape(count, *shape) for n, shape in space.shapes.items()}
    return lead, rows


def num_rows(params: Mapping[str, Tensor]) -> int:
    """The `N` of tensors `[N, ...]`; 1 if there are none."""
    return next((len(tensor) for tensor in params.values()), 1)


def zeros(params: Mapping[str, Tensor], size: int) -> Float[Tensor, "N size"]:
    """So many zeros for each of some networks `[N, *shape]`, float64, on their device."""
    device = next((tensor.device for tensor in params.values()), None)
    return torch.zeros(num_rows(params), size, dtype=torch.float64, device=device)


def in_chunks(
    step: Callable[..., Result],
    space: WeightSpace,
    max_entries: int,
    params: Mapping[str, Tensor],
    *others: Mapping[str, Tensor],
) -> list[Result]:
    """What a step makes of some networks at a time, as few as the processor's cache holds.

    Args:
        step: Takes some rows of `params`, then the same rows of all others.
        space: The weight space.
        max_entries: Bound on the entries of the networks of one step, if they are more than one.
        params: Tensors `[N, *shape]`.
        *others: Tensors `[N, ...]`.

    Returns:
        The results; one if `N` is 0.
    """
    count = num_rows(params)
    size = max(1, max_entries // max(1, space.num_params))
    results = []
    for start in range(0, max(count, 1), size):
        rows = slice(start, start + size)
        results.append(step(*(select(values, rows) for values in (params, *others))))
    return results


def joined(parts: Sequence[Mapping[str, Tensor]]) -> Params:
    """The rows of all parts, one after the other; every part has the same names."""
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
