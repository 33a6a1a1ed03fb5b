"""Tangent kernels: against single derivatives, in any blocks, and against infinite width."""

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

import zoo.dynamics.finite_width
from tests.reference import zoo_tangent_kernel
from tests.zoo.instances import INPUTS, OPTIONS
from zoo.architectures import (
    ARCHITECTURES,
    Architecture,
    build_architecture,
    build_mlp,
    make_asymmetric,
)
from zoo.dynamics.finite_width import tangent_kernel, tangent_kernel_trace, trained_masks
from zoo.dynamics.infinite_width import (
    arc_cosine_kernel,
    relu_tangent_kernel,
    relu_tangent_variance,
)
from zoo.params import Params, stack

CLASSES = 3
SMALL = {
    "mlp": {"hidden": (7, 6)},
    "cnn": {"channels": (5, 6)},
    "resnet": {"channels": (6, 6, 6)},
    "transformer": {"dim": 8, "depth": 1},
    "siren": {"hidden": (7, 5)},
}
KINDS = {"standard": None, "w": {}, "sigma": {}}


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def build(name: str, kind: str = "standard") -> Architecture:
    architecture = build_architecture(
        name, OPTIONS[name] | SMALL.get(name, {}), INPUTS[name], CLASSES
    )
    return (architecture if kind == "standard" else make_asymmetric(architecture, kind, {}, 0)).to(
        "cpu", torch.float64
    )


def networks(architecture: Architecture, count: int) -> Params:
    """Initial networks with all trained entries, biases and norms too, off their initial values."""
    params = stack([architecture.init(generator(seed)) for seed in range(count)])
    noise = {
        name: 0.05 * torch.randn(t.shape, generator=generator(9), dtype=torch.float64)
        for name, t in params.items()
    }
    free = architecture.free
    return {
        name: t.double() + noise[name] * free.get(name, torch.tensor(True))
        for name, t in params.items()
    }


def images(name: str, count: int, seed: int) -> Tensor:
    return torch.randn(count, *INPUTS[name], generator=generator(seed), dtype=torch.float64)


def error(kernel: Tensor, expected: Tensor) -> float:
    return float((kernel - expected).abs().max() / expected.abs().max())


# against one derivative at a time


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_kernel_is_the_product_of_the_jacobians(name, kind):
    architecture = build(name, kind)
    params, x, other, free = (
        networks(architecture, 2),
        images(name, 3, 0),
        images(name, 2, 1),
        trained_masks(architecture.constants),
    )
    kernel = tangent_kernel(architecture.apply, params, x, other, free=free)
    trace = tangent_kernel_trace(architecture.apply, params, x, other, free=free)
    for n in range(2):
        network = {key: tensor[n] for key, tensor in params.items()}
        expected = zoo_tangent_kernel.tangent_kernel(architecture.apply, network, x, other, free)
        assert error(kernel[n], expected) < 1e-10
        assert error(trace[n], torch.einsum("xkyk->xy", expected)) < 1e-10


def test_what_is_not_trained_does_not_count():
    architecture = build("resnet", "w")
    params, x = networks(architecture, 1), images("resnet", 2, 0)
    masks = trained_masks(architecture.constants)
    assert architecture.statistics
    assert set(architecture.statistics) < set(masks)
    counted = tangent_kernel_trace(architecture.apply, params, x, free=masks)
    without_statistics = tangent_kernel_trace(architecture.apply, params, x, free=architecture.free)
    everything = tangent_kernel_trace(architecture.apply, params, x)
    assert error(without_statistics, counted) > 1e-3
    assert error(everything, without_statistics) > 1e-3


def test_the_kernel_of_a_set_with_itself_is_symmetric_and_positive_semidefinite():
    architecture = build("cnn")
    params, x = networks(architecture, 2), images("cnn", 4, 0)
    kernel = tangent_kernel(architecture.apply, params, x)
    torch.testing.assert_close(kernel, kernel.permute(0, 3, 4, 1, 2))
    assert float(torch.linalg.eigvalsh(kernel.flatten(3).flatten(1, 2)).min()) > -1e-10 * float(
        kernel.max()
    )
    assert error(kernel, tangent_kernel(architecture.apply, params, x, x.clone())) < 1e-12


# blocks


@pytest.mark.parametrize("limit", [1, 2_500, 6_000, 10_500, 10**9])
@pytest.mark.parametrize("same", [True, False])
def test_blocks_change_nothing_and_keep_to_their_bound(limit, same, monkeypatch):
    architecture = build("mlp")
    params, x = networks(architecture, 3), images("mlp", 5, 0)
    other = None if same else images("mlp", 3, 1)
    whole = tangent_kernel(architecture.apply, params, x, other)
    trace = tangent_kernel_trace(architecture.apply, params, x, other)
    sizes, count = [], zoo.dynamics.finite_width._jacobians

    def counting(*arguments):
        jacobians = count(*arguments)
        sizes.append(sum(jacobian.numel() for jacobian in jacobians))
        return jacobians

    monkeypatch.setattr(zoo.dynamics.finite_width, "_jacobians", counting)
    assert (
        error(tangent_kernel(architecture.apply, params, x, other, max_entries=limit), whole)
        < 1e-12
    )
    assert (
        error(tangent_kernel_trace(architecture.apply, params, x, other, max_entries=limit), trace)
        < 1e-12
    )
    entries = CLASSES * architecture.space.num_params
    split = limit < entries * (5 if same else 8)
    assert max(sizes) * (2 if split else 1) <= max(limit, 2 * entries)
    assert same or sizes[0] + sizes[1] <= max(limit, 2 * entries)
    assert (len(sizes) > (2 if same else 4)) == (limit < 10**9)


