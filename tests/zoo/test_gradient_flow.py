"""Time symmetry: exact along the flow, off by half of eta times the curvature along descent."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import grad, jvp

from zoo.architectures import Architecture, build_cnn, build_gin, build_mlp, make_asymmetric
from zoo.dynamics.gradient_flow import Path, descend, flow, path
from zoo.params import Params, stack

SMOOTH = {
    "tanh": build_mlp((5,), 3, (8, 6), activation="tanh"),
    "gelu with norms": build_mlp((5,), 3, (8,), activation="gelu", norm="layer"),
    "cnn": build_cnn((1, 4, 4), 3, (4,), activation="silu"),
    "w-asymmetric": make_asymmetric(
        build_mlp((5,), 3, (8, 6), activation="tanh"), "w", {"n_fix": 2, "kappa": 0.5}, 0
    ),
}


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def double(architecture: Architecture, count: int = 2) -> tuple[Architecture, Params]:
    architecture = architecture.to("cpu", torch.float64)
    drawn = stack([architecture.init(generator(seed)) for seed in range(count)])
    return architecture, {name: tensor.double() for name, tensor in drawn.items()}


def loss_of(architecture: Architecture, kind=F.cross_entropy):
    shape = (5,) if "layers.0.weight" in architecture.space.tensors else (1, 4, 4)
    x, y = (
        torch.randn(12, *shape, generator=generator(1), dtype=torch.float64),
        torch.arange(12) % 3,
    )
    return lambda network: kind(architecture.apply(network, x), y)


def squared(outputs: Tensor, y: Tensor) -> Tensor:
    """Curved from the start, where cross-entropy is nearly flat."""
    return (outputs - F.one_hot(y, 3)).square().sum(1).mean() / 2


def largest(tensor: Tensor) -> float:
    return float(tensor.abs().max())


# the flow


@pytest.mark.parametrize("name", SMOOTH)
def test_the_flow_loses_the_integral_of_its_squared_velocity(name):
    architecture, params = double(SMOOTH[name])
    walked = flow(loss_of(architecture), params, 4.0, 100, architecture.free)
    assert walked.losses.shape == walked.integral.shape == (2, 101)
    assert float(walked.decrease[:, -1].min()) > 0.01
    assert largest(walked.difference) < 1e-7


def test_the_flow_is_of_fourth_order():
    architecture, params = double(SMOOTH["tanh"])
    loss, ends = loss_of(architecture, squared), []
    for steps in (8, 16, 32, 128):
        ends.append(flow(loss, params, 2.0, steps))
    exact = torch.cat([tensor.flatten() for tensor in ends.pop().params.values()])
    errors = [
        largest(torch.cat([tensor.flatten() for tensor in end.params.values()]) - exact)
        for end in ends
    ]
    assert [errors[0] / errors[1], errors[1] / errors[2]] == pytest.approx([16, 16], rel=0.2)
    gaps = [largest(end.difference[:, -1]) for end in ends]
    assert [gaps[0] / gaps[1], gaps[1] / gaps[2]] == pytest.approx([16, 16], rel=0.2)


# descent


def slow_descent(
    loss, params: Params, rate: float, steps: int, free: Params, momentum: float = 0.0
) -> list[Path]:
    """Networks one by one through `torch.optim.SGD`, gradients of fixed entries set to 0."""
    paths = []
    for n in range(len(next(iter(params.values())))):
        network = {name: tensor[n].clone().requires_grad_() for name, tensor in params.items()}
        optimizer, losses, squares = (
            torch.optim.SGD(network.values(), lr=rate, momentum=momentum),
            [],
            [],
        )
        for _ in range(steps):
            optimizer.zero_grad()
            value = loss(network)
            value.backward()
            gradients = {n: t.grad for n, t in network.items() if t.grad is not None}
            for name, mask in free.items():
                gradients[name][~mask] = 0
            losses.append(value.detach())
            squares.append(sum((gradient**2).sum() for gradient in gradients.values()))
            optimizer.step()
        losses.append(loss(network).detach())
        ends = {name: tensor.detach()[None] for name, tensor in network.items()}
        recorded = torch.stack(losses)[None], torch.stack(squares)[None]
        paths.append(path(ends, *recorded, torch.full((steps,), rate, dtype=torch.float64)))
    return paths


@pytest.mark.parametrize("name", SMOOTH)
def test_descent_is_that_of_the_plain_optimizer(name):
    architecture, params = double(SMOOTH[name])
    loss = loss_of(architecture, squared)
    walked = descend(loss, params, 0.3, 7, architecture.free)
    for n, expected in enumerate(slow_descent(loss, params, 0.3, 7, architecture.free)):
        for key, tensor in expected.params.items():
            torch.testing.assert_close(walked.params[key][n : n + 1], tensor)
        torch.testing.assert_close(walked.losses[n : n + 1], expected.losses)
        torch.testing.assert_close(
            walked.integral[n : n + 1], expected.integral, rtol=1e-10, atol=1e-12
        )
    for key, mask in architecture.free.items():
        assert torch.equal(walked.params[key][:, ~mask], params[key][:, ~mask])


def test_the_difference_of_descent_falls_in_proportion_to_the_step_size():
    architecture, params = double(SMOOTH["tanh"])
    gaps = [
        descend(loss_of(architecture, squared), params, 2.0 / steps, steps).difference[:, -1]
        for steps in (50, 100, 200, 400)
    ]
    for before, after in itertools.pairwise(gaps):
        assert (before / after).tolist() == pytest.approx([2, 2], rel=0.02)
    assert float(gaps[-1].min()) > 1e-5


def test_the_difference_of_descent_is_half_of_eta_times_the_curvature_along_its_way():
    architecture, params = double(SMOOTH["tanh"], count=1)
    loss, rate, expected = loss_of(architecture, squared), 0.01, 0.0
    network = {name: tensor[0] for name, tensor in params.items()}
    for _ in range(200):
        gradient = grad(loss)(network)
        product = jvp(grad(loss), (network,), (gradient,))[1]
        expected += (
            rate**2 / 2 * float(sum((gradient[name] * product[name]).sum() for name in network))
        )
        network = {name: tensor - rate * gradient[name] for name, tensor in network.items()}
    assert float(descend(loss, params, rate, 200).difference[0, -1]) == pytest.approx(
        expected, rel=0.01
    )


def test_momentum_breaks_the_law_however_small_the_steps():
    """Its velocity is ten times the gradient: the integral is a tenth of what the loss loses."""
    architecture, params = double(SMOOTH["tanh"], count=1)
    for steps in (400, 800):
        walked = slow_descent(
            loss_of(architecture, squared), params, 4.0 / steps, steps, {}, momentum=0.9
        )[0]
        assert float(walked.integral[0, -1] / walked.decrease[0, -1]) < 0.2


def test_step_sizes_may_differ_by_network_and_step():
    losses, squares = torch.zeros(2, 3), torch.ones(2, 2)
    rates = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert path({}, losses, squares, rates).integral.tolist() == [[0, 1, 3], [0, 3, 7]]
    assert path({}, losses, squares, rates[0]).integral.tolist() == [[0, 1, 3]] * 2


def test_one_number_for_each_network_goes_where_calculus_says():
    start = torch.tensor([3.0, -1.0], dtype=torch.float64)

    def loss(params: Params) -> Tensor:
        return (params["scalar"] - 1).square() / 2

    down = descend(loss, {"scalar": start}, 0.5, 2)
    assert down.params["scalar"].tolist() == [1.5, 0.5]
    assert down.losses.tolist() == [[2, 0.5, 0.125]] * 2
    assert down.integral.tolist() == [[0, 2, 2.5]] * 2
    along = flow(loss, {"scalar": start}, 1.0, 100)
    assert largest(along.params["scalar"] - 1 - (start - 1) * math.exp(-1)) < 1e-9
    assert largest(along.difference) < 1e-8


def test_the_scalars_of_a_graph_network_flow_too():
    architecture = build_gin((4, 6), 3, hidden=5, layers=1, norm="layer", activation="tanh")
    architecture, params = double(architecture)
    assert params["layers.0.eps"].shape == (2,)
    x = torch.randn(12, 4, 6, generator=generator(1), dtype=torch.float64)
    y = torch.arange(12) % 3
    along = flow(
        lambda network: F.cross_entropy(architecture.apply(network, x), y), params, 1.0, 50
    )
    assert largest(along.params["layers.0.eps"] - params["layers.0.eps"]) > 1e-6
    assert largest(along.difference) < 1e-6


def test_no_step_is_refused():
    architecture, params = double(SMOOTH["tanh"])
    for walk in (descend, flow):
        with pytest.raises(ValueError, match="at least one step, got 0"):
            walk(loss_of(architecture), params, 0.1, 0)
