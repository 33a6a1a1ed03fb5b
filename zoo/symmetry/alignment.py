"""Alignment: the symmetry that brings networks closest to a reference, by their weights or by their activations.

Weight matching maximizes `<reference, act(g, params)>` over the permutations `g` that the space
declares. It goes through the groups in random order and solves for each, the others as they are, a
linear assignment of its neurons. Every step is the best one for its group, so the objective never
falls; the end is a local maximum.
"""

import math
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from zoo.params import batch_shape
from zoo.symmetry.action import GroupElement, act, compose, inverse
from zoo.symmetry.axes import take
from zoo.symmetry.balance import balancing_scales
from zoo.symmetry.blocks import cut_blocks
from zoo.weight_space import WeightSpace

_CHUNK_ENTRIES, _MAX_ROUNDS = 2**23, 1000


def align(
    space: WeightSpace,
    params: Mapping[str, Tensor],
    reference: Mapping[str, Tensor],
    num_restarts: int = 1,
    generator: torch.Generator | None = None,
    scales: bool = False,
) -> GroupElement:
    """Weight matching: the element that brings networks closest to a reference.

    Each network of a population gets what it would get alone. The objective is the inner product of
    all tensors that a group moves, running statistics included. On two axes of one tensor the
    assignment is that of the linearized objective, taken only if the objective itself rises.

    Args:
        space: The weight space.
        params: Networks `[*batch, *shape]`.
        reference: One network `[*shape]`.
        num_restarts: Starts; the best end is kept. The first is from the neurons as they are, the
            others from random orders.
        generator: Source of the orders, seeded with 0 if None.
        scales: Whether to match scales and signs too: positive scales are brought to the balanced
            point of `zoo.symmetry.balance` in both, signs chosen with each assignment, the
            reference's scales put on at the end. Else weights count as they are.

    Returns:
        The element `[*batch]`: permutations for all permutable groups, scales too if asked for.

    Raises:
        ValueError: If tensors do not fit the space, the reference has leading axes, or there is no
            start.

    References:
        Ainsworth, Hayase and Srinivasa 2023, arXiv 2209.04836, section 3.2 and algorithm 1.
    """
    lead = batch_shape(space, params)
    if batch_shape(space, reference):
        raise ValueError(
            f"align: expected one network as reference, got leading axes {list(batch_shape(space, reference))}"
        )
    if num_restarts < 1:
        raise ValueError(f"align: expected num_restarts >= 1, got {num_restarts}")
    networks, generator = (
        math.prod(lead),
        generator if generator is not None else torch.Generator().manual_seed(0),
    )
    flat = {
        name: params[name].detach().reshape(networks, *shape)
        for name, shape in space.shapes.items()
    }
    seeds = torch.randint(
        2**62, (num_restarts,), generator=generator, device=generator.device
    ).tolist()
    chunk = max(1, _CHUNK_ENTRIES // max(1, space.num_params))
    found = []
    for start in range(0, max(networks, 1), chunk):
        found.append(
            _align_chunk(
                space,
                {n: t[start : start + chunk] for n, t in flat.items()},
                reference,
                seeds,
                scales,
            )
        )
    kinds = ("permutations", "scales")
    joined = [
        {n: torch.cat([getattr(part, kind)[n] for part in found]) for n in getattr(found[0], kind)}
        for kind in kinds
    ]
    return GroupElement(
        *(
            {n: value.reshape(*lead, value.shape[-1]) for n, value in kind.items()}
            for kind in joined
        )
    )


@dataclass(frozen=True)
class _Piece:
    """All entries that the same groups move.

    Attributes:
        groups: The group of each axis that moves.
        flips: For each such axis, whether the signs of its group act on it.
        reference: `[*sizes, rest]`.
        values: The networks as they stand now, `[N, *sizes, rest]`; changed in place.
    """

    groups: tuple[str, ...]
    flips: tuple[bool, ...]
    reference: Float[Tensor, "..."]
    values: Float[Tensor, "N ..."]


@dataclass
class _State:
    """Where the ascent of some networks stands.

    Attributes:
        pieces: The entries that move.
        permutations: For each group that moves the neuron at each place, `[N, size]`.
        signs: For each group with signs the sign of each place, `[N, size]`.
        movable: Groups that are permuted; those with signs only are not.
        stale: For each group that moves, the networks in which its assignment may no longer be the
            best, `[N]`.
        norm: A bound on the objective, `[N]`: a rise by less than its rounding is none.
    """

    pieces: list[_Piece]
    permutations: dict[str, Int64[Tensor, "N _"]]
    signs: dict[str, Float[Tensor, "N _"]]
    movable: set[str]
    stale: dict[str, Bool[Tensor, " N"]]
    norm: Float[Tensor, " N"]

    def objective(self, rows: Int64[Tensor, " M"] | slice = slice(None)) -> Float[Tensor, " M"]:
        """The inner product of some networks with the reference, over the entries that move."""
        parts = [
            piece.values[rows].double().flatten(1) @ piece.reference.double().flatten()
            for piece in self.pieces
        ]
        return torch.stack(parts).sum(0) if parts else torch.zeros_like(self.norm[rows])


def _align_chunk(
    space: WeightSpace,
    params: Mapping[str, Tensor],
    reference: Mapping[str, Tensor],
    seeds: list[int],
    scales: bool,
) -> GroupElement:
    """Align some networks `[N, *shape]` and keep the best of all starts for each."""
    before, after = (
        (balancing_scales(space, params), balancing_scales(space, reference))
        if scales
        else ({}, {})
    )
    if scales:
        params, reference = (
            act(space, GroupElement({}, before), params),
            act(space, GroupElement({}, after), reference),
        )
    best, highest = GroupElement({}, {}), None
    for number, seed in enumerate(seeds):
        state, generator = (
            _start(space, params, reference, scales),
            torch.Generator().manual_seed(seed),
        )
        if number:
            _shuffle(state, generator)
        for _ in _ascend(state, generator):
            pass
        objective = state.objective()
        better = None if highest is None else objective > highest
        highest = objective if highest is None else torch.maximum(objective, highest)
        best = GroupElement(
            {
                name: _where(better, value, best.permutations.get(name))
                for name, value in state.permutations.items()
            },
            {
                name: _where(better, value, best.scales.get(name))
                for name, value in state.signs.items()
            },
        )
    return compose(inverse(GroupElement({}, after)), compose(best, GroupElement({}, before)))


def _where(better: Tensor | None, new: Tensor, old: Tensor | None) -> Tensor:
    return new if better is None or old is None else torch.where(better[:, None], new, old)


def _start(
    space: WeightSpace, params: Mapping[str, Tensor], reference: Mapping[str, Tensor], scales: bool
) -> _State:
    """The networks as they are, cut into pieces."""
    signed = {
        name for name, group in space.groups.items() if scales and group.scaling in ("sign", "any")
    }
    movable = {name for name, group in space.groups.items() if group.permutable}
    parts: dict[tuple[tuple[str, bool], ...], list[tuple[Tensor, Tensor]]] = {}
    for block in cut_blocks(space):
        axes = [
            i
            for i, dim in enumerate(block.dims)
            if dim.group in movable or (dim.group in signed and dim.power % 2)
        ]
        if not axes:
            continue
        moving = {
            i: (
                str(block.dims[i].group),
                block.dims[i].group in signed and block.dims[i].power % 2 == 1,
            )
            for i in axes
        }
        axes.sort(key=lambda i: moving[i])
        order = [*axes, *(i for i in range(len(block.dims)) if i not in axes)]
        own, other = (block.view(source[block.tensor]) for source in (params, reference))
        dtype = own.dtype if own.dtype in (torch.float32, torch.float64) else torch.float32
        sizes = [
            *(block.dims[i].size for i in axes),
            math.prod(block.dims[i].size for i in order[len(axes) :]),
        ]
        own = own.permute(0, *(i + 1 for i in order)).reshape(len(own), *sizes).to(dtype)
        other = other.detach().permute(order).reshape(sizes).to(own)
        parts.setdefault(tuple(moving[i] for i in axes), []).append((own, other))
    pieces = []
    for signature, pairs in parts.items():
        groups, flips = zip(*signature, strict=True)
        values, references = (torch.cat(part, dim=-1) for part in zip(*pairs, strict=True))
        pieces.append(_Piece(groups, flips, references, values))
    first = next(iter(params.values()), torch.zeros(1))
    n, device = len(first), first.device
    sizes = {name: group.size for name, group in space.groups.items()}
    return _State(
        pieces,
        {
            name: torch.arange(sizes[name], device=device).repeat(n, 1)
            for name in sizes
            if name in movable
        },
        {
            name: torch.ones(n, sizes[name], dtype=torch.float64, device=device)
            for name in sizes
            if name in signed
        },
        movable,
        {
            name: torch.ones(n, dtype=torch.bool, device=device)
            for name in sizes
            if name in movable | signed
        },
        sum(
            (p.values.flatten(1).norm(dim=1) * p.reference.norm() for p in pieces),
            torch.zeros(n, device=device),
        ).double(),
    )


def _shuffle(state: _State, generator: torch.Generator) -> None:
    """Put the neurons of each group into a random order, the same for all networks."""
    for name, index in state.permutations.items():
        order = (
            torch.randperm(index.shape[1], generator=generator).to(index.device).expand_as(index)
        )
        _move(state, torch.arange(len(index), device=index.device), name, order, None)


def _ascend(state: _State, generator: torch.Generator) -> Iterator[None]:
    """Improve group by group until nothing does; yields after each round."""
    names = list(state.stale)
    for _ in range(_MAX_ROUNDS):
        if not any(bool(stale.any()) for stale in state.stale.values()):
            break
        for i in torch.randperm(len(names), generator=generator).tolist():
            _improve(state, names[i])
        yield


def _improve(state: _State, name: str) -> None:
    """Solve the assignment of one group where the rest has moved since the last time."""
    rows = state.stale[name].nonzero()[:, 0]
    state.stale[name][rows] = False
    touched = [piece for piece in state.pieces if name in piece.groups]
    if not len(rows) or not touched:
        return
    even = _gains(touched, rows, name, flips=False)
    odd = (
        _gains(touched, rows, name, flips=True)
        if name in state.signs
        else torch.zeros_like(even[:, :1])
    )
    total = even + odd.abs()
    place = (
        _assign(total)
        if name in state.movable
        else torch.arange(total.shape[1], device=rows.device).expand(len(rows), -1)
    )
    order, picked = place.argsort(-1), total.gather(2, place[:, :, None])[..., 0].double()
    sign = None
    if name in state.signs:
        sign = torch.where(
            odd.gather(2, place[:, :, None])[..., 0].gather(1, order) < 0, -1.0, 1.0
        ).double()
    rounding = torch.finfo(total.dtype).eps * state.norm[rows]
    if any(piece.groups.count(name) > 1 for piece in touched):
        before = state.objective(rows)
        _move(state, rows, name, order, sign)
        up = state.objective(rows) - before > rounding
        back = order[~up].argsort(-1)
        _move(state, rows[~up], name, back, None if sign is None else sign[~up].gather(1, back))
        state.stale[name][rows[up]] = True
    else:
        up = picked.sum(1) - (even + odd).diagonal(dim1=1, dim2=2).double().sum(1) > rounding
        _move(state, rows[up], name, order[up], None if sign is None else sign[up])
    for other in {group for piece in touched for group in piece.groups if group != name}:
        state.stale[other][rows[up]] = True


def _gains(
    pieces: list[_Piece], rows: Int64[Tensor, " M"], name: str, flips: bool
) -> Float[Tensor, "M h h"]:
    """What neuron `i` adds to the objective at place `j`, in entries on which the signs of its group act, or do not."""
    size = pieces[0].values.shape[1 + pieces[0].groups.index(name)]
    total = torch.zeros(len(rows), size, size, dtype=pieces[0].values.dtype, device=rows.device)
    for piece in pieces:
        every = len(rows) == len(piece.values)
        for axis, group in enumerate(piece.groups):
            if group == name and piece.flips[axis] == flips:
                reference = piece.reference.movedim(axis, 0).flatten(1)
                values = (
                    (piece.values if every else piece.values[rows]).movedim(axis + 1, 1).flatten(2)
                )
                total += values @ reference.T
    return total


def _assign(gains: Float[Tensor, "M h h"]) -> Int64[Tensor, "M h"]:
    """The place for each neuron so that together they gain most; all stay where a gain is not finite."""
    best, stay = gains.argmax(2), torch.arange(gains.shape[1], device=gains.device)
    best[~gains.sum((1, 2)).isfinite()] = stay
    unsettled = (
        (best.sort(1).values != stay).any(1).nonzero()[:, 0].tolist()
    )  # where the best places differ, nothing beats them
    costs, places = (-gains).cpu().numpy(), best.cpu().numpy()

    def solve(part: list[int]) -> None:
        for k in part:
            places[k] = linear_sum_assignment(costs[k])[1]

    with ThreadPoolExecutor(
        torch.get_num_threads()
    ) as pool:  # scipy works without the interpreter's lock
        list(
            pool.map(
                solve,
                (unsettled[i :: torch.get_num_threads()] for i in range(torch.get_num_threads())),
            )
        )
    return torch.from_numpy(places).to(gains.device)


def _move(
    state: _State,
    rows: Int64[Tensor, " M"],
    name: str,
    order: Int64[Tensor, "M h"],
    sign: Float[Tensor, "M h"] | None,
) -> None:
    """Reorder the neurons of one group of some networks, then flip their signs."""
    if not len(rows):
        return
    for piece in state.pieces:
        if name in piece.groups:
            values, rank = piece.values[rows], piece.values.dim() - 1
            for axis, (group, flips) in enumerate(zip(piece.groups, piece.flips, strict=True)):
                if group == name:
                    values = take(values, order, axis - rank, rank)
                if group == name and flips and sign is not None:
                    values = values * sign.to(values).reshape(
                        len(rows), *(1,) * axis, sign.shape[1], *(1,) * (rank - axis - 1)
                    )
            piece.values[rows] = values
    if name in state.permutations:
        state.permutations[name][rows] = state.permutations[name][rows].gather(1, order)
    if name in state.signs:
        state.signs[name][rows] = state.signs[name][rows].gather(1, order) * (
            1 if sign is None else sign
        )


def align_activations(
    space: WeightSpace, activations: Mapping[str, Tensor], reference: Mapping[str, Tensor]
) -> GroupElement:
    """Activation matching: the permutations with which neurons of the same group correlate most over the same inputs.

    Every group is matched on its own, by one linear assignment.

    Args:
        space: The weight space.
        activations: For a group what its neurons do on `X` inputs, `[*batch, X, size, *positions]`.
        reference: The same of the reference on the same inputs, `[X, size, *positions]`.

    Returns:
        The element `[*batch]`. Groups that are not permutable, or have no activations, stay.

    Raises:
        ValueError: If a group is unknown or in one mapping only, or shapes do not fit.

    References:
        Li et al. 2015, arXiv 1511.07543; Ainsworth et al. 2023, arXiv 2209.04836, section 3.1.
    """
    if set(activations) != set(reference) or not set(activations) <= set(space.groups):
        raise ValueError(
            f"align_activations: expected the same groups of the space in both, got {sorted(activations)} and "
            f"{sorted(reference)}; groups of the space are {sorted(space.groups)}"
        )
    permutations = {}
    for name, values in activations.items():
        shape, size = tuple(reference[name].shape), space.groups[name].size
        lead = values.shape[: values.dim() - len(shape)]
        if len(shape) < 2 or shape[1] != size or tuple(values.shape[len(lead) :]) != shape:
            raise ValueError(
                f"activations of group {name!r}: expected [*batch, X, {size}, *positions] and the same without leading axes, "
                f"got {list(values.shape)} and {list(shape)}"
            )
        if space.groups[name].permutable:
            own = _standardized(values.reshape(-1, *shape))
            places = _assign(own @ _standardized(reference[name][None]).mT)
            permutations[name] = places.argsort(-1).reshape(*lead, size)
    return GroupElement(permutations, {})


def _standardized(values: Float[Tensor, "N X h ..."]) -> Float[Tensor, "N h F"]:
    """Neuron by neuron all activations, with mean 0 and norm 1; 0 for neurons that never change."""
    rows = values.movedim(2, 1).flatten(2)
    rows = rows - rows.mean(2, keepdim=True)
    norms = rows.norm(dim=2, keepdim=True)
    return torch.where(norms > 0, rows / norms, 0.0)