@pytest.mark.parametrize(
    ("broken", "message"),
    [("bare", "one N"), ("single", "one N"), ("mask", "'layers.0.weight'"), ("nothing", "trained")],
)
@pytest.mark.parametrize("kernel", [tangent_kernel, tangent_kernel_trace])
def test_what_does_not_fit_is_refused(kernel, broken, message):
    architecture = build("mlp")
    params, free = networks(architecture, 2), {}
    if broken == "bare":
        params["layers.0.bias"] = params["layers.0.bias"][0]
    elif broken == "single":
        params = {name: tensor[0] for name, tensor in params.items()}
    elif broken == "mask":
        free = {"layers.0.weight": torch.ones(2, 2, dtype=torch.bool)}
    else:
        free = {
            name: torch.zeros(shape, dtype=torch.bool)
            for name, shape in architecture.space.shapes.items()
        }
    with pytest.raises(ValueError, match=message):
        kernel(architecture.apply, params, images("mlp", 2, 0), free=free)


# infinite width

INPUT = torch.tensor(
    [[1.0, 0.2, -0.4], [0.3, -1.1, 0.5], [-0.8, -0.3, 0.1], [1.1, 0.1, -0.5]], dtype=torch.float64
)
WIDTH, COUNT = 4096, 64


def test_arc_cosine_kernels_and_the_variance_are_the_moments_of_one_neuron():
    kernel, variance = relu_tangent_kernel(INPUT, INPUT), relu_tangent_variance(INPUT, INPUT)
    for i, x in enumerate(INPUT.numpy()):
        for j, other in enumerate(INPUT.numpy()):
            first, second = (zoo_tangent_kernel.relu_moments(x, other, power) for power in (1, 2))
            assert float(kernel[i, j]) == pytest.approx(first, rel=1e-3, abs=1e-4)
            assert float(variance[i, j]) == pytest.approx(second - first**2, rel=1e-3, abs=1e-4)


def test_an_arc_cosine_kernel_of_parallel_inputs_is_half_of_a_moment_of_a_normal_variable():
    x = INPUT[:1]
    size = float(x.norm())
    for order, moment in ((0, 1), (1, size**2), (2, 3 * size**4)):
        assert float(arc_cosine_kernel(order, x, 2 * x)) == pytest.approx(
            2**order * moment / 2, rel=1e-14
        )
        assert float(arc_cosine_kernel(order, x, -x)) == pytest.approx(0, abs=1e-14)
    with pytest.raises(ValueError, match="order 0, 1 or 2"):
        arc_cosine_kernel(3, x, x)


def test_at_width_4096_the_kernel_is_that_of_infinite_width_within_sampling_error():
    """Errors by chance, with normal means of 4,096 (or 262,144) neurons: below 1e-4 together.

    Each deviation is a standard normal variable: 10 pairs of images beyond 5 standard errors for
    the mean over networks, 640 for single ones beyond 5.5, by union bounds 6e-6 and 2.5e-5; for one
    pair the sum of squares is a chi-square variable of 64 degrees of freedom, outside its central
    interval with probability 4e-5.
    """
    scales = {"layers.0.weight": 3**-0.5, "layers.1.weight": WIDTH**-0.5}
    architecture = build_mlp((3,), 1, (WIDTH,))

    def apply(network: Params, x: Tensor) -> Tensor:
        return architecture.apply(
            {name: scales.get(name, 1.0) * tensor for name, tensor in network.items()}, x
        )

    source, shapes = generator(5), architecture.space.shapes.items()
    params = {
        name: torch.randn(COUNT, *shape, generator=source, dtype=torch.float64)
        for name, shape in shapes
    }
    kernel = tangent_kernel_trace(apply, params, INPUT)
    extended = torch.cat([INPUT / 3**0.5, torch.ones(4, 1, dtype=torch.float64)], dim=1)
    expected, variance = (
        relu_tangent_kernel(extended, extended) + 1,
        relu_tangent_variance(extended, extended),
    )
    deviation = (kernel - expected) / (variance / WIDTH) ** 0.5
    assert float((deviation.mean(0) * COUNT**0.5).abs().max()) < 5
    assert float(deviation.abs().max()) < 5.5
    low, high = stats.chi2(COUNT).ppf([2e-5, 1 - 2e-5])
    assert low < float((deviation[:, 0, 1] ** 2).sum()) < high
    assert np.sqrt(float(variance.max()) / WIDTH / COUNT) < 0.01  # what the first line can see
