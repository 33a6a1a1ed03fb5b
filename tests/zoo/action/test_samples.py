"""Samples of the group.

A sound sampler fails each of the tests of a distribution with probability 1e-4 (the seed is fixed,
so it fails never or always).
"""

import math
from collections import Counter

import pytest
import torch
from hypothesis import given

from tests.reference.zoo_spaces import Case
from tests.zoo.action.elements import SPACE, generator, seeds, spaces
from zoo.symmetry.action import sample
from zoo.weight_space import NeuronGroup, WeightSpace

COUNT = 12_000


def test_permutations_of_three_neurons_are_uniform():
    drawn = sample(SPACE, generator(0), (COUNT,)).permutations["h"]
    counts = Counter(map(tuple, drawn.tolist()))
    assert len(counts) == 6
    expected = COUNT / 6
    assert (
        sum((count - expected) ** 2 / expected for count in counts.values()) < 25.74
    )  # chi-square, 5 degrees of freedom


def test_signs_are_fair_and_independent():
    space = WeightSpace({"h": NeuronGroup(2, permutable=False, scaling="sign")}, {"bias": "h"})
    drawn = sample(space, generator(1), (COUNT,)).scales["h"]
    assert set(drawn.flatten().tolist()) == {-1.0, 1.0}
    counts = Counter(map(tuple, drawn.tolist()))
    expected = COUNT / 4
    assert (
        sum((count - expected) ** 2 / expected for count in counts.values()) < 21.11
    )  # chi-square, 3 degrees of freedom


@pytest.mark.parametrize("scaling", ["positive", "any"])
def test_scales_are_log_uniform_between_1_over_e_and_e(scaling):
    space = WeightSpace({"h": NeuronGroup(1, scaling=scaling)}, {"bias": "h"})
    drawn = sample(space, generator(2), (COUNT,)).scales["h"].flatten()
    assert bool((drawn < 0).any()) == (scaling == "any")
    logs = drawn.abs().log().sort().values
    assert float(logs.abs().max()) <= 1
    distance = ((logs + 1) / 2 - (torch.arange(COUNT) + 0.5) / COUNT).abs().max() + 0.5 / COUNT
    assert float(distance) < math.sqrt(
        math.log(2 / 1e-4) / (2 * COUNT)
    )  # Kolmogorov-Smirnov, bound of Massart


@given(spaces, seeds)
def test_samples_are_what_the_space_declares(case: Case, seed):
    element, again = (sample(case.space, generator(seed), (2,)) for _ in range(2))
    groups = case.space.groups
    assert set(element.permutations) == {name for name, group in groups.items() if group.permutable}
    assert set(element.scales) == {
        name for name, group in groups.items() if group.scaling != "none"
    }
    for name, values in element.permutations.items():
        assert torch.equal(values, again.permutations[name])
        assert torch.equal(values.sort(-1).values, torch.arange(groups[name].size).expand(2, -1))
    for name, values in element.scales.items():
        assert torch.equal(values, again.scales[name])
        allowed = {"sign": values.abs() == 1, "positive": values > 0, "any": values != 0}[
            groups[name].scaling
        ]
        assert allowed.all()


def test_samples_leave_the_global_random_state_alone():
    before = torch.get_rng_state()
    sample(SPACE, generator(0), (2,))
    assert torch.equal(before, torch.get_rng_state())
