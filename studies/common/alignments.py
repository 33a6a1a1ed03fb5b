"""Ways to align one network with another, by name, and what alignment did."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from studies.common.evaluation import Part
from zoo.architectures import Architecture
from zoo.architectures.record import activations
from zoo.architectures.table import build_architecture
from zoo.params import Params, stack
from zoo.store.population import Population
from zoo.symmetry.action import GroupElement, act
from zoo.symmetry.alignment import align, align_activations
from zoo.tracing.builders import architecture_of, recipe_of
from zoo.weight_space import WeightSpace


@dataclass(frozen=True, eq=False)
class Matching:
    """What matching needs to know besides the two networks.

    Attributes:
        architecture: What they compute.
        images: Training images, for those that look at activations.
        num_restarts: Starts of weight matching.
        seed: Seed of their order.
    """

    architecture: Architecture
    images: Part
    num_restarts: int
    seed: int


def match_nothing(
    _space: WeightSpace, _params: Mapping[str, Tensor], _reference: Params, _matching: Matching
) -> GroupElement:
    """The element that changes nothing."""
    return GroupElement({}, {})


def match_weights(
    space: WeightSpace, params: Mapping[str, Tensor], reference: Params, matching: Matching
) -> GroupElement:
    """Weight matching, see `zoo.symmetry.alignment.align`."""
    generator = torch.Generator().manual_seed(matching.seed)
    return align(space, params, reference, matching.num_restarts, generator)


def match_activations(
    space: WeightSpace, params: Mapping[str, Tensor], reference: Params, matching: Matching
) -> GroupElement:
    """Activation matching, see `zoo.symmetry.alignment.align_activations`."""
    with torch.no_grad():
        moving, still = (
            activations(matching.architecture, dict(p), matching.images.x)
            for p in (params, reference)
        )
    return align_activations(space, moving, still)


# name -> element(space, params, reference, matching) that brings one network to the reference
ALIGNMENTS: dict[
    str, Callable[[WeightSpace, Mapping[str, Tensor], Params, Matching], GroupElement]
] = {
    "none": match_nothing,
    "weights": match_weights,
    "activations": match_activations,
}


def check_alignments(names: tuple[str, ...]) -> tuple[str, ...]:
    """Names of alignments, all known.

    Args:
        names: The names.

    Returns:
        The same.

    Raises:
        ValueError: If one is unknown.
    """
    unknown = [name for name in names if name not in ALIGNMENTS]
    if unknown or not names:
        raise ValueError(f"expected alignments among {list(ALIGNMENTS)}, found {list(names)}")
    return names


def can_move(space: WeightSpace) -> bool:
    """Whether a space has neurons that alignment may permute."""
    return any(group.permutable and group.size > 1 for group in space.groups.values())


def moved_share(space: WeightSpace, element: GroupElement) -> float:
    """Share of the neurons of permutable groups that an element puts into another place."""
    # 0 if there are none.
    sizes = [group.size for group in space.groups.values() if group.permutable]
    moved = [
        int((order != torch.arange(len(order))).sum()) for order in element.permutations.values()
    ]
    return sum(moved) / sum(sizes) if sizes else 0.0


def standard_space(population: Population) -> WeightSpace:
    """The space of a population as it would be without its asymmetry."""
    # Tensors and groups are the same, symmetries are not.
    architecture = population.architecture
    if architecture.is_module:
        return architecture_of(recipe_of(architecture)._replace(change=None, buffers=None)).space
    return build_architecture(
        architecture.name, architecture.options, architecture.input_shape, architecture.num_outputs
    ).space


def align_to_first(
    space: WeightSpace, networks: Sequence[Params], matching: Matching
) -> list[Params]:
    """Networks, all but the first moved to it by weight matching."""
    first, *others = networks
    return [first, *(act(space, match_weights(space, p, first, matching), p) for p in others)]


def align_to_mean(
    space: WeightSpace, networks: list[Params], matching: Matching, max_rounds: int = 50
) -> list[Params]:
    """Align networks with each other.

    In turn, each to the mean of the others, until none moves any more.

    Every step raises the sum of all inner products between networks or leaves it, so that the
    squared distance to the mean never rises. The first step of all is to align them with the first
    network.

    Args:
        space: The weight space.
        networks: At least two networks `[*shape]`.
        matching: How weights are matched.
        max_rounds: Rounds after which to stop in any case.

    Returns:
        The networks, moved.

    References:
        Ainsworth et al. 2023, arXiv 2209.04836, algorithm 3 (which starts from the networks as they
        are).
    """
    moved = align_to_first(space, networks, matching)
    generator = torch.Generator().manual_seed(matching.seed)
    for _ in range(max_rounds):
        still = True
        for i in torch.randperm(len(moved), generator=generator).tolist():
            others = [p for j, p in enumerate(moved) if j != i]
            mean = {name: tensor.mean(0) for name, tensor in stack(others).items()}
            start = torch.Generator().manual_seed(matching.seed)
            element = align(space, moved[i], mean, generator=start)
            still = still and moved_share(space, element) == 0
            moved[i] = act(space, element, moved[i])
        if still:
            break
    return moved
