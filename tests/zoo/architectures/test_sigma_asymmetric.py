"""Sigma-asymmetric architectures: the gate that mixes the neurons of a layer."""

import pytest
import torch
from scipy.stats import kstest

from tests.reference.zoo_modules import MODULES
from tests.zoo.architectures.twins import CLASSES, assert_equals_module, generator
from zoo.architectures import build_architecture, build_cnn, build_mlp, sigma_asymmetric
from zoo.architectures.base import constants_of


@pytest.mark.parametrize("norm", ["none", "layer"])
@pytest.mark.parametrize(
    ("name", "groups"),
    [
        ("mlp", ["h1", "h2"]),
        ("cnn", ["c1", "c2", "c3"]),
        ("resnet", ["r1", "r2", "r3", "h1", "h2", "h3"]),
        ("gin", ["h1", "h2", "h3", "h4", "h5", "h6"]),
    ],
)
def test_sigma_asymmetric_networks_equal_modules_with_a_fixed_gate(name, groups, norm):
    architecture = sigma_asymmetric(
        build_architecture(name, {"norm": norm}, (2, 9, 7), CLASSES), generator(0)
    )
    architecture = architecture.to("cpu", torch.float64)
    mixing = constants_of(architecture.constants, "mixing")
    assert list(mixing) == groups
    assert_equals_module(architecture, MODULES[name]((2, 9, 7), CLASSES, norm=norm, mixing=mixing))


@pytest.mark.parametrize(
    ("name", "groups"), [("transformer", ["m1", "m2"]), ("siren", ["h1", "h2"])]
)
def test_sigma_asymmetric_networks_without_an_option_for_norms_equal_modules_with_a_fixed_gate(
    name, groups
):
    shape = (2, 8, 4)
    architecture = sigma_asymmetric(build_architecture(name, {}, shape, CLASSES), generator(0)).to(
        "cpu", torch.float64
    )
    mixing = constants_of(architecture.constants, "mixing")
    assert list(mixing) == groups
    assert_equals_module(architecture, MODULES[name](shape, CLASSES, mixing=mixing), shape=shape)


@pytest.mark.parametrize("pool", ["average", "flatten"])
def test_the_gate_mixes_all_channels_of_an_axis_that_norm_groups_share(pool):
    options = {"channels": (4, 8), "norm": "group", "norm_groups": 2, "pool": pool}
    architecture = sigma_asymmetric(build_cnn((2, 9, 7), CLASSES, **options), generator(0)).to(
        "cpu", torch.float64
    )
    mixing = constants_of(architecture.constants, "mixing")
    assert {name: tuple(matrix.shape) for name, matrix in mixing.items()} == {
        "c1": (4, 4),
        "c2": (8, 8),
    }
    assert not any(group.permutable for group in architecture.space.groups.values())
    assert_equals_module(architecture, MODULES["cnn"]((2, 9, 7), CLASSES, mixing=mixing, **options))


@pytest.mark.parametrize(("std", "expected"), [(None, 1 / 16), (0.5, 0.5)])
def test_the_gate_is_gaussian_with_the_standard_deviation_asked_for(std, expected):
    """Kolmogorov-Smirnov on 65,536 values; a right implementation fails with probability 1e-6."""
    constants = sigma_asymmetric(build_mlp((4,), 2, (256,)), generator(0), std).constants
    assert kstest(constants["mixing.h1"].flatten().numpy(), "norm", (0, expected)).pvalue > 1e-6


def test_sigma_asymmetric_networks_train_all_their_parameters_and_start_as_standard_ones():
    standard = build_mlp((4,), 2, (5,))
    architecture = sigma_asymmetric(standard, generator(0))
    assert architecture.num_free == standard.space.num_params
    one, other = standard.init(generator(1)), architecture.init(generator(1))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert {group.activation for group in architecture.space.groups.values()} == {"linear", "figlu"}
