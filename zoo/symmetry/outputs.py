"""Outputs of networks, of any form, and how much they change."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


def tensors_in(outputs: Any) -> Iterator[Tensor]:
    """The tensors in outputs: a tensor, or tuples, lists and mappings; the rest is skipped."""
    if isinstance(outputs, Tensor):
        yield outputs
    elif isinstance(outputs, Mapping | list | tuple):
        for part in outputs.values() if isinstance(outputs, Mapping) else outputs:
            yield from tensors_in(part)


def relative_change(before: Any, after: Any) -> float:
    """The largest difference between outputs, over the larger of 1 and the largest output before.

    Args:
        before: Outputs of any form.
        after: Outputs of the same form.

    Returns:
        The change; infinite if an entry is NaN, or infinite, on one side only.

    Raises:
        ValueError: If there is no tensor, or tensors are of different number or shape.
    """
    old, new = ([tensor[None] for tensor in tensors_in(outputs)] for outputs in (before, after))
    change, size = differences(old, new)
    return float(change / size.clamp_min(1))


def differences(
    before: Sequence[Tensor], after: Sequence[Tensor]
) -> tuple[Float[Tensor, " N"], Float[Tensor, " N"]]:
    """The largest difference between outputs, and the largest output before, for each network.

    Args:
        before: Tensors `[N, ...]`.
        after: Tensors of the same shapes.

    Returns:
        `[N]` and `[N]`, float64; a difference is infinite if an entry is NaN, or infinite, on one
        side only.

    Raises:
        ValueError: If there is no tensor, or tensors are of different number or shape.
    """
    shapes = [[list(tensor.shape[1:]) for tensor in tensors] for tensors in (before, after)]
    if not before or shapes[0] != shapes[1]:
        raise ValueError(
            "outputs: expected tensors of the same shapes before and after, "
            f"got {shapes[0]} and {shapes[1]}"
        )
    old, new = _wide_rows(before), _wide_rows(after)
    same = (old == new) | (old.isnan() & new.isnan())
    moved = torch.where(same, 0, (old - new).abs()).nan_to_num(nan=math.inf, posinf=math.inf)
    return moved.amax(1), torch.where(old.isfinite(), old.abs(), 0).amax(1)


def _wide_rows(tensors: Sequence[Tensor]) -> Float[Tensor, "N _"]:
    """A zero and all entries of each network in float64, or in a complex type of that precision."""
    rows = [tensor.reshape(len(tensor), -1) for tensor in tensors]
    zeros = rows[0].new_zeros(len(rows[0]), 1, dtype=torch.float64)
    return torch.cat([zeros, *rows], dim=1)
