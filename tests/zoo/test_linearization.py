"""What the kernel says about training: closed forms, first order, errors by width."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import vmap

from zoo.architectures import build_mlp, make_asymmetric
from zoo.dynamics.finite_width import tangent_kernel, tangent_kernel_trace
from zoo.dynamics.gradient_flow import descend, flow
from zoo.dynamics.linearization import (
    first_order_change,
    kernel_alignment,
    kernel_distance,
    kernel_drift,
    linearized_outputs,
    prediction_error,
)
from zoo.params import Params, stack


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


X, Y = normal(6, 3, seed=0), normal(6, 2, seed=1)
TANH = build_mlp((3,), 2, (8,), activation="tanh")
NETWORKS: Params = stack(
    [{n: t.double() for n, t in TANH.init(generator(seed)).items()} for seed in range(3)]
)


def squared(network: Params) -> Tensor:
    return (TANH.apply(network, X) - Y).square().sum() / 2


# distances


def test_distance_and_alignment_are_what_their_names_say():
    one, two = normal(4, 5, 5, seed=2), normal(4, 5, 5, seed=3)
    for n in range(4):
        cosine = F.cosine_similarity(one[n].flatten(), two[n].flatten(), dim=0)
        assert float(kernel_alignment(one, two)[n]) == pytest.approx(float(cosine))
        assert float(kernel_distance(one, two)[n]) == pytest.approx(
            math.dist(one[n].flatten(), two[n].flatten()) / two[n].norm()
        )
    assert kernel_alignment(3 * one, one).tolist() == pytest.approx([1] * 4)
    assert kernel_distance(3 * one, one).tolist() == pytest.approx([2] * 4)


def test_drift_starts_at_nothing_and_is_that_of_each_checkpoint():
    free = {"layers.0.weight": torch.arange(24).reshape(8, 3) % 2 == 0}
    states = [NETWORKS] + [flow(squared, NETWORKS, time, 20, free).params for time in (0.05, 0.3)]
    checkpoints = {name: torch.stack([state[name] for state in states], dim=1) for name in NETWORKS}
    drift = kernel_drift(TANH.apply, checkpoints, X, free=free)
    assert drift.distance.shape == drift.alignment.shape == (3, 3)
    assert drift.distance[:, 0].tolist() == [0] * 3
    assert drift.alignment[:, 0].tolist() == pytest.approx([1] * 3)
    assert bool((drift.distance.diff(dim=1) > 0).all())
    first, last = (
        tangent_kernel_trace(TANH.apply, state, X, free=free) for state in (states[0], states[-1])
    )
    torch.testing.assert_close(drift.distance[:, -1], kernel_distance(last, first))
    torch.testing.assert_close(drift.alignment[:, -1], kernel_alignment(last, first))


# closed forms


def test_linearized_outputs_solve_their_differential_equation():
    kernel = tangent_kernel(TANH.apply, NETWORKS, X)
    start, matrix = vmap(TANH.apply, (0, None))(NETWORKS, X), kernel.flatten(3).flatten(1, 2)
    times = torch.tensor([0.0, 0.1, 0.7, 50.0], dtype=torch.float64)
    predicted = linearized_outputs(kernel, start, Y, times)
    torch.testing.assert_close(predicted[:, 0], start)
    for n in range(3):
        for t, outputs in zip(times, predicted[n], strict=True):
            expected = (
                Y.flatten() + torch.linalg.matrix_exp(-matrix[n] * t) @ (start[n] - Y).flatten()
            )
            torch.testing.assert_close(outputs.flatten(), expected, rtol=1e-9, atol=1e-10)


def test_a_model_linear_in_its_params_is_predicted_exactly():
    linear = build_mlp((3,), 2, ())
    params = stack(
        [{n: t.double() for n, t in linear.init(generator(seed)).items()} for seed in range(2)]
    )
    after = flow(
        lambda network: (linear.apply(network, X) - Y).square().sum() / 2, params, 0.3, 400
    ).params
    assert float(prediction_error(linear.apply, params, after, X, Y, 0.3).max()) < 1e-10
    assert float(prediction_error(linear.apply, params, after, X, Y, 0.33).max()) > 1e-3


def test_fixed_entries_do_not_count_in_predictions():
    architecture = make_asymmetric(
        build_mlp((3,), 2, (8,), activation="tanh"),
        "w",
        {"n_fix": {"layers.0.weight": 0, "layers.1.weight": 3}},
        0,
    ).to("cpu", torch.float64)
    params = stack(
        [
            {n: t.double() for n, t in architecture.init(generator(seed)).items()}
            for seed in range(2)
        ]
    )

    def loss(network: Params) -> Tensor:
        return (architecture.apply(network, X) - Y).square().sum() / 2

    after = flow(loss, params, 1e-3, 2, architecture.free).params
    right = prediction_error(architecture.apply, params, after, X, Y, 1e-3, free=architecture.free)
    wrong = prediction_error(architecture.apply, params, after, X, Y, 1e-3)
    assert float(right.max()) < 0.01 < 0.05 < float(wrong.min())


def test_gradient_descent_comes_to_the_prediction_of_the_flow_with_its_step_size():
    time = 0.1
    exact = vmap(TANH.apply, (0, None))(flow(squared, NETWORKS, time, 100).params, X)
    gaps = []
    for steps in (200, 400, 800):
        ends = vmap(TANH.apply, (0, None))(
            descend(squared, NETWORKS, time / steps, steps).params, X
        )
        gaps.append(float((ends - exact).norm()))
    assert [gaps[0] / gaps[1], gaps[1] / gaps[2]] == pytest.approx([2, 2], rel=0.03)


# one step, any loss


@pytest.mark.parametrize("name", ["cross-entropy", "squared error"])
def test_the_first_order_change_is_that_of_a_small_step(name):
    labels, other = torch.arange(6) % 2, normal(4, 3, seed=5)
    loss, targets = (F.cross_entropy, labels) if name == "cross-entropy" else (F.mse_loss, Y)
    kernel = tangent_kernel(TANH.apply, NETWORKS, other, X)
    start, before = (vmap(TANH.apply, (0, None))(NETWORKS, images) for images in (X, other))
    errors = []
    for rate in (1e-2, 1e-3):
        stepped = descend(
            lambda network: loss(TANH.apply(network, X), targets), NETWORKS, rate, 1
        ).params
        real = vmap(TANH.apply, (0, None))(stepped, other) - before
        errors.append(
            float(
                (first_order_change(kernel, start, targets, rate, loss) - real).norm() / real.norm()
            )
        )
    assert errors[1] < 1e-2
    assert errors[0] / errors[1] == pytest.approx(10, rel=0.1)


# by width

WIDTHS = (64, 256, 1024)


def errors_by_width(activation: str, kernel_scaling: bool) -> tuple[list[float], list[float]]:
    """Median error of 12 networks after one flow, at fixed progress, and median kernel drift."""
    inputs, targets, errors, drifts = (
        F.normalize(normal(4, 3, seed=7)) * 3**0.5,
        normal(4, 1, seed=8),
        [],
        [],
    )
    for width in WIDTHS:
        architecture = build_mlp((3,), 1, (width,), activation=activation)
        scales, source = (
            {"layers.0.weight": 3**-0.5, "layers.1.weight": width**-0.5} if kernel_scaling else {},
            generator(width),
        )
        if kernel_scaling:
            shapes = architecture.space.shapes.items()
            params = {
                name: torch.randn(12, *shape, generator=source, dtype=torch.float64)
                for name, shape in shapes
            }
        else:
            params = stack(
                [{n: t.double() for n, t in architecture.init(source).items()} for _ in range(12)]
            )

        def apply(network: Params, x: Tensor, architecture=architecture, scales=scales) -> Tensor:
            return architecture.apply(
                {name: scales.get(name, 1.0) * tensor for name, tensor in network.items()}, x
            )

        def loss(network: Params, apply=apply) -> Tensor:
            return (apply(network, inputs) - targets).square().sum() / 2

        before = tangent_kernel_trace(apply, params, inputs)
        time = 4 / float(before.diagonal(dim1=1, dim2=2).mean())
        after = flow(loss, params, time, 20).params
        errors.append(float(prediction_error(apply, params, after, inputs, targets, time).median()))
        drifts.append(
            float(kernel_distance(tangent_kernel_trace(apply, after, inputs), before).median())
        )
    return errors, drifts


def slope(values: list[float]) -> float:
    """The power of width in a least-squares fit of logarithms."""
    place = torch.tensor(WIDTHS).log()
    return float(
        ((place - place.mean()) * torch.tensor(values).log()).sum()
        / (place - place.mean()).square().sum()
    )


@pytest.mark.parametrize(
    ("activation", "kernel_scaling", "power"),
    [("tanh", True, -1.0), ("relu", True, -0.5), ("tanh", False, -1.9)],
)
def test_the_error_falls_with_width(activation, kernel_scaling, power):
    """Theory bounds it by a power of -1/2 (Lee et al. 2019); smooth networks do better.

    With PyTorch's initialization and time in proportion to 1 / width, the first layer trains ever
    less and the last is linear.
    """
    errors, drifts = errors_by_width(activation, kernel_scaling)
    assert errors[0] < 0.3
    assert errors[0] > errors[1] > errors[2]
    assert slope(errors) == pytest.approx(power, abs=0.25)
    assert drifts[0] > drifts[1] > drifts[2]
