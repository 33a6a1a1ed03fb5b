"""Linear networks under gradient flow: balance of all layers, and the solution of two layers."""

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from zoo.conservation.laws import declared_laws, matrix
from zoo.conservation.quantities import conserved_quantities, residuals
from zoo.params import Params
from zoo.testing import random_params
from zoo.weight_space import NeuronGroup, WeightSpace


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def linear_space(widths: tuple[int, ...]) -> WeightSpace:
    names = ["x", *(f"h{i}" for i in range(1, len(widths) - 1)), "y"]
    groups = {
        name: NeuronGroup(width, scaling="any") for name, width in zip(names, widths, strict=True)
    }
    groups |= {name: NeuronGroup(groups[name].size, permutable=False) for name in ("x", "y")}
    return WeightSpace(
        groups,
        {f"w{i + 1}": f"{write} <- {read}" for i, (read, write) in enumerate(pairwise(names))},
    )


def product(params: Params) -> Tensor:
    total = params["w1"]
    for i in range(2, len(params) + 1):
        total = params[f"w{i}"] @ total
    return total


def velocity(loss: Callable[[Params], Tensor]) -> Callable[[Params], Params]:
    gradient = torch.func.grad(loss)
    return lambda params: {name: -g for name, g in gradient(params).items()}


def flow(loss: Callable[[Params], Tensor], params: Params, seconds: float, steps: int) -> Params:
    """Gradient flow, by the classical Runge-Kutta method of order 4."""
    field, h = velocity(loss), seconds / steps

    def ahead(step: Params, t: float) -> Params:
        return {name: tensor + t * step[name] for name, tensor in params.items()}

    for _ in range(steps):
        k1 = field(params)
        k2 = field(ahead(k1, h / 2))
        k3 = field(ahead(k2, h / 2))
        k4 = field(ahead(k3, h))
        params = {n: t + h / 6 * (k1[n] + 2 * k2[n] + 2 * k3[n] + k4[n]) for n, t in params.items()}
    return params


def regression(widths: tuple[int, ...], seed: int) -> Callable[[Params], Tensor]:
    """Least squares on data that are not white, with noise."""
    x = torch.randn(20, widths[0], generator=generator(seed), dtype=torch.float64)
    y = torch.randn(20, widths[-1], generator=generator(seed + 1), dtype=torch.float64) + x[:, :1]
    return lambda params: (x @ product(params).T - y).square().sum() / 40


@pytest.mark.parametrize("widths", [(4, 3, 5), (3, 6, 2), (2, 1, 2)])
def test_two_layers_keep_their_balance(widths):
    space, loss = linear_space(widths), regression(widths, 0)
    start = {name: 0.7 * tensor for name, tensor in random_params(space, generator(2)).items()}
    end = flow(loss, start, seconds=1.0, steps=400)
    assert float(loss(end)) < 0.9 * float(loss(start))
    before, after = (p["w2"].T @ p["w2"] - p["w1"] @ p["w1"].T for p in (start, end))
    assert float((after - before).abs().max()) < 1e-8
    for params, expected in ((start, before), (end, after)):
        torch.testing.assert_close(
            conserved_quantities([matrix(space, "h1")], params)["h1.matrix"], expected
        )
    assert float((end["w2"].T @ end["w2"] - start["w2"].T @ start["w2"]).abs().max()) > 0.05


def test_five_layers_keep_the_balance_of_all_consecutive_ones():
    widths = (3, 4, 5, 4, 3, 2)
    space, loss = linear_space(widths), regression(widths, 0)
    start = {name: 0.5 * tensor for name, tensor in random_params(space, generator(2)).items()}
    named = [matrix(space, f"h{i}") for i in range(1, 5)]
    end = flow(loss, start, seconds=2.0, steps=500)
    assert float(loss(end)) < 0.8 * float(loss(start))
    before, after = conserved_quantities(named, start), conserved_quantities(named, end)
    for i in range(1, 5):
        off = end[f"w{i + 1}"].T @ end[f"w{i + 1}"] - end[f"w{i}"] @ end[f"w{i}"].T
        torch.testing.assert_close(after[f"h{i}.matrix"], off)
        assert float((after[f"h{i}.matrix"] - before[f"h{i}.matrix"]).abs().max()) < 1e-8
    for name, values in residuals(
        [*named, *declared_laws(space)], end, torch.func.grad(loss)(end)
    ).items():
        assert float(values.max()) < 1e-12, name


