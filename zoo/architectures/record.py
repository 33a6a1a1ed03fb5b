"""What the neurons of a network do: the activations of every group while it runs."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from zoo.architectures.base import Activate, Architecture
from zoo.symmetry.outputs import tensors_in


def activations(
    architecture: Architecture, params: Mapping[str, Tensor], x: Float[Tensor, "X ..."]
) -> dict[str, Float[Tensor, "X ..."]]:
    """Run one network and keep what leaves the non-linearity of each group.

    Many networks go through `torch.func.vmap`.

    Args:
        architecture: The architecture.
        params: Effective parameters of one network.
        x: Inputs `[X, *input_shape]`.

    Returns:
        For each group with a non-linearity `[X, size, *positions]`; of a group that has several,
        such as a residual stream, all of them along one axis of positions.

    Raises:
        ValueError: If it is a traced module, which runs its own non-linearities.
    """
    recorded: dict[str, list[Tensor]] = {}
    architecture.forward(dict(params), x, partial(_record, recorded, architecture.activate))
    return {
        group: values[0] if len(values) == 1 else _joined(values)
        for group, values in recorded.items()
    }


def _record(recorded: dict[str, list[Tensor]], activate: Activate, group: str, z: Tensor) -> Tensor:
    value = activate(group, z)
    recorded.setdefault(group, []).append(value)
    return value


def _joined(values: list[Tensor]) -> Tensor:
    return torch.cat([value.reshape(*value.shape[:2], -1) for value in values], dim=-1)


def count_activations(
    architecture: Architecture, params: Mapping[str, Tensor], x: Float[Tensor, "X ..."]
) -> int:
    """Entries that one network writes while it runs, for a bound on memory.

    Args:
        architecture: The architecture.
        params: Effective parameters of one network.
        x: Inputs `[X, *input_shape]`.

    Returns:
        Entries of `activations`; of a traced module, of what all its operators return.
    """
    if not architecture.is_module:
        return sum(value.numel() for value in activations(architecture, params, x).values())
    with _CountEntries() as counter:
        architecture.apply(dict(params), x)
    return counter.entries


class _CountEntries(TorchDispatchMode):
    """Counts the entries of the tensors that operators return."""

    def __init__(self):
        super().__init__()
        self.entries = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        result = func(*args, **(kwargs or {}))
        self.entries += sum(tensor.numel() for tensor in tensors_in(result))
        return result
