"""Canonical form: one point for each orbit of the permutations and scales that a weight space declares.

    canonicalize(space, act(space, g, p)) == canonicalize(space, p) == act(space,
    canonical_element(space, p), p)

Positive scales go to the balanced point (`zoo.symmetry.balance`), then neurons are sorted, then
signs are chosen. Each step asks only what the symmetries that are still open cannot change, so the
order of the steps, not of the groups, is what matters.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from zoo.params import Params, batch_shape
from zoo.symmetry.action import GroupElement, act
from zoo.symmetry.axes import take
from zoo.symmetry.balance import balancing_scales
from zoo.symmetry.blocks import Dim, cut_blocks
from zoo.weight_space import WeightSpace

_CHUNK_ENTRIES = 2**20
_Step = Callable[[WeightSpace, Params, Params], Params]
_Piece = tuple[tuple[str, ...], Float[Tensor, "N ..."]]


def canonicalize(space: WeightSpace, params: Mapping[str, Tensor]) -> Params:
    """Move networks to the canonical points of their orbits.

    The function of a network stays. Networks that differ by a symmetry of the space become the
    same, up to rounding, if they
    are generic: see `canonical_element`.

    Args:
        space: The weight space.
        params: Tensors `[*batch, *shape]`.

    Returns:
        Params of the same shapes.

    >>> from zoo.weight_space import NeuronGroup
    >>> space = WeightSpace({"h": NeuronGroup(3)}, {"bias": "h"})
    >>> canonicalize(space, {"bias": torch.tensor([0.5, 3.0, -1.0])})["bias"]
    tensor([ 3.0000, -1.0000,  0.5000])
    """
    return act(space, canonical_element(space, params), params)


def canonical_element(space: WeightSpace, params: Mapping[str, Tensor]) -> GroupElement:
    """The symmetry that moves networks to the canonical points of their orbits.

    Scales: as much squared weight enters a neuron as leaves it (`zoo.symmetry.balance.balancing_scales`).
        Permutations: the neurons of a group
    are sorted, largest first, by a weighted sum of the absolute values of their entries; the
    weights depend on the position along axes that cannot be permuted, and on the sums of the other
    neurons along those that can. Signs: a weighted sum of the signed squares of a neuron's entries
    is positive, as far as the signs of the entries' other neurons are known by then.

    Two networks of one orbit get the same point if no two neurons of a group tie in the first sum
    unless they are exchangeable, and no second sum is 0 unless the neuron is. Neurons that are 0,
    or have no entries, keep scale 1 and stand last.

    Args:
        space: The weight space.
        params: Tensors `[*batch, *shape]`.

    Returns:
        The element `[*batch]`, with permutations and scales for every group that may have them.
    """
    lead = batch_shape(space, params)
    networks = math.prod(lead)
    flat = {
        name: params[name].detach().reshape(networks, *shape)
        for name, shape in space.shapes.items()
    }
    scales = {
        name: scale.reshape(networks, scale.shape[-1])
        for name, scale in balancing_scales(space, flat).items()
    }
    permutations = _chunked(_order, space, flat, scales)
    scales = {
        name: take(scale, permutations[name], -1, 1) if name in permutations else scale
        for name, scale in scales.items()
    }
    if any(group.scaling in ("sign", "any") for group in space.groups.values()):
        signs = _chunked(_signs, space, act(space, GroupElement(permutations, scales), flat), {})
        scales |= {
            name: scales[name] * sign if name in scales else sign for name, sign in signs.items()
        }
    return GroupElement(
        {name: index.reshape(*lead, index.shape[-1]) for name, index in permutations.items()},
        {
            n: scales[n].reshape(*lead, group.size)
            for n, group in space.groups.items()
            if group.scaling != "none"
        },
    )


def _chunked(function: _Step, space: WeightSpace, params: Params, scales: Params) -> Params:
    """Run a step on some networks at a time, as many as the processor's cache holds."""
    networks, chunk = _count(params), max(1, _CHUNK_ENTRIES // max(1, space.num_params))
    parts = []
    for start in range(0, max(networks, 1), chunk):
        rows = slice(start, start + chunk)
        own = [
            {name: tensor[rows] for name, tensor in values.items()} for values in (params, scales)
        ]
        parts.append(function(space, *own))
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _count(params: Params) -> int:
    return next((len(tensor) for tensor in params.values()), 1)


def _order(space: WeightSpace, params: Params, scales: Params) -> Params:
    """The canonical order of the neurons of each permutable group, `[N, size]`."""
    pieces = _pieces(
        space,
        params,
        scales,
        lambda dim: bool(dim.group) and space.groups[str(dim.group)].permutable,
        _size,
    )
    keys: Params = {}
    for _ in range(
        2
    ):  # the second time, an entry counts according to the other neurons that it belongs to
        weights = {
            name: 1 + key / (2 * key.amax(1, keepdim=True).clamp_min(1e-300))
            for name, key in keys.items()
        }
        keys = {}
        for groups, values in pieces:
            for i, name in enumerate(groups):
                own = _onto([i], groups, values, weights) * _mark(i)
                keys[name] = keys[name] + own if name in keys else own
    movable = {name: group.size for name, group in space.groups.items() if group.permutable}
    for name in movable.keys() - keys.keys():
        keys[name] = torch.zeros(_count(params), movable[name])
    return {name: keys[name].argsort(stable=True, dim=-1, descending=True) for name in movable}


def _size(x: Float[Tensor, "..."], flips: bool) -> Float[Tensor, "..."]:
    """The size of entries; of those that no symmetry flips, negative ones count less."""
    return x.abs() if flips else torch.maximum(x, -0.9 * x)


def _signs(space: WeightSpace, params: Params, scales: Params) -> Params:
    """Canonical signs of the neurons of each group that may have them, `[N, size]`; the neurons are sorted already."""
    sizes = {
        name: group.size for name, group in space.groups.items() if group.scaling in ("sign", "any")
    }
    pieces = _pieces(
        space,
        params,
        scales,
        lambda dim: dim.group in sizes and dim.power % 2 == 1,
        lambda x, _: x * x.abs(),
    )
    signs, weights, pending = {}, {}, dict(sizes)
    while pending:
        known = {
            name: [_is_known(name, groups, signs) for groups, _ in pieces if name in groups]
            for name in pending
        }
        ready = [
            name for name, pieces_known in known.items() if any(pieces_known) or not pieces_known
        ]
        if not ready:
            return signs | _joint_signs(pieces, pending, weights)
        name = min(ready, key=lambda name: known[name].count(False))
        statistic = torch.zeros(_count(params), pending.pop(name), dtype=torch.float64)
        for groups, values in pieces:
            if name in groups and _is_known(name, groups, signs):
                statistic = statistic.to(values.device) + _onto(
                    [groups.index(name)], groups, values, weights
                )
        signs[name] = torch.where(statistic < 0, -1.0, 1.0).double()
        weights[name] = signs[name] * _spread(sizes[name]).to(statistic.device)
    return signs


def _is_known(name: str, groups: Sequence[str], signs: Params) -> bool:
    """Whether all signs that act on a piece are known, but those of one group on one axis."""
    return groups.count(name) == 1 and all(group in signs for group in groups if group != name)


def _joint_signs(pieces: list[_Piece], pending: Mapping[str, int], weights: Params) -> Params:
    """Signs of groups whose entries all belong to two or more of their neurons at once."""
    # Goes through the entries in order and makes each positive whose sign those before it leave
    # open. These are equations over
    # the field of two elements, the same for all networks.
    starts = dict(zip(pending, itertools.accumulate(pending.values(), initial=0), strict=False))
    rows: dict[
        int, tuple[int, int]
    ] = {}  # last neuron of an equation -> bits of its neurons, bits of the entries in it
    negative: list[Tensor] = []
    for groups, values in pieces:
        axes = [i for i, group in enumerate(groups) if group in pending]
        summed = _onto(axes, groups, values, weights)
        for place in itertools.product(*(range(pending[groups[i]]) for i in axes)):
            neurons, entries = 0, 1 << len(negative)
            for i, index in zip(axes, place, strict=True):
                neurons ^= 1 << (starts[groups[i]] + index)
            while (last := neurons.bit_length() - 1) in rows:
                neurons, entries = neurons ^ rows[last][0], entries ^ rows[last][1]
            if neurons:
                rows[last] = neurons, entries
                negative.append(summed[(slice(None), *place)] < 0)
    size, count = sum(pending.values()), len(pieces[0][1])
    flip = torch.zeros(count, size, dtype=torch.bool, device=pieces[0][1].device)
    for last, (neurons, entries) in sorted(
        rows.items()
    ):  # neurons without an equation of their own keep their signs
        for i in range(len(negative)):
            flip[:, last] ^= negative[i] & bool(entries >> i & 1)
        for i in range(last):
            flip[:, last] ^= flip[:, i] & bool(neurons >> i & 1)
    return {
        name: 1.0 - 2.0 * flip[:, start : start + pending[name]].double()
        for name, start in starts.items()
    }


def _pieces(
    space: WeightSpace,
    params: Params,
    scales: Params,
    keep: Callable[[Dim], bool],
    function: Callable[[Tensor, bool], Tensor],
) -> list[_Piece]:
    """All blocks, mapped by a function (told if signs may flip), scaled, and summed with weights over axes not kept."""
    pieces = []
    for block in cut_blocks(space):
        kept = [i for i, dim in enumerate(block.dims) if keep(dim)]
        others = [i for i in range(len(block.dims)) if i not in kept]
        if not kept:
            continue
        tensor = block.view(params[block.tensor])
        flips = any(
            dim.power % 2 and space.groups[str(dim.group)].scaling in ("sign", "any")
            for dim in block.dims
        )
        values = function(tensor.permute(0, *(i + 1 for i in [*kept, *others])).double(), flips)
        values = values.flatten(1 + len(kept)) if others else values[..., None]
        weight = torch.ones(1, 1, dtype=torch.float64, device=tensor.device)
        for dim in (block.dims[i] for i in others):
            own = _spread(dim.size).to(tensor.device)[None]
            own = own * scales[str(dim.group)] ** dim.power if dim.group in scales else own
            weight = (weight[:, :, None] * own[:, None, :]).flatten(1)
        if len(weight) == 1:
            values = values @ weight[0]
        else:
            values = (
                values * weight.reshape(len(weight), *(1 for _ in kept), weight.shape[1])
            ).sum(-1)
        for axis, dim in enumerate(block.dims[i] for i in kept):
            if dim.group in scales and dim.power:
                values = values * _along(scales[str(dim.group)] ** dim.power, axis, values)
        pieces.append((tuple(str(block.dims[i].group) for i in kept), values * _mark(len(pieces))))
    return pieces


def _onto(
    axes: Sequence[int], groups: Sequence[str], values: Float[Tensor, "N ..."], weights: Params
) -> Float[Tensor, "N ..."]:
    """Sum a piece over all axes but some, with weights for each neuron of the groups that have them."""
    others = [i for i in range(len(groups)) if i not in axes]
    for i in others:
        if groups[i] in weights:
            values = values * _along(weights[groups[i]], i, values)
    return values.sum([i + 1 for i in others]) if others else values


def _along(
    vector: Float[Tensor, "N h"], axis: int, values: Float[Tensor, "N ..."]
) -> Float[Tensor, "N ..."]:
    """A vector for each network, shaped to multiply along one axis of a piece."""
    return vector.reshape(
        len(vector), *(1,) * axis, vector.shape[1], *(1,) * (values.dim() - 2 - axis)
    )


def _mark(number: int) -> float:
    return float(_spread(number + 1)[number])


def _spread(size: int) -> Float[Tensor, " n"]:
    """Weights in [1, 1.5) that tell positions apart: `1 + frac(i phi) / 2` with the golden ratio."""
    return 1 + torch.arange(1, size + 1, dtype=torch.float64).mul(0.5 * 5**0.5 + 0.5).frac() / 2
