"""What the networks of a population compute, with what it takes to build it again."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from zoo.architectures import Architecture
from zoo.params import Params
from zoo.store.manifest import rebuild
from zoo.weight_space import WeightSpace


@dataclass(frozen=True, eq=False)
class Network:
    """What the networks of a population compute: one function of params and inputs, and what it takes to build it again.

    Attributes:
        description: `architecture` (its name and options), `input_shape` and `num_classes`, as JSON
            holds them.
        function: The architecture, constants included.
    """

    description: Mapping[str, Any]
    function: Architecture

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input."""
        return tuple(self.description["input_shape"])

    @property
    def num_outputs(self) -> int:
        """Number of outputs `K`."""
        return self.description["num_classes"]

    @property
    def constants(self) -> Params:
        """Masks, fixed entries, mixing matrices and offsets, by name."""
        return self.function.constants

    def apply(self, params: Params, x: Float[Tensor, "X ..."]) -> Float[Tensor, "X K"]:
        """Run one network; many go through `torch.func.vmap`.

        Args:
            params: Effective parameters of one network.
            x: Inputs `[X, *input_shape]`.

        Returns:
            Logits `[X, K]`.
        """
        return self.function.apply(params, x)

    def to(self, device: torch.device | str, dtype: torch.dtype) -> "Network":
        """The same function with its constants on a device and of a floating type."""
        return replace(self, function=self.function.to(device, dtype))

    def is_like(self, other: "Network") -> bool:
        """Whether both are described the same way, constants included."""
        mine, theirs = self.constants, other.constants
        if self.description != other.description or mine.keys() != theirs.keys():
            return False
        return all(torch.equal(mine[name].cpu(), theirs[name].cpu()) for name in mine)


def build_network(description: Mapping[str, Any], space: WeightSpace, constants: Params) -> Network:
    """Build what networks compute from its description.

    Args:
        description: As in `Network`.
        space: Weight space of the effective parameters.
        constants: Constants of the architecture.

    Returns:
        The function.
    """
    architecture, input_shape = description["architecture"], description["input_shape"]
    return Network(
        description,
        rebuild(architecture, space, input_shape, description["num_classes"], constants),
    )
