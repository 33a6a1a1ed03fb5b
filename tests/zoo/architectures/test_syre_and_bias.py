"""Architectures with offsets or fixed biases, and kinds of asymmetry that combine."""

import pytest
import torch
from scipy.stats import kstest

from tests.zoo.architectures.twins import generator
from zoo.architectures import (
    Architecture,
    bias_asymmetric,
    build_cnn,
    build_mlp,
    syre,
    w_asymmetric,
)
from zoo.architectures.base import constants_of
from zoo.params import batch_shape, flatten
from zoo.weight_space import NeuronGroup, WeightSpace


def test_syre_has_an_offset_for_every_parameter_and_changes_nothing_else():
    """Kolmogorov-Smirnov on 4,970 offsets; a right implementation fails with probability 1e-6."""
    standard = build_cnn((1, 6, 6), 10)
    architecture = syre(standard, generator(0), std=0.3)
    offsets = constants_of(architecture.constants, "offset")
    assert batch_shape(standard.space, offsets) == ()
    assert kstest(flatten(standard.space, offsets).numpy(), "norm", (0, 0.3)).pvalue > 1e-6
    one, other = standard.init(generator(1)), architecture.init(generator(1))
    assert all(torch.equal(one[name], other[name]) for name in one)
    x = torch.randn(3, 1, 6, 6, generator=generator(2))
    assert torch.equal(standard.apply(one, x), architecture.apply(one, x))


def test_kinds_combine():
    standard = build_mlp((10,), 4, (8,))
    both = syre(w_asymmetric(standard, generator(0), n_fix=2), generator(1))
    assert {name.split(".")[0] for name in both.constants} == {"free", "fixed", "offset"}
    assert both.num_free == standard.space.num_params - 2 * (8 + 4)


def test_all_biases_are_fixed_and_nothing_else():
    """Kolmogorov-Smirnov on 1,210 biases; a right implementation fails with probability 1e-6."""
    standard = build_mlp((10,), 10, (300, 300), norm="layer")
    architecture = bias_asymmetric(standard, generator(0), kappa=0.5)
    biases = {f"layers.{i}.bias" for i in range(3)} | {"norms.0.bias", "norms.1.bias"}
    assert set(architecture.free) == biases
    one, other = (architecture.init(generator(seed)) for seed in (1, 2))
    assert all(torch.equal(one[name], other[name]) for name in biases)
    assert all(
        torch.equal(one[name], standard.init(generator(1))[name]) for name in set(one) - biases
    )
    assert architecture.num_free == standard.space.num_params - sum(
        one[name].numel() for name in biases
    )
    assert kstest(torch.cat([one[name] for name in biases]).numpy(), "norm", (0, 0.5)).pvalue > 1e-6


@pytest.mark.parametrize("norm", ["none", "layer"])
def test_fixed_biases_declare_no_symmetry_unless_they_are_all_zero(norm):
    standard = build_mlp((10,), 4, (8, 6), norm=norm)
    groups = bias_asymmetric(standard, generator(0)).space.groups.values()
    assert not any(
        group.permutable or group.scaling != "none"
        for group in groups
        if group.activation == "relu"
    )
    assert bias_asymmetric(standard, generator(0), kappa=0.0).space == standard.space


def test_a_network_without_biases_has_none_to_fix():
    space = WeightSpace({"x": NeuronGroup(2, permutable=False)}, {"weight": "x"})
    linear = Architecture(
        space, lambda _: {"weight": torch.ones(2)}, lambda params, x, _: x * params["weight"]
    )
    with pytest.raises(ValueError, match=r"no tensor is named bias; tensors are \['weight'\]"):
        bias_asymmetric(linear, generator(0))
