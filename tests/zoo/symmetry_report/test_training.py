"""The scaling symmetry along training."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.zoo.symmetry_report.networks import (
    NORMED,
    STANDARD,
    build,
    double,
    minibatch,
    network,
    residual,
)
from zoo.architectures import Architecture, make_asymmetric
from zoo.params import Params, stack


def sgd(gradient: Tensor, state: dict, _step: int) -> Tensor:
    return 0.1 * gradient


def momentum(gradient: Tensor, state: dict, _step: int) -> Tensor:
    state["m"] = 0.9 * state.get("m", 0) + gradient
    return 0.05 * state["m"]


def adam(gradient: Tensor, state: dict, step: int) -> Tensor:
    state["m"] = 0.9 * state.get("m", 0) + 0.1 * gradient
    state["v"] = 0.999 * state.get("v", 0) + 0.001 * gradient**2
    return 0.01 * (state["m"] / (1 - 0.9**step)) / ((state["v"] / (1 - 0.999**step)).sqrt() + 1e-8)


def trained(architecture: Architecture, update, steps: int = 5) -> list[Params]:
    """A network after each step of training on another minibatch; fixed entries stay."""
    params, states, networks = network(architecture, 3), {}, []
    for step in range(1, steps + 1):
        x, y = minibatch(10 + step)
        gradient = torch.func.grad(
            lambda now, x=x, y=y: F.cross_entropy(architecture.apply_training(now, x)[0], y)
        )(params)
        statistics = architecture.apply_training(params, x)[1]
        for name, mask in architecture.free.items():
            gradient[name] = gradient[name] * mask
        params = {
            n: t - update(gradient[n], states.setdefault(n, {}), step) for n, t in params.items()
        } | statistics
        networks.append(params)
    return networks


@pytest.mark.parametrize("update", [sgd, momentum, adam])
@pytest.mark.parametrize("name", STANDARD | NORMED)
def test_relu_networks_keep_the_scaling_symmetry_along_training_on_any_minibatch(name, update):
    architecture = build(name)
    networks = stack(trained(architecture, update))
    for seed, count in ((100, 12), (101, 1)):
        report = residual(architecture, networks, minibatch(seed, count), num_samples=1)
        assert max(float(values.max()) for values in report.scale.values()) < 1e-12
        assert all(report.found(group) == ("permutation", "scale") for group in report.groups)


@pytest.mark.parametrize("update", [sgd, momentum, adam])
@pytest.mark.parametrize("name", STANDARD)
def test_gelu_and_w_asymmetric_networks_do_not_have_it(name, update):
    gelu = build(name, activation="gelu")
    w = double(make_asymmetric(build(name), "w", {"n_fix": 0.3}, 0))
    for architecture in (gelu, w):
        report = residual(architecture, stack(trained(architecture, update)), num_samples=1)
        for values in report.scale.values():
            assert float(values.amax(-1).min()) > 1e-3  # of each group, at each step, some neuron
            assert float(values.median()) > 1e-3
