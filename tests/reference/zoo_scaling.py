"""The direction in which params move when one neuron is scaled up, entry by entry."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from zoo.params import Params
from zoo.pattern import labels
from zoo.symmetry.axes import scale_of_axis
from zoo.weight_space import WeightSpace


def scaling_generator(
    space: WeightSpace, params: Mapping[str, Tensor], group: str, neuron: int
) -> Params:
    """The direction in which params move when one neuron of a group is scaled up.

    xi = d/dt act(exp(t e_neuron), params) at t = 0

    Each entry counts with the power of the neuron's scale that acts on it: 1 where it is written,
    -1 where it is read, twice that for `h^2`, and the sum of the powers where a tensor names the
    group more than once.

    Args:
        space: The weight space.
        params: Tensors `[*batch, *shape]`.
        group: Name of the group.
        neuron: Which neuron.

    Returns:
        Tensors `[*batch, *shape]`, only those that name the group.

    References:
        Kunin et al. 2021, arXiv 2012.04728, section 3; Gluch and Urbanke 2021, arXiv 2104.05508.
    """
    return {
        name: params[name] * power.to(params[name])
        for name, power in scaling_powers(space, group, neuron).items()
    }


def scaling_powers(space: WeightSpace, group: str, neuron: int) -> Params:
    """The power of a neuron's scale on each entry, for the tensors that name the group."""
    scale = torch.ones(space.groups[group].size, dtype=torch.float64)
    scale[neuron] = math.e
    powers = {}
    for name, shape in space.shapes.items():
        pattern = space.pattern(name)
        if not any(label.group == group for axis in pattern.axes for label in labels(axis)):
            continue
        powers[name] = torch.zeros(shape, dtype=torch.float64)
        for i, (axis, side) in enumerate(zip(pattern.axes, pattern.powers, strict=True)):
            factor = scale_of_axis(space, {group: scale}, axis)
            if factor is not None:
                powers[name] += side * factor.log().round().reshape(
                    -1, *(1,) * (len(pattern.axes) - i - 1)
                )
    return powers
