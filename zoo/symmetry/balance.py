"""Balanced scales: the point of least norm among all that the positive scales of a network's neurons reach.

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

import torch
from jaxtyping import Float
from torch import Tensor

from zoo.params import batch_shape
from zoo.symmetry.blocks import cut_blocks
from zoo.weight_space import WeightSpace

SLACK = 1e-4
_MAX_STEPS, _MAX_INNER = 200, 200
_CHUNK_ENTRIES = 2**20


@dataclass(frozen=True)
class _Term:
    """All entries on which the same powers of the scales of the same groups act.

    Attributes:
        places: For each axis the part of `z` that acts on it.
        powers: For each axis the power.
        energy: `Q`, `[N, *sizes]`.
        target: `c`, `[N, *sizes]`.
    """

    places: tuple[slice, ...]
    powers: tuple[int, ...]
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
        entries are all 0 keeps scale 1, and so do all neurons of a network with an entry that is
        not finite.
    """
    lead = batch_shape(space, params)
    count, places = _places(space), {}
    for name, size in count.items():
        start = sum(place.stop - place.start for place in places.values())
        places[name] = slice(start, start + size)
    if not places:
        return {}
    networks = math.prod(lead)
    flat = {
        name: params[name].detach().reshape(networks, *shape)
        for name, shape in space.shapes.items()
    }
    accuracy = (
        max((torch.finfo(t.dtype).eps for t in flat.values() if t.is_floating_point()), default=0.0)
        / 100
    )
    chunk = max(1, _CHUNK_ENTRIES // max(1, space.num_params))
    solved = []
    for start in range(0, networks, chunk):
        terms = _terms(
            space, places, {name: tensor[start : start + chunk] for name, tensor in flat.items()}
        )
        solved.append(
            _minimize(
                terms, min(chunk, networks - start), list(places.values()), max(accuracy, 1e-13)
            )
        )
    z = torch.cat(solved) if solved else torch.zeros(0, sum(count.values()), dtype=torch.float64)
    return {
        name: (z[:, place] / 2).exp().reshape(*lead, count[name]) for name, place in places.items()
    }


def _places(space: WeightSpace) -> dict[str, int]:
    return {
        name: group.size
        for name, group in space.groups.items()
        if group.scaling in ("positive", "any")
    }


def _terms(
    space: WeightSpace, places: Mapping[str, slice], params: Mapping[str, Tensor]
) -> list[_Term]:
    """The terms of `F`: one for each set of axes with scales; on all other axes squares are summed."""
    sums: dict[tuple[tuple[str, int], ...], Tensor] = {}
    for block in cut_blocks(space):
        scaled = [i for i, dim in enumerate(block.dims) if dim.group in places and dim.power]
        if not scaled:
            continue
        scaled.sort(key=lambda i: (block.dims[i].group, block.dims[i].power))
        others = [i for i in range(len(block.dims)) if i not in scaled]
        squares = (
            block.view(params[block.tensor])
            .double()
            .square()
            .permute(0, *(i + 1 for i in [*scaled, *others]))
        )
        energy = squares.flatten(1 + len(scaled)).sum(-1) if others else squares
        signature = tuple((str(block.dims[i].group), block.dims[i].power) for i in scaled)
        sums[signature] = sums[signature] + energy if signature in sums else energy
    signs = {
        name: {power > 0 for signature in sums for group, power in signature if group == name}
        for name in places
    }
    terms = []
    for signature, energy in sums.items():
        sizes = energy.shape[1:]
        # A group that is only written, or only read, has no balance: its neurons get norm 1.
        weight = 1.0 if any(len(signs[group]) == 1 for group, _ in signature) else SLACK
        target = weight * max(sizes) / math.prod(sizes) * (energy > 0).double()
        terms.append(
            _Term(
                tuple(places[g] for g, _ in signature),
                tuple(p for _, p in signature),
                energy,
                target,
            )
        )
    return terms


def _minimize(
    terms: list[_Term], networks: int, places: list[slice], accuracy: float
) -> Float[Tensor, "N n"]:
    """Damped Newton steps, each solved by conjugate gradients; the damping needs no search and converges from anywhere."""
    device = terms[0].energy.device if terms else None
    z = torch.zeros(
        networks, sum(p.stop - p.start for p in places), dtype=torch.float64, device=device
    )
    for place in [*places, *list(places)[-2::-1]]:
        z[:, place] += _own_minimum(terms, z, place)
    rate = torch.full((networks,), 0.25, dtype=torch.float64, device=device)
    for _ in range(_MAX_STEPS if terms else 0):
        step = _newton_step([replace(term, energy=_scaled(term, z)) for term in terms], z, rate)
        reach = torch.zeros_like(rate)
        for term in terms:
            ends = [
                (power * step[:, place]).aminmax(dim=1)
                for place, power in zip(term.places, term.powers, strict=True)
            ]
            low, high = (torch.stack([end[i] for end in ends]).sum(0) for i in (0, 1))
            reach = torch.maximum(reach, torch.maximum(-low, high))
        damping = torch.where(reach > 1e-8, reach.log1p() / reach, 1.0)
        z = z + damping[:, None] * step
        if not bool((reach * torch.maximum(reach, rate) > accuracy).any()):
            break
        rate = reach.clamp(1e-6, 0.25)
    return torch.where(z.isfinite().all(1, keepdim=True), z, 0.0)


def _own_minimum(terms: list[_Term], z: Float[Tensor, "N n"], place: slice) -> Float[Tensor, "N h"]:
    """How far the minimum over the scales of one group is, if all powers are 1 or -1; else a guess."""
    up, down, target = (torch.zeros_like(z[:, place]) for _ in range(3))
    for term in terms:
        if place in term.places:
            energy = _scaled(term, z)
            for i, (other, power) in enumerate(zip(term.places, term.powers, strict=True)):
                if other == place:
                    (up if power > 0 else down).add_(_sum_to(energy, (i,)))
                    target += math.copysign(1, power) * _sum_to(term.target, (i,))
    # up e^t - down e^-t = target, as a quotient without cancellation
    root = (target.square() + 4 * up * down).sqrt() + target.abs()
    growth = torch.where(target > 0, root / (2 * up), 2 * down / root)
    return torch.where((growth > 0) & growth.isfinite(), growth, 1.0).log()


def _scaled(term: _Term, z: Float[Tensor, "N n"]) -> Float[Tensor, "N ..."]:
    """`Q exp(a . z)` for all entries of a term."""
    energy = term.energy
    for i, (place, power) in enumerate(zip(term.places, term.powers, strict=True)):
        factor = (power * z[:, place]).exp()
        energy = energy * factor.reshape(
            len(z), *(1,) * i, factor.shape[1], *(1,) * (len(term.places) - 1 - i)
        )
    return energy


def _newton_step(
    terms: list[_Term], z: Float[Tensor, "N n"], rate: Float[Tensor, " N"]
) -> Float[Tensor, "N n"]:
    """The solution of `H step = -gradient` up to a relative error `rate`, `terms` having the energies at `z`."""
    gradient, diagonal = torch.zeros_like(z), torch.zeros_like(z)
    couplings = []
    for term in terms:
        rank = len(term.places)
        for i, (place, power) in enumerate(zip(term.places, term.powers, strict=True)):
            marginal = _sum_to(term.energy, (i,))
            gradient[:, place] += power * (marginal - _sum_to(term.target, (i,)))
            diagonal[:, place] += power**2 * marginal
            for j in range(i + 1, rank):
                joint = power * term.powers[j] * _sum_to(term.energy, (i, j))
                couplings.append((place, term.places[j], joint))

    def times(v: Tensor) -> Tensor:
        out = diagonal * v
        for one, other, joint in couplings:
            out[:, one] += (joint @ v[:, other, None])[..., 0]
            out[:, other] += (v[:, None, one] @ joint)[:, 0]
        return out

    inverse = torch.where(diagonal > 0, 1 / diagonal, 0.0)
    step, residual = torch.zeros_like(z), -gradient
    direction = ready = inverse * residual
    error = (residual * ready).sum(1)
    # Below the rounding of the gradient there are only directions that change no entry.
    enough = torch.maximum(rate.square() * error, 1e-29 * diagonal.sum(1))
    for _ in range(_MAX_INNER):
        active = error > enough
        if not bool(active.any()):
            break
        image = times(direction)
        curvature = (direction * image).sum(1)
        length = torch.where(active & (curvature > 0), error / curvature, 0.0)[:, None]
        step, residual = step + length * direction, residual - length * image
        ready = inverse * residual
        before, error = error, (residual * ready).sum(1)
        direction = (
            ready + torch.where(active & (before > 0), error / before, 0.0)[:, None] * direction
        )
    return step


def _sum_to(values: Float[Tensor, "N ..."], dims: tuple[int, ...]) -> Float[Tensor, "N ..."]:
    """Sum over all axes but the first and some."""
    others = [1 + i for i in range(values.dim() - 1) if i not in dims]
    return values.sum(others) if others else values
