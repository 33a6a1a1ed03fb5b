"""Canonical form: one point for each orbit of the symmetries that a weight space declares.

    canonicalize(space, act(space, g, p)) == canonicalize(space, p)
    canonicalize(space, p) == act(space, canonical_element(space, p), p)

Positive scales go to the balanced point (`zoo.symmetry.balance`), then neurons are sorted, then
signs are chosen. Each step asks only what the symmetries that are still open cannot change, so the
order of the steps, not of the groups, is what matters.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial, reduce

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from zoo.options import checked
from zoo.params import Params
from zoo.symmetry.action import GroupElement, act, compose, with_batch
from zoo.symmetry.axes import along, outer, summed_to
from zoo.symmetry.balance import balancing_scales_of_rows
from zoo.symmetry.blocks import Dim, cut_blocks
from zoo.symmetry.rows import as_rows, in_chunks, joined, zeros
from zoo.weight_space import WeightSpace

_CHUNK_ENTRIES = 2**20
_Step = Callable[[WeightSpace, Params, Params], Params]
_Piece = tuple[tuple[str, ...], Float[Tensor, "N ..."]]


@checked
def canonicalize(space: WeightSpace, params: Mapping[str, Tensor]) -> Params:
    """Move networks to the canonical points of their orbits.

    The function of a network stays. Networks that differ by a symmetry of the space become the
    same, up to rounding, if they are generic: see `canonical_element`.

    Args:
        space: The weight space.
        params: Tensors `[*batch, *shape]`; entries that are not finite raise ValueError.

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

    Scales: as much squared weight enters a neuron as leaves it (`balancing_scales`).
    Permutations: the neurons of a group are sorted, largest first, by a weighted sum of the
    absolute values of their entries. The weights depend on the position along axes that cannot be
    permuted, and on the sums of the other neurons along those that can. Signs: a weighted sum of
    the signed squares of a neuron's entries is positive, as far as the signs of the entries' other
    neurons are known by then.

    Two networks of one orbit get the same point if no two neurons of a group tie in the first sum
    unless they are exchangeable, and no second sum is 0 unless the neuron is. Neurons that are 0,
    or have no entries, keep scale 1 and stand last.

    Args:
        space: The weight space.
        params: Tensors `[*batch, *shape]`.

    Returns:
        The element `[*batch]`, with permutations and scales for every group that may have them.
    """
    lead, networks = as_rows(space, params)
    balance = GroupElement({}, balancing_scales_of_rows(space, networks))
    order = _in_chunks(_order, space, networks, balance.scales)
    element = compose(GroupElement(order, {}), balance)
    if _signed_groups(space):
        signs = _in_chunks(_signs, space, act(space, element, networks), {})
        element = compose(GroupElement({}, signs), element)
    scales = {name: element.scales[name] for name in space.groups if name in element.scales}
    return with_batch(GroupElement(order, scales), lead)


def _in_chunks(
    step: _Step, space: WeightSpace, params: Params, scales: Mapping[str, Tensor]
) -> Params:
    """Run a step on some networks at a time, as many as the processor's cache holds."""
    return joined(in_chunks(partial(step, space), space, _CHUNK_ENTRIES, params, scales))


def _signed_groups(space: WeightSpace) -> dict[str, int]:
    """The sizes of the groups that may flip the signs of their neurons."""
    return {n: group.size for n, group in space.groups.items() if group.may_flip}


def _order(space: WeightSpace, params: Params, scales: Params) -> Params:
    """The canonical order of the neurons of each permutable group, `[N, size]`."""
    sizes = {name: group.size for name, group in space.groups.items() if group.permutable}
    pieces = _pieces(space, params, scales, lambda dim: dim.group in sizes, _size)
    keys = _keys(pieces, {})
    # The second time, an entry counts according to the other neurons that it belongs to.
    largest = {name: key.amax(1, keepdim=True).clamp_min(1e-300) for name, key in keys.items()}
    weights = {name: 1 + key / (2 * largest[name]) for name, key in keys.items()}
    keys = _keys(pieces, weights)
    keys = {n: zeros(params, size) for n, size in sizes.items()} | keys
    return {n: keys[n].argsort(stable=True, dim=-1, descending=True) for n in sizes}


