"""The symmetry group of a weight space: permutations and scales of neurons, and how they act on params.

    act(compose(a, b), p) == act(a, act(b, p))        act(inverse(a), act(a, p)) == p        f(act(a, p)) == f(p)

An element moves neuron `permutations[g][i]` of group `g` to place `i` and then multiplies what
writes it by `scales[g][i]`, what reads it by the reciprocal.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from zoo.params import Params, batch_shape
from zoo.symmetry.axes import permutation_of_axis, scale_of_axis, take
from zoo.symmetry.residual import (
    SymmetryReport,
    candidates,
    differences,
    scaling_residual,
    tensors_in,
)
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
    return GroupElement(
        {name: torch.arange(g.size).expand(*batch, g.size) for name, g in groups if g.permutable},
        {
            name: torch.ones(*batch, g.size, dtype=torch.float64)
            for name, g in groups
            if g.scaling != "none"
        },
    )


def sample(
    space: WeightSpace, generator: torch.Generator, batch: Sequence[int] = ()
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
    for name, group in space.groups.items():
        shape, device = (*batch, group.size), generator.device
        if group.permutable:
            permutations[name] = torch.rand(
                shape, generator=generator, device=device, dtype=torch.float64
            ).argsort(-1)
        if group.scaling != "none":
            draws = (
                2 * torch.rand(2, *shape, generator=generator, device=device, dtype=torch.float64)
                - 1
            )
            positive, sign = draws[0].exp(), torch.where(draws[1] < 0, -1.0, 1.0).double()
            scales[name] = {"positive": positive, "sign": sign, "any": positive * sign}[
                group.scaling
            ]
    return GroupElement(permutations, scales)


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
    batch = torch.broadcast_shapes(
        batch_shape(space, params), *(value.shape[:-1] for value in values)
    )
    _check(space, element)
    moved = {}
    for name in space.tensors:
        pattern, tensor = space.pattern(name), params[name]
        for i, (axis, power) in enumerate(zip(pattern.axes, pattern.powers, strict=True)):
            dim = i - len(pattern.axes)
            index = permutation_of_axis(space, element.permutations, axis)
            scale = scale_of_axis(space, element.scales, axis)
            if index is not None:
                tensor = take(tensor, index, dim, len(pattern.axes))
            if scale is not None:
                factor = (scale if power > 0 else 1 / scale).to(tensor)
                tensor = tensor * factor.reshape(
                    *scale.shape[:-1], *(1,) * i, scale.shape[-1], *(1,) * (-1 - dim)
                )
        moved[name] = tensor.expand((*batch, *space.shapes[name]))
    return moved


def compose(first: GroupElement, second: GroupElement) -> GroupElement:
    """The element that acts as `second` and then as `first`.

    Args:
        first: An element.
        second: An element whose leading axes broadcast against those of `first`.

    Returns:
        The product `first * second`.
    """
    permutations, scales = dict(second.permutations), dict(second.scales)
    for name, permutation in first.permutations.items():
        if name in permutations:
            permutations[name] = take(permutations[name], permutation, -1, 1)
        else:
            permutations[name] = permutation
        if name in scales:
            scales[name] = take(scales[name], permutation, -1, 1)
    for name, scale in first.scales.items():
        scales[name] = scale * scales[name] if name in scales else scale
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
        name: 1 / (take(s, back[name], -1, 1) if name in back else s)
        for name, s in element.scales.items()
    }
    return GroupElement(back, scales)


def function_change(
    space: WeightSpace,
    apply: Callable[[Params], Any],
    params: Mapping[str, Tensor],
    generator: torch.Generator,
    num_samples: int = 4,
    groups: Collection[str] | None = None,
) -> float:
    """How far declared symmetries move the outputs of a network: 0, up to rounding, if the space is sound.

    change = max over elements g of |f(act(g, p)) - f(p)|_max / max(1, |f(p)|_max)

    Args:
        space: The weight space.
        apply: From params to outputs, with the inputs inside: a tensor, or tuples, lists and
            mappings of them.
        params: Tensors `[*batch, *shape]`, as `apply` takes them.
        generator: Source of the elements.
        num_samples: Number of elements.
        groups: The groups that move, all that the space lets move if None.

    Returns:
        The largest change; infinite if an output is NaN, or infinite, on one side only.

    Raises:
        ValueError: If a group is unknown, or if there are no outputs to compare.

    >>> from zoo.weight_space import NeuronGroup
    >>> space = WeightSpace({"h": NeuronGroup(3)}, {"bias": "h"})
    >>> function_change(space, lambda p: p["bias"].sum(), {"bias": torch.arange(3.0)}, torch.Generator().manual_seed(0))
    0.0
    """
    chosen = space.groups if groups is None else groups
    if unknown := sorted(set(chosen) - set(space.groups)):
        raise ValueError(
            f"function_change: unknown groups {unknown}; groups of the space are {sorted(space.groups)}"
        )
    changes = [0.0]
    with torch.no_grad():
        before = [output[None] for output in tensors_in(apply(dict(params)))]
        for _ in range(num_samples):
            element = sample(space, generator)
            permutations = {name: p for name, p in element.permutations.items() if name in chosen}
            scales = {name: s for name, s in element.scales.items() if name in chosen}
            moved = apply(act(space, GroupElement(permutations, scales), params))
            change, size = differences(before, [output[None] for output in tensors_in(moved)])
            changes.append(float(change / size.clamp_min(1)))
    return max(changes)


def symmetry_residual(
    apply: Callable[[Params, Any], Any],
    params: Mapping[str, Tensor],
    batch: tuple[Any, Any],
    space: WeightSpace,
    loss: Callable[[Any, Any], Tensor] = F.cross_entropy,
    free: Mapping[str, Tensor] | None = None,
    generator: torch.Generator | None = None,
    num_samples: int = 4,
) -> SymmetryReport:
    """Test every group of hidden neurons for permutations, sign flips and positive scales, whether declared or not.

    A continuous symmetry with generator `xi` has `<grad L, xi> = 0` on every minibatch, whatever
    the optimizer.

    Args:
        apply: The function of one network, `apply(params, x) -> outputs`; many networks go through
            `torch.func.vmap`.
        params: Tensors `[*batch, *shape]`.
        batch: Inputs `x` and labels `y`, the same for all networks.
        space: The weight space.
        loss: `loss(outputs, y) -> scalar`, the mean cross-entropy if not given.
        free: Masks `[*shape]`, True where an entry is trained. Fixed entries have no gradient, and
            a moved network gets them back, because all networks of a population share them.
        generator: Source of the permutations, seeded with 0 if None.
        num_samples: Permutations of each group.

    Returns:
        The report, with residuals `[*batch, size]` and `[*batch]` for each group.

    References:
        Kunin et al. 2021, arXiv 2012.04728, section 3; Gluch and Urbanke 2021, arXiv 2104.05508.
    """
    generator = generator if generator is not None else torch.Generator().manual_seed(0)
    (x, y), lead, masks = batch, batch_shape(space, params), free or {}
    networks = {
        name: params[name].detach().reshape(-1, *shape) for name, shape in space.shapes.items()
    }

    def each(function: Callable[..., Any], *stacked: Params) -> list[Tensor]:
        if lead:
            return list(tensors_in(torch.func.vmap(function)(*stacked)))
        first = [{name: tensor[0] for name, tensor in part.items()} for part in stacked]
        return [output[None] for output in tensors_in(function(*first))]

    def change(element: GroupElement) -> Tensor:
        moved = act(space, element, networks)
        for name, mask in masks.items():
            moved[name] = torch.where(mask.to(moved[name].device), moved[name], networks[name])
        difference, size = differences(before, each(lambda own: apply(own, x), moved))
        return difference / torch.where(size > 0, size, 1)

    trained = {name: tensor for name, tensor in networks.items() if tensor.is_floating_point()}
    others = {name: tensor for name, tensor in networks.items() if name not in trained}
    grad = torch.func.grad(lambda own, rest: loss(apply({**own, **rest}, x), y))
    gradients = dict(
        zip(
            trained,
            each(lambda own, rest: list(grad(own, rest).values()), trained, others),
            strict=True,
        )
    )
    for name, mask in masks.items():
        gradients[name] = gradients[name] * mask.to(gradients[name].device)
    scale, sign, permutation, groups = {}, {}, {}, candidates(space)
    with torch.no_grad():
        before = each(lambda own: apply(own, x), networks)
        for name in groups:
            size = space.groups[name].size
            scale[name] = scaling_residual(space, networks, gradients, name).reshape(*lead, size)
            flips = 1 - 2 * torch.eye(size, dtype=torch.float64)
            sign[name] = torch.stack(
                [change(GroupElement({}, {name: flip})) for flip in flips], -1
            ).reshape(*lead, size)
            changes = [
                change(GroupElement({name: _shuffle(size, generator)}, {}))
                for _ in range(num_samples)
            ]
            permutation[name] = torch.stack(changes).amax(0).reshape(lead)
    tolerance = max(torch.finfo(tensor.dtype).eps for tensor in trained.values()) ** 0.5
    return SymmetryReport(
        {name: space.groups[name] for name in groups}, scale, sign, permutation, tolerance
    )


def _shuffle(size: int, generator: torch.Generator) -> Int64[Tensor, " h"]:
    """A random permutation, never the identity if there is another."""
    order = torch.rand(size, generator=generator, device=generator.device).argsort()
    return order.roll(1) if bool((order.diff() > 0).all()) else order


def orbit_ids(space: WeightSpace) -> dict[str, Int64[Tensor, " _"]]:
    """Which neurons are alike: one id for all neurons of a permutable group, one for each neuron of a fixed group.

    Args:
        space: The weight space.

    Returns:
        For each group `[size]`; ids count from 0 over the whole space.
    """
    ids, count = {}, 0
    for name, group in space.groups.items():
        own = 1 if group.permutable else group.size
        ids[name] = count + torch.arange(own).expand(group.size)
        count += own
    return ids


def _check(space: WeightSpace, element: GroupElement) -> None:
    for kind in (element.permutations, element.scales):
        for name, values in kind.items():
            if name not in space.groups:
                raise ValueError(
                    f"the element moves a group {name!r}; groups of the space are {sorted(space.groups)}"
                )
            if values.shape[-1] != space.groups[name].size:
                raise ValueError(
                    f"group {name!r}: expected {space.groups[name].size} neurons, got {values.shape[-1]}"
                )
