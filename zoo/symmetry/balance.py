"""Balanced scales: the point of least norm that the positive scales of a network's neurons reach.

    F(z) = sum over e of  Q_e exp(a_e . z) - c_e (a_e . z)        z = 2 log(scales)

`Q_e` is the sum of the squares of all entries on which the scales act alike, `a_e` the powers with
which they act, and the sum is over `Q_e > 0`. `F` is convex. With `c = 0` its minimum is the least
norm, where every neuron of a ReLU network has `|w_in|^2 + b^2 = |w_out|^2`. A small `c > 0` makes
each term large at both ends, so that there is a minimum for every space and every network, dead
neurons included, and the point where it is attained depends on the orbit only.

References:
    Kempf and Ness 1979 (points of least norm in an orbit); Saul 2023, arXiv 2306.09585 (weight
    balancing); Sun and Tran-Dinh 2019, arXiv 1703.04599 (the length of the damped step).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from zoo.params import Params
from zoo.symmetry.axes import along, summed_to
from zoo.symmetry.blocks import Signature, alike_blocks
from zoo.symmetry.rows import as_rows, in_chunks, zeros
from zoo.weight_space import WeightSpace

SLACK = 1e-4
_MAX_STEPS, _MAX_INNER = 200, 200
_CHUNK_ENTRIES = 2**20


@dataclass(frozen=True)
class _Term:
    """All entries on which the same powers of the scales of the same groups act.

    Attributes:
        axes: For each axis the part of `z` that acts on it, and the power.
        energy: `Q`, `[N, *sizes]`.
        target: `c`, `[N, *sizes]`.
    """

    axes: tuple[tuple[slice, int], ...]
    energy: Float[Tensor, "N ..."]
    target: Float[Tensor, "N ..."]


def balancing_scales(
    space: WeightSpace, params: Mapping[str, Tensor]
) -> dict[str, Float[Tensor, "*batch h"]]:
    """Positive scales that bring networks to the balanced point of their orbits.

    The scales of two networks of one orbit lead to the same point: `F` has one minimum, up to
    scales that change no entry.

    Args:
        space: The weight space.
        params: Tensors `[*batch, *shape]`.

    Returns:
        For each group with positive or any scaling `[*batch, size]`, float64. A neuron whose
        entries are all 0 keeps scale 1.
    """
    lead, networks = as_rows(space, params)
    scales = balancing_scales_of_rows(space, networks)
    return {name: scale.reshape(*lead, scale.shape[1]) for name, scale in scales.items()}


def balancing_scales_of_rows(
    space: WeightSpace, networks: Mapping[str, Tensor]
) -> dict[str, Float[Tensor, "N h"]]:
    """`balancing_scales` of networks `[N, *shape]`, of one network if there are no tensors."""
    places = _places(space)
    solve = partial(_solve, space, places, _accuracy(networks))
    z = torch.cat(in_chunks(solve, space, _CHUNK_ENTRIES, networks))
    return {name: (z[:, place] / 2).exp() for name, place in places.items()}


def _solve(
    space: WeightSpace, places: Mapping[str, slice], accuracy: float, params: Params
) -> Float[Tensor, "N n"]:
    """The `z` of some networks `[N, *shape]`."""
    terms = _terms(space, places, params)
    origin = zeros(params, sum(place.stop - place.start for place in places.values()))
    return _minimize(terms, origin, list(places.values()), accuracy) if terms else origin


def _accuracy(params: Mapping[str, Tensor]) -> float:
    """How far from the balanced point the search may end."""
    types = {tensor.dtype for tensor in params.values() if tensor.is_floating_point()}
    return max([1e-13, *(torch.finfo(dtype).eps / 100 for dtype in types)])


def _places(space: WeightSpace) -> dict[str, slice]:
    """The part of `z` that belongs to each group with positive scales."""
    places, start = {}, 0
    for name, group in space.groups.items():
        if group.may_stretch:
            places[name] = slice(start, start + group.size)
            start += group.size
    return places


def _energies(
    space: WeightSpace, scaled: Mapping[str, slice], params: Mapping[str, Tensor]
) -> dict[Signature, Float[Tensor, "N ..."]]:
    """Sums of squares by groups and powers of the axes on which scales act, over all other axes."""
    energies: dict[Signature, Tensor] = {}
    alike = alike_blocks(space, lambda dim: (dim.group in scaled and dim.power) or None)
    for signature, blocks in alike.items():
        for block, kept in blocks:
            squares = block.entries(params[block.tensor], kept).double().square()
            energy = squares[..., 0] if len(kept) == len(block.dims) else squares.sum(-1)
            energies[signature] = energies.get(signature, 0) + energy
    return energies


def _terms(
    space: WeightSpace, places: Mapping[str, slice], params: Mapping[str, Tensor]
) -> list[_Term]:
    """The terms of `F`, one for each set of axes with scales."""
    energies = _energies(space, places, params)
    acting = {pair for signature in energies for pair in signature}
    inner = {g for g, power in acting if power > 0} & {g for g, power in acting if power < 0}
    terms = []
    for signature, energy in energies.items():
        sizes = energy.shape[1:]
        # A group that is only written, or only read, has no balance: its neurons get norm 1.
        balanced = all(group in inner for group, _ in signature)
        target = (SLACK if balanced else 1.0) * max(sizes) / math.prod(sizes)
        axes = tuple((places[group], power) for group, power in signature)
        terms.append(_Term(axes, energy, target * (energy > 0).double()))
    return terms


def _minimize(
    terms: list[_Term], z: Float[Tensor, "N n"], places: list[slice], accuracy: float
) -> Float[Tensor, "N n"]:
    """Damped Newton steps from `z`; the damping needs no search and converges from anywhere."""
    for place in [*places, *places[-2::-1]]:
        z[:, place] += _distance_to_minimum(terms, z, place)
    rate = z.new_full((len(z),), 0.25)
    for _ in range(_MAX_STEPS):
        here = [replace(term, energy=_scaled(term, z)) for term in terms]
        step = _newton_step(*_derivatives(here, z), rate)
        reach = _reach(terms, step)
        damping = torch.where(reach > 1e-8, reach.log1p() / reach, 1.0)
        z = z + damping[:, None] * step
        if not bool((reach * torch.maximum(reach, rate) > accuracy).any()):
            break
        rate = reach.clamp(1e-6, 0.25)
    return torch.where(z.isfinite().all(1, keepdim=True), z, 0.0)


def _reach(terms: list[_Term], step: Float[Tensor, "N n"]) -> Float[Tensor, " N"]:
    """The largest change of an exponent `a . z` that a step may bring."""
    reach = step.new_zeros(len(step))
    for term in terms:
        ends = [(power * step[:, place]).aminmax(dim=1) for place, power in term.axes]
        low, high = (torch.stack(end).sum(0) for end in zip(*ends, strict=True))
        reach = torch.maximum(reach, torch.maximum(-low, high))
    return reach


def _distance_to_minimum(
    terms: list[_Term], z: Float[Tensor, "N n"], place: slice
) -> Float[Tensor, "N h"]:
    """How far the minimum over one group's scales is, if powers are 1 or -1; else a guess."""
    up, down, target = (torch.zeros_like(z[:, place]) for _ in range(3))
    for term in terms:
        for i, (other, power) in enumerate(term.axes):
            if other == place:
                (up if power > 0 else down).add_(_sum_to(_scaled(term, z), i))
                target += math.copysign(1, power) * _sum_to(term.target, i)
    # up e^t - down e^-t = target, as a quotient without cancellation
    root = (target.square() + 4 * up * down).sqrt() + target.abs()
    growth = torch.where(target > 0, root / (2 * up), 2 * down / root)
    return torch.where((growth > 0) & growth.isfinite(), growth, 1.0).log()


