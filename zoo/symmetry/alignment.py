"""Alignment: the symmetry that brings networks closest to a reference, by weights or activations.

Weight matching maximizes `<reference, act(g, params)>` over the permutations `g` that the space
declares. It goes through the groups in random order and solves for each, the others as they are, a
linear assignment of its neurons. Every step is the best one for its group, so the objective never
falls; the end is a local maximum (`zoo.symmetry.ascent`).
"""

from collections.abc import Mapping
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from zoo.options import Count, checked
from zoo.symmetry.action import GroupElement, act, compose, inverse, tensorwise, with_batch
from zoo.symmetry.ascent import ascend, shuffle, start
from zoo.symmetry.assignment import best_places
from zoo.symmetry.balance import balancing_scales, balancing_scales_of_rows
from zoo.symmetry.rows import as_rows, in_chunks
from zoo.weight_space import WeightSpace

_CHUNK_ENTRIES = 2**23


@checked
def align(
    space: WeightSpace,
    params: Mapping[str, Tensor],
    reference: Mapping[str, Tensor],
    num_restarts: Count = 1,
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
        ValueError: If tensors do not fit the space or have entries that are not finite, the
            reference has leading axes, or there is no start.

    References:
        Ainsworth, Hayase and Srinivasa 2023, arXiv 2209.04836, section 3.2 and algorithm 1.
    """
    lead, networks = as_rows(space, params)
    axes, _ = as_rows(space, reference, "reference")
    if axes:
        raise ValueError(f"align: expected one network as reference, got leading axes {list(axes)}")
    source = generator or torch.Generator().manual_seed(0)
    seeds = torch.randint(2**62, (num_restarts,), generator=source, device=source.device).tolist()
    match = partial(_match_scaled if scales else _match, space, reference=reference, seeds=seeds)
    parts = in_chunks(match, space, _CHUNK_ENTRIES, networks)
    return with_batch(tensorwise(lambda *rows: torch.cat(rows), *parts), lead)


def _match_scaled(
    space: WeightSpace,
    params: Mapping[str, Tensor],
    reference: Mapping[str, Tensor],
    seeds: list[int],
) -> GroupElement:
    """Align some networks `[N, *shape]` at the balanced points of both, signs too."""
    balanced = GroupElement({}, balancing_scales_of_rows(space, params))
    target = GroupElement({}, balancing_scales(space, reference))
    params, reference = act(space, balanced, params), act(space, target, reference)
    best = _match(space, params, reference, seeds, signs=True)
    return compose(inverse(target), compose(best, balanced))


def _match(
    space: WeightSpace,
    params: Mapping[str, Tensor],
    reference: Mapping[str, Tensor],
    seeds: list[int],
    signs: bool = False,
) -> GroupElement:
    """Align some networks `[N, *shape]` and keep the best of all starts for each."""
    ends = (_climb(space, params, reference, signs, s, i > 0) for i, s in enumerate(seeds))
    best, highest = next(ends)
    for end, objective in ends:
        best = tensorwise(partial(torch.where, (objective > highest)[:, None]), end, best)
        highest = torch.maximum(objective, highest)
    return best


def _climb(
    space: WeightSpace,
    params: Mapping[str, Tensor],
    reference: Mapping[str, Tensor],
    signs: bool,
    seed: int,
    shuffled: bool,
) -> tuple[GroupElement, Float[Tensor, " N"]]:
    """One ascent: where it ends, and the objective there."""
    state, generator = start(space, params, reference, signs), torch.Generator().manual_seed(seed)
    if shuffled:
        shuffle(state, generator)
    for _ in ascend(state, generator):
        pass
    return GroupElement(state.permutations, state.signs), state.objective()


def align_activations(
    space: WeightSpace, activations: Mapping[str, Tensor], reference: Mapping[str, Tensor]
) -> GroupElement:
    """Activation matching: the permutations with which neurons correlate most over the same inputs.

    Every group is matched on its own, by one linear assignment.

    Args:
        space: The weight space.
        activations: For a group what its neurons do on `X` inputs, `[*batch, X, size, *positions]`.
        reference: The same of the reference on the same inputs, `[X, size, *positions]`.

    Returns:
        The element `[*batch]`. Groups that are not permutable, or have no activations, stay.

    Raises:
        ValueError: If a group is unknown or in one mapping only, shapes do not fit, or an
            activation is not finite.

    References:
        Li et al. 2015, arXiv 1511.07543; Ainsworth et al. 2023, arXiv 2209.04836, section 3.1.
    """
    if set(activations) != set(reference) or not set(activations) <= set(space.groups):
        raise ValueError(
            "align_activations: expected the same groups of the space in both, "
            f"got {sorted(activations)} and {sorted(reference)}; "
            f"groups of the space are {sorted(space.groups)}"
        )
    permutations = {}
    for name, values in activations.items():
        group, target = space.groups[name], reference[name]
        lead = _leading_axes(name, group.size, values.shape, target.shape)
        if not (values.isfinite().all() and target.isfinite().all()):
            raise ValueError(f"activations of group {name!r}: expected finite values")
        if group.permutable:
            rows = _standardized(values.reshape(-1, *target.shape))
            places = best_places(rows @ _standardized(target[None]).mT)
            permutations[name] = places.argsort(-1).reshape(*lead, group.size)
    return GroupElement(permutations, {})


def _leading_axes(group: str, size: int, shape: torch.Size, target: torch.Size) -> torch.Size:
    """The leading axes of activations, which a reference of the shape `target` lacks."""
    lead = shape[: len(shape) - len(target)]
    if len(target) < 2 or target[1] != size or shape != lead + target:
        raise ValueError(
            f"activations of group {group!r}: expected [*batch, X, {size}, *positions] "
            f"and the same without leading axes, got {list(shape)} and {list(target)}"
        )
    return lead


def _standardized(values: Float[Tensor, "N X h ..."]) -> Float[Tensor, "N h F"]:
    """Neuron by neuron all activations, with mean 0 and norm 1; 0 for neurons that never change."""
    rows = values.movedim(2, 1).flatten(2)
    rows = rows - rows.mean(2, keepdim=True)
    norms = rows.norm(dim=2, keepdim=True)
    return torch.where(norms > 0, rows / norms, 0.0)
