"""Ascent of weight matching: one assignment of one group's neurons after the other.

The objective `<reference, act(g, params)>` is linear in the order of one group's neurons, with the
others as they are, unless a tensor names the group twice. Then the assignment is that of the
linearized objective, and is taken back where the objective itself does not rise.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from zoo.symmetry.assignment import best_places
from zoo.symmetry.axes import along, take
from zoo.symmetry.blocks import Dim, Signature, alike_blocks
from zoo.symmetry.rows import zeros
from zoo.weight_space import WeightSpace

_MAX_ROUNDS = 1000


@dataclass(frozen=True)
class Piece:
    """All entries that the same groups move.

    Attributes:
        axes: Of each axis that moves its group, and 1 if the group's signs act on it, else 0.
        reference: `[*sizes, rest]`.
        values: The networks as they stand now, `[N, *sizes, rest]`; changed in place.
    """

    axes: Signature
    reference: Float[Tensor, "..."]
    values: Float[Tensor, "N ..."]

    @property
    def groups(self) -> list[str]:
        """The group of each axis."""
        return [group for group, _ in self.axes]


@dataclass(frozen=True)
class State:
    """Where the ascent of some networks stands; its tensors are changed in place.

    Attributes:
        pieces: The entries that move.
        permutations: For each group that is permuted the neuron at each place, `[N, size]`.
        signs: For each group with signs the sign of each place, `[N, size]`.
        stale: For each group that moves, the networks in which its assignment may no longer be the
            best, `[N]`.
        norm: A bound on the objective, `[N]`: a rise by less than its rounding is none.
    """

    pieces: list[Piece]
    permutations: dict[str, Int64[Tensor, "N _"]]
    signs: dict[str, Float[Tensor, "N _"]]
    stale: dict[str, Bool[Tensor, " N"]]
    norm: Float[Tensor, " N"]

    def objective(self, rows: Int64[Tensor, " M"] | slice = slice(None)) -> Float[Tensor, " M"]:
        """The inner product of some networks with the reference, over the entries that move."""
        parts = [
            piece.values[rows].double().flatten(1) @ piece.reference.double().flatten()
            for piece in self.pieces
        ]
        return torch.stack(parts).sum(0) if parts else torch.zeros_like(self.norm[rows])


@dataclass(frozen=True)
class _Move:
    """A new order of the neurons of one group, then their signs.

    Attributes:
        group: Name of the group.
        rows: The networks that move, `[M]`.
        order: The neuron that comes to each place, `[M, h]`.
        sign: The sign of each place, `[M, h]`.
    """

    group: str
    rows: Int64[Tensor, " M"]
    order: Int64[Tensor, "M h"]
    sign: Float[Tensor, "M h"]

    def of(self, chosen: Bool[Tensor, " M"]) -> "_Move":
        """The move of some of its networks."""
        return _Move(self.group, self.rows[chosen], self.order[chosen], self.sign[chosen])

    def undone(self) -> "_Move":
        """The move back."""
        back = self.order.argsort(-1)
        return _Move(self.group, self.rows, back, self.sign.gather(1, back))


def start(
    space: WeightSpace, params: Mapping[str, Tensor], reference: Mapping[str, Tensor], signs: bool
) -> State:
    """The ascent at the networks as they are.

    Args:
        space: The weight space.
        params: Networks `[N, *shape]`.
        reference: One network `[*shape]`.
        signs: Whether signs are matched too.

    Returns:
        The state.
    """
    permutations, flips, stale = {}, {}, {}
    for name, group in space.groups.items():
        ones = zeros(params, group.size) + 1
        if group.permutable:
            permutations[name] = torch.arange(group.size, device=ones.device).repeat(len(ones), 1)
        if signs and group.may_flip:
            flips[name] = ones
        if name in permutations or name in flips:
            stale[name] = ones[:, 0] > 0
    pieces = _pieces(space, params, reference, permutations, flips)
    bounds = [piece.values.flatten(1).norm(dim=1) * piece.reference.norm() for piece in pieces]
    norm = sum(bounds, zeros(params, 1)[:, 0].float()).double()
    return State(pieces, permutations, flips, stale, norm)


def _pieces(
    space: WeightSpace,
    params: Mapping[str, Tensor],
    reference: Mapping[str, Tensor],
    permuted: Mapping[str, Tensor],
    signed: Mapping[str, Tensor],
) -> list[Piece]:
    """Networks and reference, cut into pieces."""
    pieces = []
    alike = alike_blocks(space, partial(_flips, permuted, signed))
    for axes, blocks in alike.items():
        targets, values = [], []
        for block, moving in blocks:
            entries = block.entries(params[block.tensor], moving)
            values.append(entries if entries.dtype == torch.float64 else entries.float())
            target = block.entries(reference[block.tensor].detach(), moving)
            targets.append(target.to(values[-1]))
        pieces.append(Piece(axes, torch.cat(targets, dim=-1), torch.cat(values, dim=-1)))
    return pieces


def _flips(permuted: Mapping[str, Tensor], signed: Mapping[str, Tensor], dim: Dim) -> int | None:
    """Whether the signs of a group act on an axis, as 0 or 1; None if nothing does."""
    flips = dim.group in signed and dim.power % 2 == 1
    return int(flips) if flips or dim.group in permuted else None


def shuffle(state: State, generator: torch.Generator) -> None:
    """Put the neurons of each group into a random order, the same for all networks."""
    for name, index in state.permutations.items():
        order = torch.randperm(index.shape[1], generator=generator).to(index.device)
        rows = torch.arange(len(index), device=index.device)
        order = order.expand_as(index)
        _move(state, _Move(name, rows, order, torch.ones_like(order, dtype=torch.float64)))


def ascend(state: State, generator: torch.Generator) -> Iterator[None]:
    """Improve group by group, in random order, until nothing does; yields after each round.

    Args:
        state: Where to start; changed in place.
        generator: Source of the orders of the groups.

    Yields:
        Nothing.
    """
    names = list(state.stale)
    for _ in range(_MAX_ROUNDS):
        if not any(bool(stale.any()) for stale in state.stale.values()):
            break
        for i in torch.randperm(len(names), generator=generator).tolist():
            _improve(state, names[i])
        yield


def _improve(state: State, group: str) -> None:
    """Solve the assignment of one group where the rest has moved since the last time."""
    rows = state.stale[group].nonzero()[:, 0]
    state.stale[group][rows] = False
    touched = [piece for piece in state.pieces if group in piece.groups]
    if not len(rows) or not touched:
        return
    move, rise = _best_move(state, touched, rows, group)
    rounding = torch.finfo(touched[0].values.dtype).eps * state.norm[rows]
    twice = any(piece.groups.count(group) > 1 for piece in touched)
    if twice:
        rises = _move_if_better(state, move, rounding)
    else:
        rises = rise > rounding
        _move(state, move.of(rises))
    for name in {name for piece in touched for name in piece.groups}:
        # Where a group stands on two axes, its entries have moved along the other one.
        if twice or name != group:
            state.stale[name][rows[rises]] = True


def _move_if_better(state: State, move: _Move, rounding: Float[Tensor, " M"]) -> Bool[Tensor, " M"]:
    """Move, and move back where the objective does not rise; tells where it does."""
    before = state.objective(move.rows)
    _move(state, move)
    rises = state.objective(move.rows) - before > rounding
    _move(state, move.of(~rises).undone())
    return rises


def _best_move(
    state: State, touched: list[Piece], rows: Int64[Tensor, " M"], group: str
) -> tuple[_Move, Float[Tensor, " M"]]:
    """The move that gains most if the objective is linear in it, and what it gains."""
    even, odd = _gains(touched, rows, group)
    gains = even + odd.abs()
    if group in state.permutations:
        places = best_places(gains)
    else:
        places = torch.arange(gains.shape[1], device=rows.device).expand(len(rows), -1)
    order = places.argsort(-1)
    now = (even + odd).diagonal(dim1=1, dim2=2)
    rise = _picked(gains, places).double().sum(1) - now.double().sum(1)
    negative = _picked(odd, places).gather(1, order) < 0
    return _Move(group, rows, order, torch.where(negative, -1.0, 1.0).double()), rise


def _picked(gains: Float[Tensor, "M h h"], places: Int64[Tensor, "M h"]) -> Float[Tensor, "M h"]:
    """The gain of each neuron at its place."""
    return gains.gather(2, places[:, :, None])[..., 0]


def _gains(pieces: list[Piece], rows: Int64[Tensor, " M"], group: str) -> Float[Tensor, "2 M h h"]:
    """What neuron `i` adds at place `j`: where the group's signs do not act, and where they do."""
    size = pieces[0].values.shape[1 + pieces[0].groups.index(group)]
    gains = pieces[0].values.new_zeros(2, len(rows), size, size)
    for piece in pieces:
        values = piece.values if len(rows) == len(piece.values) else piece.values[rows]
        for axis, (name, flips) in enumerate(piece.axes):
            if name == group:
                neurons = values.movedim(axis + 1, 1).flatten(2)
                gains[flips] += neurons @ piece.reference.movedim(axis, 0).flatten(1).T
    return gains


def _move(state: State, move: _Move) -> None:
    """Reorder the neurons of one group of some networks, then flip their signs."""
    group, rows = move.group, move.rows
    for piece in state.pieces:
        if group in piece.groups:
            piece.values[rows] = _moved(piece, move)
    for held in (state.permutations, state.signs):
        if group in held:
            held[group][rows] = held[group][rows].gather(1, move.order)
    if group in state.signs:
        state.signs[group][rows] *= move.sign


def _moved(piece: Piece, move: _Move) -> Float[Tensor, "M ..."]:
    """The networks of a move, after it."""
    values, rank = piece.values[move.rows], piece.values.dim() - 1
    for axis, (group, flips) in enumerate(piece.axes):
        if group == move.group:
            values = take(values, move.order, axis - rank, rank)
            if flips:
                values = values * along(move.sign.to(values), axis, rank)
    return values
