"""The action of permutations and scales of neurons on parameters, tensor by tensor and axis by axis; slow and obvious."""

import itertools
import math
import re
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from zoo.weight_space import WeightSpace

Neurons = Mapping[str, Tensor]  # by group: a permutation (int64) or scales (float64)


def act(space: WeightSpace, params: Mapping[str, Tensor], permutations: Neurons, scales: Neurons) -> dict[str, Tensor]:
    """Neuron `i` of a group becomes the old neuron `permutation[i]`, then is scaled by `scales[i]` (read: by the inverse)."""
    moved = {}
    for name, text in space.tensors.items():
        written, _, read = text.partition("<-")
        axes = [(axis, +1) for axis in axes_of(written)] + [(axis, -1) for axis in axes_of(read)]
        tensor = params[name]
        for position, (factors, power) in enumerate(axes):
            tensor = act_on_axis(space, tensor, position, factors, power, permutations, scales)
        moved[name] = tensor
    return moved


def axes_of(side: str) -> list[list[str]]:
    return [axis.strip("()").split() for axis in re.findall(r"\([^()]*\)|[^\s()]+", side)]


def act_on_axis(space, tensor, position, factors, power, permutations, scales) -> Tensor:
    sizes = [space.groups[factor].size if factor in space.groups else int(factor) for factor in factors]
    shape = tensor.shape
    split = tensor.reshape(*shape[:position], *sizes, *shape[position + 1 :])
    for offset, factor in enumerate(factors):
        if factor in permutations:
            split = split.index_select(position + offset, permutations[factor])
        if factor in scales:
            after = split.dim() - position - offset - 1
            split = split * scales[factor].reshape(-1, *[1] * after) ** power
    return split.reshape(shape)


def random_permutations(space: WeightSpace, generator: torch.Generator) -> dict[str, Tensor]:
    """A permutation of each group that is declared permutable."""
    return {name: torch.randperm(g.size, generator=generator) for name, g in space.groups.items() if g.permutable}


def random_scales(space: WeightSpace, generator: torch.Generator) -> dict[str, Tensor]:
    """Scales of each group, of the kind that it declares, positive ones between 1/e and e."""
    scales = {}
    for name, group in space.groups.items():
        positive = torch.exp(2 * torch.rand(group.size, generator=generator, dtype=torch.float64) - 1)
        signs = 2.0 * torch.randint(2, (group.size,), generator=generator).double() - 1
        if group.scaling != "none":
            scales[name] = {"positive": positive, "sign": signs, "any": positive * signs}[group.scaling]
    return scales


def all_permutations_but_identity(sizes: Mapping[str, int]) -> Iterator[dict[str, Tensor]]:
    """Every joint permutation of several groups that moves at least one neuron."""
    for picks in itertools.product(*(itertools.permutations(range(size)) for size in sizes.values())):
        if any(list(pick) != sorted(pick) for pick in picks):
            yield {name: torch.tensor(pick) for name, pick in zip(sizes, picks, strict=True)}


def count_permutations(sizes: Mapping[str, int]) -> int:
    return math.prod(math.factorial(size) for size in sizes.values())