def riccati(a: Tensor, b: Tensor, s: Tensor, t: float) -> tuple[Tensor, Tensor]:
    """The flow `a' = b (s - a b)`, `b' = a (s - a b)` of two scalar layers in closed form.

    With `q = b^2 - a^2 > 0` constant, `a = sqrt(q) sinh(u)`, `b = sqrt(q) cosh(u)` and
    `v = exp(2 u)` the flow is `v' = -(q / 2) (v^2 - 4 s v / q - 1)`: a Riccati equation with
    constant coefficients, `(v - v+) / (v - v-)` decays.
    """
    q = b**2 - a**2
    root = (4 * s**2 + q**2).sqrt()
    up, down = (2 * s + root) / q, (2 * s - root) / q
    v = ((a + b) / q.sqrt()) ** 2
    ratio = (v - up) / (v - down) * torch.exp(-root * t)
    v = (up - down * ratio) / (1 - ratio)
    return (q / v).sqrt() * (v - 1) / 2, (q / v).sqrt() * (v + 1) / 2


def test_the_closed_form_of_two_scalar_layers_solves_its_equation():
    a, b, s = (torch.tensor(value, dtype=torch.float64) for value in (0.3, 0.8, 2.0))
    torch.testing.assert_close(torch.stack(riccati(a, b, s, 0.0)), torch.stack([a, b]))
    h = 1e-5
    back, now, there = (torch.stack(riccati(a, b, s, 0.7 + step)) for step in (-h, 0, h))
    torch.testing.assert_close(
        (there - back) / (2 * h), now.flip(0) * (s - now.prod()), rtol=1e-8, atol=1e-9
    )


def white_regression(s: Tensor, a: Tensor, b: Tensor):
    """White inputs, weights along the target's singular directions: modes are scalar layers."""
    source = generator(0)
    u, r, v = (
        torch.linalg.qr(torch.randn(n, 3, generator=source, dtype=torch.float64))[0]
        for n in (5, 3, 4)
    )

    def weights(a: Tensor, b: Tensor) -> Params:
        return {"w1": r @ torch.diag(a) @ v.T, "w2": u @ torch.diag(b) @ r.T}

    target = u @ torch.diag(s) @ v.T
    return weights, weights(a, b), lambda p: (product(p) - target).square().sum() / 2, r


STRENGTHS = torch.tensor([3.0, 1.0, 0.2], dtype=torch.float64)


@pytest.mark.parametrize("seconds", [0.3, 1.5])
def test_two_layers_follow_their_closed_form(seconds):
    a, b = torch.tensor([[0.1, -0.2, 0.5], [0.5, 0.25, 0.8]], dtype=torch.float64)
    weights, start, loss, r = white_regression(STRENGTHS, a, b)
    end, expected = (
        flow(loss, start, seconds, steps=300),
        weights(*riccati(a, b, STRENGTHS, seconds)),
    )
    for name in start:
        torch.testing.assert_close(end[name], expected[name], rtol=0, atol=1e-9)
        assert float((end[name] - start[name]).abs().max()) > 0.05
    balance = conserved_quantities([matrix(linear_space((4, 3, 5)), "h1")], end)["h1.matrix"]
    torch.testing.assert_close(balance, r @ torch.diag(b**2 - a**2) @ r.T, rtol=0, atol=1e-10)


@pytest.mark.parametrize("seconds", [0.3, 1.5])
def test_balanced_layers_learn_each_mode_along_a_sigmoid(seconds):
    """Saxe et al. 2014, arXiv 1312.6120, section 1.2: `a b` solves `p' = 2 p (s - p)`."""
    a = torch.tensor([0.1, 0.2, 0.5], dtype=torch.float64)
    weights, start, loss, _ = white_regression(STRENGTHS, a, a)
    strength = STRENGTHS / (1 - (1 - STRENGTHS / a**2) * torch.exp(-2 * STRENGTHS * seconds))
    end, expected = flow(loss, start, seconds, steps=300), weights(strength.sqrt(), strength.sqrt())
    for name in start:
        torch.testing.assert_close(end[name], expected[name], rtol=0, atol=1e-9)
    assert (
        float(
            conserved_quantities([matrix(linear_space((4, 3, 5)), "h1")], end)["h1.matrix"]
            .abs()
            .max()
        )
        < 1e-10
    )
