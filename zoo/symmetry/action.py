"""The symmetry group of a weight space: permutations and scales of neurons, and how they act.

    act(compose(a, b), p) == act(a, act(b, p))
    act(inverse(a), act(a, p)) == p
    f(act(a, p)) == f(p)

An element moves neuron `permutations[g][i]` of group `g` to place `i` and then multiplies what
writes it by `scales[g][i]`, what reads it by the reciprocal.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from zoo.options import Natural, checked
from zoo.params import Params, batch_shape
from zoo.pattern import Pattern
from zoo.symmetry.axes import along, permutation_of_axis, scale_of_axis, take
from zoo.weight_space import WeightSpace


@dataclass(frozen=True, eq=False)
class GroupElement:
    """One symmetry of a weight space, or many along leading axes.

    Attributes:
        permutations: For a group, `[*batch, size]`: the neuron that comes to each place. A group
            that is absent stays.
        scales: For a group, `[*batch, size]`: the factor of the neuron at each place, after the
            permutation. Absent means 1.
    """

    permutations: Mapping[str, Int64[Tensor, "*batch _"]]
    scales: Mapping[str, Float[Tensor, "*batch _"]]


def identity(space: WeightSpace, batch: Sequence[int] = ()) -> GroupElement:
    """The element that changes nothing.

    Args:
        space: The weight space.
        batch: Leading axes.

    Returns:
        The element, with an entry for every group that may move or scale; scales are float64.
    """
    groups = space.groups.items()
    permutations = {
        n: torch.arange(g.size).expand(*batch, g.size) for n, g in groups if g.permutable
    }
    scales = {
        n: torch.ones(*batch, g.size, dtype=torch.float64) for n, g in groups if g.scaling != "none"
    }
    return GroupElement(permutations, scales)


@checked
def sample(
    space: WeightSpace, generator: torch.Generator, batch: Sequence[Natural] = ()
) -> GroupElement:
    """Draw elements: uniform permutations, log-uniform positive scales in [1/e, e], fair signs.

    Args:
        space: The weight space.
        generator: Source of randomness; the element is on its device.
        batch: Leading axes, one independent element for each place.

    Returns:
        The elements.

    >>> from zoo.weight_space import NeuronGroup
    >>> space = WeightSpace({"h": NeuronGroup(3, scaling="sign")}, {"bias": "h"})
    >>> element = sample(space, torch.Generator().manual_seed(0), batch=(5,))
    >>> element.permutations["h"].shape, element.scales["h"].abs().unique().tolist()
    (torch.Size([5, 3]), [1.0])
    """
    permutations, scales = {}, {}

    uniform = partial(torch.rand, generator=generator, device=generator.device, dtype=torch.float64)
    for name, group in space.groups.items():
        if group.permutable:
            permutations[name] = uniform(*batch, group.size).argsort(-1)
        if group.scaling != "none":
            draws = 2 * uniform(2, *batch, group.size) - 1
            positive, sign = draws[0].exp(), torch.where(draws[1] < 0, -1.0, 1.0).double()
            scales[name] = {"positive": positive, "sign": sign, "any": positive * sign}[
                group.scaling
            ]
    return GroupElement(permutations, scales)


@checked
def act(space: WeightSpace, element: GroupElement, params: Mapping[str, Tensor]) -> Params:
    """Move params by an element.

    Args:
        space: The weight space.
        element: The element; its leading axes broadcast against those of the params.
        params: Tensors `[*batch, *shape]`.

    Returns:
        Params of a network with the same function, as far as the space declares the element.

    Raises:
        ValueError: If the params do not fit the space, or the element has another number of neurons
            for a group.
    """
    values = [*element.permutations.values(), *element.scales.values()]
    lead = batch_shape(space, params)
    batch = torch.broadcast_shapes(lead, *(value.shape[:-1] for value in values))
    _check(space, element)
    return {
        name: _moved(space, element, space.pattern(name), params[name]).expand((*batch, *shape))
        for name, shape in space.shapes.items()
    }


def _moved(space: WeightSpace, element: GroupElement, pattern: Pattern, tensor: Tensor) -> Tensor:
    """A tensor moved along each of its axes, by the neurons that stand there."""
    rank = len(pattern.axes)
    for i, (axis, power) in enumerate(zip(pattern.axes, pattern.powers, strict=True)):
        index = permutation_of_axis(space, element.permutations, axis)
        if index is not None:
            tensor = take(tensor, index, i - rank, rank)
        scale = scale_of_axis(space, element.scales, axis)
        if scale is not None:
            factor = (scale if power > 0 else 1 / scale).to(tensor)
            tensor = tensor * along(factor, i, rank)
    return tensor


def compose(first: GroupElement, second: GroupElement) -> GroupElement:
    """The element that acts as `second` and then as `first`.

    Args:
        first: An element.
        second: An element whose leading axes broadcast against those of `first`.

    Returns:
        The product `first * second`.
    """
    permutations, scales = dict(second.permutations), dict(second.scales)
    for name, order in first.permutations.items():
        earlier = permutations.get(name)
        permutations[name] = order if earlier is None else take(earlier, order, -1, 1)
        if name in scales:
            scales[name] = take(scales[name], order, -1, 1)
    for name, scale in first.scales.items():
        scales[name] = scale * scales.get(name, 1)
    return GroupElement(permutations, scales)


def inverse(element: GroupElement) -> GroupElement:
    """The element that undoes another.

    Args:
        element: The element.

    Returns:
        Its inverse.
    """
    back = {name: permutation.argsort(-1) for name, permutation in element.permutations.items()}
    scales = {
        name: 1 / (take(scale, back[name], -1, 1) if name in back else scale)
        for name, scale in element.scales.items()
    }
    return GroupElement(back, scales)


def orbit_ids(space: WeightSpace) -> dict[str, Int64[Tensor, " _"]]:
    """Which neurons are alike: one id for a permutable group, one for each neuron of a fixed group.

    Args:
        space: The weight space.

    Returns:
        For each group `[size]`; ids count from 0 over the whole space.
    """
    ids, count = {}, 0
    for name, group in space.groups.items():
        num_orbits = 1 if group.permutable else group.size
        ids[name] = count + torch.arange(num_orbits).expand(group.size)
        count += num_orbits
    return ids


def tensorwise(function: Callable[..., Tensor], *elements: GroupElement) -> GroupElement:
    """One element, each tensor of which is made of those of some elements with the same groups.

    Args:
        function: From one tensor of each element to one tensor.
        *elements: At least one element.

    Returns:
        The element.
    """
    first = elements[0]
    return GroupElement(
        {n: function(*(each.permutations[n] for each in elements)) for n in first.permutations},
        {n: function(*(each.scales[n] for each in elements)) for n in first.scales},
    )


def with_batch(element: GroupElement, batch: Sequence[int]) -> GroupElement:
    """The element with other leading axes, of the same number of places."""
    return tensorwise(lambda values: values.reshape(*batch, values.shape[-1]), element)


def restricted(element: GroupElement, groups: Collection[str]) -> GroupElement:
    """The part of an element that moves the neurons of some groups."""
    return GroupElement(
        {name: p for name, p in element.permutations.items() if name in groups},
        {name: s for name, s in element.scales.items() if name in groups},
    )


def _check(space: WeightSpace, element: GroupElement) -> None:
    for name, values in [*element.permutations.items(), *element.scales.items()]:
        if name not in space.groups:
            known = sorted(space.groups)
            raise ValueError(f"the element moves a group {name!r}; groups of the space are {known}")
        expected, got = space.groups[name].size, values.shape[-1]
        if got != expected:
            raise ValueError(f"group {name!r}: expected {expected} neurons, got {got}")
