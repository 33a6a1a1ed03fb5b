"""Spaces, elements of their groups and params to act on."""

import torch
from hypothesis import strategies as st

from tests.reference.zoo_spaces import cases, language_cases
from zoo.symmetry.action import GroupElement, sample
from zoo.testing import random_params
from zoo.weight_space import NeuronGroup, WeightSpace

spaces = language_cases() | cases(min_tensors=1)
seeds = st.integers(0, 2**32)
batches = st.lists(st.integers(1, 3), max_size=2).map(tuple)
SPACE = WeightSpace(
    {"h": NeuronGroup(3, scaling="any"), "x": NeuronGroup(2)}, {"weight": "h <- x", "bias": "h"}
)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def elements(
    space: WeightSpace, seed: int, count: int, batch: tuple[int, ...] = ()
) -> list[GroupElement]:
    """Elements of a space, in some of which some groups are absent."""
    source, drawn = generator(seed), []
    for _ in range(count):
        element = sample(space, source, batch)
        permutations = {
            n: v for n, v in element.permutations.items() if torch.rand((), generator=source) < 0.8
        }
        scales = {n: v for n, v in element.scales.items() if torch.rand((), generator=source) < 0.8}
        drawn.append(GroupElement(permutations, scales))
    return drawn


def params_of(
    space: WeightSpace, seed: int, batch: tuple[int, ...] = ()
) -> dict[str, torch.Tensor]:
    return random_params(space, generator(seed), batch)


def assert_same(got, expected) -> None:
    assert list(got) == list(expected)
    for name in expected:
        torch.testing.assert_close(got[name], expected[name], rtol=1e-12, atol=1e-12)
