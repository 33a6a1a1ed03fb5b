"""The distribution of networks before training."""

import math

import pytest
import torch
from scipy.stats import kstest

from tests.zoo.architectures.twins import CLASSES, INPUT, generator
from zoo.architectures import ARCHITECTURES, build_cnn, build_mlp, build_resnet, build_siren
from zoo.params import stack


@pytest.mark.parametrize(
    ("name", "options"),
    [("mlp", {}), ("cnn", {}), ("resnet", {"norm": "none", "channels": (4, 4, 4)})],
)
def test_networks_start_with_the_distribution_of_plain_modules(name, options):
    """Kolmogorov-Smirnov against U(-1/sqrt(fan_in), 1/sqrt(fan_in)); false alarms 1e-4 each."""
    networks = stack(
        [
            ARCHITECTURES[name](INPUT, CLASSES, **options).init(generator(seed))
            for seed in range(100)
        ]
    )
    for name, tensor in networks.items():
        fan_in = math.prod(networks[name.replace("bias", "weight")].shape[2:])
        assert kstest((tensor.flatten() * fan_in**0.5).numpy(), "uniform", (-1, 2)).pvalue > 1e-4


@pytest.mark.parametrize("omega", [1.0, 30.0])
def test_sirens_start_with_their_own_distribution(omega):
    """Kolmogorov-Smirnov, false alarms 1e-4 each. First layer 1/n, others sqrt(6/n) / omega."""
    networks = stack(
        [build_siren((3,), 4, (8, 8), omega).init(generator(seed)) for seed in range(200)]
    )
    bounds = {
        "layers.0.weight": 1 / 3,
        "layers.1.weight": (6 / 8) ** 0.5 / omega,
        "layers.2.weight": (6 / 8) ** 0.5 / omega,
    }
    bounds |= {"layers.0.bias": 3**-0.5, "layers.1.bias": 8**-0.5, "layers.2.bias": 8**-0.5}
    for name, tensor in networks.items():
        assert kstest((tensor.flatten() / bounds[name]).numpy(), "uniform", (-1, 2)).pvalue > 1e-4


def test_pre_activations_of_a_siren_have_the_same_variance_in_every_layer():
    """Theorem 1.8 of Sitzmann et al. 2020: 1 from the weights, `30^2 / (3 n)` from biases."""
    architecture, variances = build_siren((2,), 4, (256,) * 5), []

    def watch(group, z):
        variances.append(float(z.var()))
        return z.sin()

    x = 2 * torch.rand(500, 2, generator=generator(0)) - 1
    architecture.forward(architecture.init(generator(1)), x, watch)
    assert variances[1:] == pytest.approx([1 + 30**2 / (3 * 256)] * 4, rel=0.1)


def test_norms_start_as_the_identity():
    params = build_cnn(INPUT, CLASSES, norm="layer").init(generator(0)) | build_mlp(
        INPUT, CLASSES, norm="layer"
    ).init(generator(0))
    params |= build_resnet(INPUT, CLASSES).init(generator(0))
    norms = [name for name in params if "norm" in name]
    assert len(norms) == 2 * 3 + 4 * (
        1 + 2 * 3 + 2
    )  # the names of the mlp are among those of the cnn
    for name in norms:
        assert (params[name] == (1 if name.endswith(("weight", "running_var")) else 0)).all()
