"""The action of permutations and scales of neurons on parameters, axis by axis; slow."""

import itertools
import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from tests.reference.zoo_orbit import axes_of, came_from
from zoo.weight_space import WeightSpace

Neurons = Mapping[str, Tensor]  # by group: a permutation (int64) or scales (float64)


def act(
    space: WeightSpace, params: Mapping[str, Tensor], permutations: Neurons, scales: Neurons
) -> dict[str, Tensor]:
    """Neuron `i` becomes the old neuron `permutation[i]`, then is scaled by `scales[i]`."""
    sizes = {name: group.size for name, group in space.groups.items()}
    permutations = {name: values.tolist() for name, values in permutations.items()}
    scales = {name: values.tolist() for name, values in scales.items()}
    moved = {}
    for name, text in space.tensors.items():
        tensor = params[name]
        for position, (axis, side) in enumerate(zip(*axes_of(sizes, text), strict=True)):
            tensor = act_on_axis(tensor, position, axis, side, permutations, scales)
        moved[name] = tensor
    return moved


def act_on_axis(
    tensor: Tensor, position: int, axis: list[tuple], side: int, permutations, scales
) -> Tensor:
    """For each place: where its old neurons stood, and the product of the new ones' scales."""
    place_of = {atoms: place for place, atoms in enumerate(axis)}
    sources = [place_of[tuple(came_from(atom, permutations) for atom in atoms)] for atoms in axis]
    factors = torch.ones(len(axis), dtype=tensor.dtype)
    for place, atoms in enumerate(axis):
        for atom in atoms:
            if atom[0] in scales:
                group, neuron, power = atom
                factors[place] *= scales[group][neuron] ** (side * power)
    after = tensor.dim() - position - 1
    return tensor.index_select(position, torch.tensor(sources)) * factors.reshape(-1, *[1] * after)


def random_permutations(space: WeightSpace, generator: torch.Generator) -> dict[str, Tensor]:
    """A permutation of each group that is declared permutable."""
    return {
        name: torch.randperm(g.size, generator=generator)
        for name, g in space.groups.items()
        if g.permutable
    }


def random_scales(space: WeightSpace, generator: torch.Generator) -> dict[str, Tensor]:
    """Scales of each group, of the kind that it declares, positive ones between 1/e and e."""
    scales = {}
    for name, group in space.groups.items():
        positive = torch.exp(
            2 * torch.rand(group.size, generator=generator, dtype=torch.float64) - 1
        )
        signs = 2.0 * torch.randint(2, (group.size,), generator=generator).double() - 1
        if group.scaling != "none":
            scales[name] = {"positive": positive, "sign": signs, "any": positive * signs}[
                group.scaling
            ]
    return scales


def all_permutations_but_identity(sizes: Mapping[str, int]) -> Iterator[dict[str, Tensor]]:
    """Every joint permutation of several groups that moves at least one neuron."""
    for picks in itertools.product(
        *(itertools.permutations(range(size)) for size in sizes.values())
    ):
        if any(list(pick) != sorted(pick) for pick in picks):
            yield {name: torch.tensor(pick) for name, pick in zip(sizes, picks, strict=True)}


def count_permutations(sizes: Mapping[str, int]) -> int:
    return math.prod(math.factorial(size) for size in sizes.values())
