"""Generators and the scaling residual, against loops and differences through the action."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tests.reference import zoo_orbit
from tests.reference.zoo_scaling import scaling_generator
from tests.reference.zoo_spaces import Case, language_cases
from tests.zoo.symmetry_report.networks import (
    CLASSES,
    INPUT,
    double,
    generator,
    minibatch,
    network,
    residual,
)
from zoo.architectures import Architecture, build_cnn, build_mlp, make_asymmetric
from zoo.params import Params
from zoo.symmetry.action import GroupElement, act
from zoo.testing import random_params
from zoo.weight_space import WeightSpace


def powers(space: WeightSpace, name: str, group: str, neuron: int) -> Tensor:
    """The power of a neuron's scale on each entry of a tensor, from the text of the pattern."""
    sizes = {name: group.size for name, group in space.groups.items()}
    axes, sides = zoo_orbit.axes_of(sizes, space.tensors[name])
    power = torch.zeros(space.shapes[name], dtype=torch.float64)
    for place in itertools.product(*(range(len(axis)) for axis in axes)):
        atoms = [
            (atom, side)
            for axis, side, i in zip(axes, sides, place, strict=True)
            for atom in axis[i]
        ]
        power[place] = sum(side * atom[2] for atom, side in atoms if atom[:2] == (group, neuron))
    return power


@given(language_cases(), st.integers(0, 1000))
def test_the_generator_is_what_the_text_of_the_patterns_says(case: Case, seed):
    space = case.space
    params = random_params(space, generator(seed), (2,))
    for group in space.groups:
        for neuron in range(space.groups[group].size):
            moved = scaling_generator(space, params, group, neuron)
            for name in space.tensors:
                expected = powers(space, name, group, neuron) * params[name]
                torch.testing.assert_close(moved.get(name, torch.zeros_like(expected)), expected)


@given(language_cases(), st.integers(0, 1000))
def test_the_generator_is_the_derivative_of_the_action(case: Case, seed):
    space, t = case.space, 1e-5
    params, group = random_params(space, generator(seed)), next(iter(case.space.groups))
    scale = torch.ones(space.groups[group].size, dtype=torch.float64)
    scale[0] = math.exp(t)
    there, back = (act(space, GroupElement({}, {group: s}), params) for s in (scale, 1 / scale))
    for name, xi in scaling_generator(space, params, group, 0).items():
        torch.testing.assert_close((there[name] - back[name]) / (2 * t), xi, rtol=1e-7, atol=1e-8)


def slow_residual(
    architecture: Architecture, params: Params, batch, group: str, neuron: int
) -> float:
    """The derivative of the loss by differences through the action, fixed entries kept in place."""
    space, free, (x, y), t = architecture.space, architecture.free, batch, 1e-4
    scale = torch.ones(space.groups[group].size, dtype=torch.float64)
    scale[neuron] = math.exp(t)

    def loss(network: Params) -> Tensor:
        return F.cross_entropy(architecture.apply(network, x), y)

    def loss_at(scales: Tensor) -> float:
        moved = act(space, GroupElement({}, {group: scales}), params)
        return float(
            loss({n: v.where(free[n], params[n]) if n in free else v for n, v in moved.items()})
        )

    slope = (loss_at(scale) - loss_at(1 / scale)) / (2 * t)
    gradient, squares = torch.func.grad(loss)(params), [0.0, 0.0]
    for name in space.tensors:
        power, mask = powers(space, name, group, neuron), free.get(name, torch.tensor(True))
        squares[0] += float(((gradient[name] * mask)[power != 0] ** 2).sum())
        squares[1] += float(((power * params[name]) ** 2).sum())
    return abs(slope) / (squares[0] * squares[1]) ** 0.5 if squares[0] else 0.0


SMOOTH = {
    "gelu": build_mlp(INPUT, CLASSES, (4, 3), activation="gelu"),
    "layer norm": build_mlp(INPUT, CLASSES, (4,), activation="silu", norm="layer"),
    "gelu cnn": build_cnn(INPUT, CLASSES, (3, 2), activation="gelu", pool="flatten"),
    "tanh": build_mlp(INPUT, CLASSES, (4,), activation="tanh"),
    "linear": build_mlp(INPUT, CLASSES, (4,), activation="linear"),
    "w-asymmetric gelu": make_asymmetric(
        build_mlp(INPUT, CLASSES, (4, 3), activation="gelu"), "w", {}, 0
    ),
    "w-asymmetric linear": make_asymmetric(
        build_mlp(INPUT, CLASSES, (4, 3), activation="linear"), "w", {}, 0
    ),
    "sigma-asymmetric": make_asymmetric(build_mlp(INPUT, CLASSES, (4, 3)), "sigma", {}, 0),
}


@pytest.mark.parametrize("architecture", SMOOTH.values(), ids=SMOOTH)
def test_the_scaling_residual_is_the_derivative_along_the_action(architecture):
    architecture, batch = double(architecture), minibatch(1)
    params = network(architecture, 0)
    report = residual(architecture, params, batch)
    assert set(report.scale) == {
        name for name in architecture.space.groups if name not in ("x", "y")
    }
    for group, values in report.scale.items():
        expected = [
            slow_residual(architecture, params, batch, group, j) for j in range(len(values))
        ]
        assert values.tolist() == pytest.approx(expected, rel=1e-4, abs=1e-9)
