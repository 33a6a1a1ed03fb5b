"""Random weight spaces and params."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import get_args

import torch

from zoo.params import Params
from zoo.weight_space import NeuronGroup, Scaling, WeightSpace

SCALINGS: tuple[Scaling, ...] = get_args(Scaling)


@dataclass(frozen=True)
class _Dice:
    """What random spaces are made of, drawn from a generator."""

    generator: torch.Generator
    max_size: int

    def chance(self) -> bool:
        """True as often as False."""
        return bool(torch.rand((), generator=self.generator) < 0.5)

    def integer(self, high: int) -> int:
        """A number from 1 to `high`."""
        return int(torch.randint(1, high + 1, (), generator=self.generator))

    def group(self) -> NeuronGroup:
        """A group of any kind."""
        scaling = SCALINGS[self.integer(len(SCALINGS)) - 1]
        return NeuronGroup(self.integer(self.max_size), permutable=self.chance(), scaling=scaling)

    def layer(self, name: str, read: str, written: str) -> dict[str, str]:
        """Patterns of a layer from one group to another."""
        kernel = f" {self.integer(2)} {self.integer(2)}" if self.chance() else ""
        weight = f"{read} -> {written}" if self.chance() else f"{written} <- {read}{kernel}"
        optional = {
            f"{name}.bias": written,
            f"{name}.skip": f"{written} <- {written}",
            f"{name}.heads": f"({self.integer(2)} {written}) <- {read}^{self.integer(3) - 2}",
            f"{name}.variance": f"{written}^2",
            f"{name}.count": f"{written}^0",
        }
        present = {tensor: text for tensor, text in optional.items() if self.chance()}
        return {f"{name}.weight": weight, **present}


def random_weight_space(generator: torch.Generator, max_size: int = 4) -> WeightSpace:
    """Draw a weight space with everything the language has, for property tests.

    A chain of layers (linear, convolutional or read-first), with tied skips, heads, statistics with
    powers, a dense concatenation, a flattened head and a scalar, each present by chance. No
    function belongs to it.

    Args:
        generator: Source of randomness.
        max_size: Neurons of the largest group.

    Returns:
        The space.
    """
    dice = _Dice(generator, max_size)
    names = ["x", *(f"h{i}" for i in range(1, dice.integer(3) + 1))]
    groups = {name: dice.group() for name in names}
    groups["y"] = NeuronGroup(dice.integer(max_size), permutable=False)
    tensors = {}
    for i, (read, written) in enumerate(pairwise(names)):
        tensors |= dice.layer(str(i), read, written)
    if dice.chance():
        tensors["dense.weight"] = f"y <- (({names[-1]} {dice.integer(2)}) + {' + '.join(names)})"
    tensors["head.weight"] = f"y <- ({names[-1]} {dice.integer(3)})"
    tensors |= {"temperature": ""} if dice.chance() else {}
    return WeightSpace(groups, tensors)


def random_params(
    space: WeightSpace,
    generator: torch.Generator,
    batch: Sequence[int] = (),
    dtype: torch.dtype = torch.float64,
) -> Params:
    """Draw standard normal params.

    Args:
        space: The weight space.
        generator: Source of randomness.
        batch: Leading axes.
        dtype: Their type.

    Returns:
        Tensors `[*batch, *shape]`.
    """
    return {
        name: torch.randn((*batch, *shape), generator=generator, dtype=dtype)
        for name, shape in space.shapes.items()
    }