def _keys(pieces: list[_Piece], weights: Params) -> Params:
    """What the neurons of each group are sorted by: weighted sums of the sizes of their entries."""
    keys: Params = {}
    for groups, values in pieces:
        for i, name in enumerate(groups):
            key = _onto([i], groups, values, weights) * _mark(i)
            keys[name] = keys.get(name, 0) + key
    return keys


def _size(x: Float[Tensor, "..."], flips: bool) -> Float[Tensor, "..."]:
    """The size of entries; of those that no symmetry flips, negative ones count less."""
    return x.abs() if flips else torch.maximum(x, -0.9 * x)


def _signs(space: WeightSpace, params: Params, scales: Params) -> Params:
    """Canonical signs of the neurons, sorted already, of each group that has signs, `[N, size]`."""
    sizes = _signed_groups(space)
    pieces = _pieces(
        space, params, scales, lambda d: d.group in sizes and d.power % 2 == 1, _signed_square
    )
    signs, weights, pending = {}, {}, dict(sizes)
    while pending:
        name = _next_group(pieces, pending, signs)
        if name is None:
            return signs | _joint_signs(pieces, pending, weights)
        parts = [
            _onto([groups.index(name)], groups, values, weights)
            for groups, values in pieces
            if _is_known(name, groups, signs)
        ]
        total = sum(parts, zeros(params, pending.pop(name)))
        signs[name] = torch.where(total < 0, -1.0, 1.0).double()
        weights[name] = signs[name] * _spread(sizes[name]).to(total.device)
    return signs


def _signed_square(x: Float[Tensor, "..."], _flips: bool) -> Float[Tensor, "..."]:
    return x * x.abs()


def _next_group(pieces: list[_Piece], pending: Iterable[str], signs: Params) -> str | None:
    """The group with the fewest open pieces, of those with a piece where all else is known."""
    unknown = {}
    for name in pending:
        known = [_is_known(name, groups, signs) for groups, _ in pieces if name in groups]
        if any(known) or not known:
            unknown[name] = known.count(False)
    return min(unknown, key=unknown.__getitem__) if unknown else None


def _is_known(name: str, groups: Sequence[str], signs: Params) -> bool:
    """Whether all signs that act on a piece are known, but those of one group on one axis."""
    return groups.count(name) == 1 and all(group in signs for group in groups if group != name)


def _joint_signs(pieces: list[_Piece], pending: Mapping[str, int], weights: Params) -> Params:
    """Signs of groups whose entries all belong to two or more of their neurons at once."""
    equations = _independent_equations(_entries(pieces, pending, weights))
    values = pieces[0][1]
    flip = values.new_zeros(len(values), sum(pending.values()), dtype=torch.bool)
    # Neurons without an equation of their own keep their signs.
    for last, (neurons, negative) in sorted(equations.items()):
        flip[:, last] = negative
        for i in range(last):
            if neurons >> i & 1:
                flip[:, last] ^= flip[:, i]
    parts = flip.split(list(pending.values()), dim=1)
    return {name: 1.0 - 2.0 * part.double() for name, part in zip(pending, parts, strict=True)}


def _independent_equations(
    entries: Iterable[tuple[int, Float[Tensor, " N"]]],
) -> dict[int, tuple[int, Bool[Tensor, " N"]]]:
    """Equations by their last neuron: bits of the neurons, and whether their signs are to differ.

    In order, each entry is made positive whose sign those before it leave open. That is an equation
    over the field of two elements, of the same neurons in all networks.

    Args:
        entries: Bits of the neurons that an entry belongs to, and its values.

    Returns:
        The equations: the signs of the neurons multiply to -1 where the second is True.
    """
    equations: dict[int, tuple[int, Tensor]] = {}
    for members, values in entries:
        neurons, eliminated = members, []
        while (last := neurons.bit_length() - 1) in equations:
            neurons ^= equations[last][0]
            eliminated.append(equations[last][1])
        if neurons:
            equations[last] = neurons, reduce(torch.logical_xor, eliminated, values < 0)
    return equations


