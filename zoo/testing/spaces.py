"""Random weight spaces and params."""

from collections.abc import Sequence
from itertools import pairwise
from typing import get_args

import torch

from zoo.params import Params
from zoo.weight_space import NeuronGroup, Scaling, WeightSpace

SCALINGS: tuple[Scaling, ...] = get_args(Scaling)


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

    def chance() -> bool:
        return bool(torch.rand((), generator=generator) < 0.5)

    def integer(high: int) -> int:
        return int(torch.randint(1, high + 1, (), generator=generator))

    def group() -> NeuronGroup:
        scaling = SCALINGS[integer(len(SCALINGS)) - 1]
        return NeuronGroup(integer(max_size), permutable=chance(), scaling=scaling)

    names = ["x", *(f"h{i}" for i in range(1, integer(3) + 1))]
    groups = {name: group() for name in names} | {
        "y": NeuronGroup(integer(max_size), permutable=False)
    }
    tensors = {}
    for i, (read, written) in enumerate(pairwise(names)):
        kernel = f" {integer(2)} {integer(2)}" if chance() else ""
        tensors[f"{i}.weight"] = (
            f"{read} -> {written}" if chance() else f"{written} <- {read}{kernel}"
        )
        optional = {
            f"{i}.bias": written,
            f"{i}.skip": f"{written} <- {written}",
            f"{i}.heads": f"({integer(2)} {written}) <- {read}^{integer(3) - 2}",
            f"{i}.variance": f"{written}^2",
            f"{i}.count": f"{written}^0",
        }
        tensors |= {name: text for name, text in optional.items() if chance()}
    if chance():
        tensors["dense.weight"] = f"y <- (({names[-1]} {integer(2)}) + {' + '.join(names)})"
    tensors["head.weight"] = f"y <- ({names[-1]} {integer(3)})"
    tensors |= {"temperature": ""} if chance() else {}
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
