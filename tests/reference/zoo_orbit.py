"""The group action entry by entry, from the text of the patterns alone.

An axis is the list of its positions, and a position is the tuple of what it was put together from:
`("h", 2, 1)` is neuron 2 of group `h` with power 1, `("#", 5)` place 5 of a plain factor,
`("+", 1)` the second term of a sum. Knows no parser but its own.
"""

import itertools
import re
from collections.abc import Mapping

import torch
from torch import Tensor

from zoo.weight_space import WeightSpace


def act(
    space: WeightSpace, params: Mapping[str, Tensor], permutations: Mapping, scales: Mapping
) -> dict[str, Tensor]:
    """Place `i` gets the old neuron `permutation[i]`, times its scale, or `1 / scale` if read."""
    sizes = {name: group.size for name, group in space.groups.items()}
    permutations = {name: values.tolist() for name, values in permutations.items()}
    scales = {name: values.tolist() for name, values in scales.items()}
    return {
        name: act_on(sizes, space.tensors[name], params[name], permutations, scales)
        for name in space.tensors
    }


def act_on(
    sizes: Mapping[str, int], text: str, tensor: Tensor, permutations: Mapping, scales: Mapping
) -> Tensor:
    axes, sides = axes_of(sizes, text)
    assert tuple(tensor.shape) == tuple(len(axis) for axis in axes), (text, tuple(tensor.shape))
    moved = torch.empty_like(tensor)
    for place in itertools.product(*(range(len(axis)) for axis in axes)):
        source, factor = [], 1.0
        for axis, side, i in zip(axes, sides, place, strict=True):
            source.append(axis.index(tuple(came_from(atom, permutations) for atom in axis[i])))
            for atom in axis[i]:
                if atom[0] in scales:
                    group, neuron, power = atom
                    factor *= scales[group][neuron] ** (side * power)
        moved[place] = factor * tensor[tuple(source)]
    return moved


def came_from(atom: tuple, permutations: Mapping) -> tuple:
    if atom[0] in permutations:
        group, neuron, power = atom
        return group, permutations[group][neuron], power
    return atom


def axes_of(sizes: Mapping[str, int], text: str) -> tuple[list[list[tuple]], list[int]]:
    """Positions of each axis in the tensor's order, with 1 if it is written and -1 if read."""
    if "->" in text:
        read, written = text.split("->")
        parts = [(read, -1), (written, 1)]
    else:
        written, _, read = text.partition("<-")
        parts = [(written, 1), (read, -1)]
    axes, sides = [], []
    for part, side in parts:
        tokens = re.findall(r"[()+]|[^\s()+]+", part)
        while tokens:
            axes.append(positions(sizes, tokens))
            sides.append(side)
    return axes, sides


def positions(sizes: Mapping[str, int], tokens: list[str]) -> list[tuple]:
    """Take one factor from the front of the tokens."""
    token = tokens.pop(0)
    if token == "(":
        terms = [product(sizes, tokens)]
        while tokens.pop(0) == "+":
            terms.append(product(sizes, tokens))
        if len(terms) == 1:
            return terms[0]
        return [
            (("+", number), *position) for number, term in enumerate(terms) for position in term
        ]
    if token.isdigit():
        return [(("#", i),) for i in range(int(token))]
    group, _, power = token.partition("^")
    return [((group, i, int(power or 1)),) for i in range(sizes[group])]


def product(sizes: Mapping[str, int], tokens: list[str]) -> list[tuple]:
    """Take factors up to the next `+` or `)`; the last factor changes fastest."""
    whole = [()]
    while tokens[0] not in ("+", ")"):
        factor = positions(sizes, tokens)
        whole = [left + right for left in whole for right in factor]
    return whole