def _entries(
    pieces: list[_Piece], pending: Mapping[str, int], weights: Params
) -> Iterator[tuple[int, Float[Tensor, " N"]]]:
    """For each entry the bits of the neurons that it belongs to, and its values."""
    starts = dict(zip(pending, itertools.accumulate(pending.values(), initial=0), strict=False))
    for groups, values in pieces:
        axes = [i for i, group in enumerate(groups) if group in pending]
        summed = _onto(axes, groups, values, weights)
        for place in itertools.product(*(range(pending[groups[i]]) for i in axes)):
            neurons = 0
            for i, index in zip(axes, place, strict=True):
                neurons ^= 1 << (starts[groups[i]] + index)
            yield neurons, summed[(slice(None), *place)]


def _pieces(
    space: WeightSpace,
    params: Params,
    scales: Params,
    keep: Callable[[Dim], bool],
    function: Callable[[Tensor, bool], Tensor],
) -> list[_Piece]:
    """All blocks, mapped by a function, scaled, and summed with weights over axes not kept."""
    # The function is told whether signs may flip the entries.
    signed = _signed_groups(space)
    pieces = []
    for block in cut_blocks(space):
        kept = [i for i, dim in enumerate(block.dims) if keep(dim)]
        if not kept:
            continue
        flips = any(dim.power % 2 and dim.group in signed for dim in block.dims)
        values = function(block.entries(params[block.tensor], kept).double(), flips)
        rest = [dim for i, dim in enumerate(block.dims) if i not in kept]
        values = _summed_rest(values, rest, scales)
        values = _scaled([block.dims[i] for i in kept], values, scales)
        groups = tuple(str(block.dims[i].group) for i in kept)
        pieces.append((groups, values * _mark(len(pieces))))
    return pieces


def _scaled(
    dims: Sequence[Dim], values: Float[Tensor, "N ..."], scales: Params
) -> Float[Tensor, "N ..."]:
    """A piece after the scales of its neurons."""
    for axis, dim in enumerate(dims):
        if dim.group in scales and dim.power:
            factor = scales[str(dim.group)] ** dim.power
            values = values * along(factor, axis, len(dims))
    return values


def _summed_rest(
    values: Float[Tensor, "N ... rest"], dims: Sequence[Dim], scales: Params
) -> Float[Tensor, "N ..."]:
    """Sums along the last axis, on which some axes of a block are, with weights for each place."""
    weight = _rest_weight(dims, scales).to(values.device)
    if len(weight) == 1:  # the same for all networks
        return values @ weight[0]
    rank = values.dim() - 1
    return (values * along(weight, rank - 1, rank)).sum(-1)


def _rest_weight(dims: Sequence[Dim], scales: Params) -> Float[Tensor, "N rest"]:
    """The weight of each place along axes that are summed over, scales among it."""
    weight = torch.ones(1, 1, dtype=torch.float64)
    for dim in dims:
        factor = _spread(dim.size)[None]
        if dim.group in scales:
            scale = scales[str(dim.group)]
            factor = factor.to(scale.device) * scale**dim.power
        weight = outer(weight.to(factor.device), factor)
    return weight


def _onto(
    axes: Sequence[int], groups: Sequence[str], values: Float[Tensor, "N ..."], weights: Params
) -> Float[Tensor, "N ..."]:
    """Sum a piece over all axes but some, with the weights of the groups that have them."""
    for i, group in enumerate(groups):
        if i not in axes and group in weights:
            values = values * along(weights[group], i, len(groups))
    return summed_to(values, axes, len(groups))


def _mark(number: int) -> float:
    return float(_spread(number + 1)[number])


def _spread(size: int) -> Float[Tensor, " n"]:
    """Weights in [1, 1.5) that tell positions apart: `1 + frac(i phi) / 2`, the golden ratio."""
    return 1 + torch.arange(1, size + 1, dtype=torch.float64).mul(0.5 * 5**0.5 + 0.5).frac() / 2
