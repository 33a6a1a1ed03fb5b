"""Copy neurons: entries are repeated where a group is written, and divided too where it is read."""

from dataclasses import replace
from itertools import product
from math import prod

import torch

from zoo.pattern import Label, Sum
from zoo.weight_space import WeightSpace


def widen(space, params, factors):
    """A wider weight space, and its params: neuron i of group g becomes `factors[g]` equal neurons.

    Where every group that is read is summed over, the network computes the same function.
    """
    groups = {
        name: replace(group, size=group.size * factors.get(name, 1))
        for name, group in space.groups.items()
    }
    wide = dict(params)
    for name, shape in space.shapes.items():
        pattern = space.pattern(name)
        for at, (axis, power) in enumerate(zip(pattern.axes, pattern.powers, strict=True)):
            places, copies = zip(*positions(space, axis, factors), strict=True)
            wider = wide[name].index_select(at - len(shape), torch.tensor(places))
            divisors = torch.tensor(copies, dtype=wider.dtype).reshape(
                [-1] + [1] * (len(shape) - at - 1)
            )
            wide[name] = wider / divisors if power < 0 else wider
    return WeightSpace(groups, space.tensors), wide


def positions(space, axis, factors):
    """For each position of the widened axis, what it copies and the number of copies."""
    sizes = [space.size((factor,)) for factor in axis]
    places = []
    for combination in product(*(of_factor(space, factor, factors) for factor in axis)):
        place = 0
        for size, (position, _) in zip(sizes, combination, strict=True):
            place = place * size + position
        places.append((place, prod(copies for _, copies in combination)))
    return places


def of_factor(space, factor, factors):
    if isinstance(factor, Label):
        copies = factors.get(factor.group, 1)
        return [
            (neuron, copies)
            for neuron in range(space.groups[factor.group].size)
            for _ in range(copies)
        ]
    if isinstance(factor, Sum):
        places, start = [], 0
        for term in factor.terms:
            places += [(start + place, copies) for place, copies in positions(space, term, factors)]
            start += space.size(term)
        return places
    return [(neuron, 1) for neuron in range(factor)]
