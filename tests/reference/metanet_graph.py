"""Slow twin of `metanet.graphs.topology`: one network, entry by entry, no sums."""

from itertools import product

from zoo.pattern import Label


def entries(space, params):
    """`{(tensor, written neurons, read neurons): [entries in C order]}` of one network.

    A neuron is `(group, place)`.
    """
    values = {}
    for name, shape in space.shapes.items():
        pattern = space.pattern(name)
        for index in product(*map(range, shape)):
            ends = {1: [], -1: []}
            for axis, sign, place in zip(pattern.axes, pattern.powers, index, strict=True):
                ends[sign] += neurons(space, axis, place)
            key = (name, tuple(ends[1]), tuple(ends[-1]))
            values.setdefault(key, []).append(float(params[name][index]))
    return values


def neurons(space, axis, place):
    """The neurons that one position of a product of factors stands for."""
    factors = []
    for factor in reversed(axis):
        place, neuron = divmod(place, space.size((factor,)))
        if isinstance(factor, Label):
            factors.append((factor.group, neuron))
    return factors[::-1]