def _scaled(term: _Term, z: Float[Tensor, "N n"]) -> Float[Tensor, "N ..."]:
    """`Q exp(a . z)` for all entries of a term."""
    energy = term.energy
    for i, (place, power) in enumerate(term.axes):
        energy = energy * along((power * z[:, place]).exp(), i, len(term.axes))
    return energy


@dataclass(frozen=True)
class _Hessian:
    """The second derivative of `F`.

    Attributes:
        diagonal: `[N, n]`.
        couplings: Two parts of `z` and the block `[N, h, k]` between them.
    """

    diagonal: Float[Tensor, "N n"]
    couplings: list[tuple[slice, slice, Tensor]]

    def times(self, vector: Float[Tensor, "N n"]) -> Float[Tensor, "N n"]:
        """The product with a vector."""
        image = self.diagonal * vector
        for one, other, joint in self.couplings:
            image[:, one] += (joint @ vector[:, other, None])[..., 0]
            image[:, other] += (vector[:, None, one] @ joint)[:, 0]
        return image


def _derivatives(
    terms: list[_Term], z: Float[Tensor, "N n"]
) -> tuple[Float[Tensor, "N n"], _Hessian]:
    """Gradient and Hessian of `F`, `terms` having the energies at `z`."""
    gradient, hessian = torch.zeros_like(z), _Hessian(torch.zeros_like(z), [])
    for term in terms:
        for i, (place, power) in enumerate(term.axes):
            marginal = _sum_to(term.energy, i)
            gradient[:, place] += power * (marginal - _sum_to(term.target, i))
            hessian.diagonal[:, place] += power**2 * marginal
        for (i, (place, power)), (j, (other, factor)) in combinations(enumerate(term.axes), 2):
            joint = power * factor * _sum_to(term.energy, i, j)
            hessian.couplings.append((place, other, joint))
    return gradient, hessian


def _newton_step(
    gradient: Float[Tensor, "N n"], hessian: _Hessian, rate: Float[Tensor, " N"]
) -> Float[Tensor, "N n"]:
    """The solution of `H step = -gradient` by conjugate gradients, up to a relative error."""
    inverse = torch.where(hessian.diagonal > 0, 1 / hessian.diagonal, 0.0)
    step, residual = torch.zeros_like(gradient), -gradient
    direction = ready = inverse * residual
    error = (residual * ready).sum(1)
    # Below the rounding of the gradient there are only directions that change no entry.
    enough = torch.maximum(rate.square() * error, 1e-29 * hessian.diagonal.sum(1))
    for _ in range(_MAX_INNER):
        active = error > enough
        if not bool(active.any()):
            break
        image = hessian.times(direction)
        curvature = (direction * image).sum(1)
        length = _quotient(error, curvature, active)
        step, residual = step + length * direction, residual - length * image
        ready = inverse * residual
        before, error = error, (residual * ready).sum(1)
        direction = ready + _quotient(error, before, active) * direction
    return step


def _sum_to(values: Float[Tensor, "N ..."], *axes: int) -> Float[Tensor, "N ..."]:
    """Sum over all axes but the first and some."""
    return summed_to(values, axes, values.dim() - 1)


def _quotient(
    numerator: Float[Tensor, " N"], denominator: Float[Tensor, " N"], active: Bool[Tensor, " N"]
) -> Float[Tensor, "N 1"]:
    """The quotient where a network is active and the denominator positive, else 0."""
    return torch.where(active & (denominator > 0), numerator / denominator, 0.0)[:, None]
