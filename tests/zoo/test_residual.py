"""The symmetry report: against finite differences through the group action, and its text."""

import itertools
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tests.reference import zoo_orbit
from tests.reference.zoo_scaling import scaling_generator
from tests.reference.zoo_spaces import Case, language_cases
from tests.zoo.instances import INPUTS, OPTIONS
from zoo.architectures import (
    ARCHITECTURES,
    Architecture,
    build_architecture,
    build_cnn,
    build_mlp,
    make_asymmetric,
)
from zoo.params import Params, stack
from zoo.symmetry.action import GroupElement, act
from zoo.symmetry.report import SymmetryReport
from zoo.symmetry.residual import hidden_groups, symmetry_report
from zoo.testing import random_params
from zoo.weight_space import NeuronGroup, WeightSpace

INPUT, CLASSES = (2, 6, 6), 3
STANDARD = {
    "mlp": ("mlp", {"hidden": (6, 5)}),
    "deep mlp": ("mlp", {"hidden": (5, 4, 4), "activation": "leaky_relu"}),
    "cnn": ("cnn", {"channels": (4, 5)}),
    "flattened cnn": ("cnn", {"channels": (3, 4), "pool": "flatten"}),
}
NORMED = {"resnet with batch norm": ("resnet", {"channels": (3, 4, 4)})}
SMALL = {
    "mlp": {"hidden": (8, 6)},
    "cnn": {"channels": (5, 6)},
    "resnet": {"channels": (3, 4, 4)},
    "transformer": {"dim": 8, "depth": 1},
    "siren": {"hidden": (6, 5)},
}


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def double(architecture: Architecture) -> Architecture:
    return architecture.to("cpu", torch.float64)


def build(name: str, **options) -> Architecture:
    kind, options_of_name = (STANDARD | NORMED)[name]
    return double(build_architecture(kind, options_of_name | options, INPUT, CLASSES))


def network(architecture: Architecture, seed: int) -> Params:
    return {name: tensor.double() for name, tensor in architecture.init(generator(seed)).items()}


def minibatch(seed: int, count: int = 12) -> tuple[Tensor, Tensor]:
    source = generator(seed)
    x = torch.randn(count, *INPUT, generator=source, dtype=torch.float64)
    return x, torch.randint(CLASSES, (count,), generator=source)


def residual(architecture: Architecture, params: Params, batch=None, **options) -> SymmetryReport:
    batch = minibatch(0) if batch is None else batch
    return symmetry_report(
        architecture.apply, params, batch, architecture.space, free=architecture.free, **options
    )


# the generators and the scaling residual, against loops and differences


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


# along training


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


# what the report says


@pytest.mark.parametrize("name", STANDARD)
def test_a_standard_network_has_what_it_declares(name):
    architecture = build(name)
    report = residual(architecture, network(architecture, 0))
    for group in report.groups:
        assert float(report.permutation[group]) < 1e-10
        assert report.declared(group) == report.found(group) == ("permutation", "scale")
        assert report.removed(group) == ("sign",)
        assert report.unsound(group) == ()


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_of_the_table_has_what_it_declares(name):
    standard = build_architecture(name, OPTIONS[name] | SMALL.get(name, {}), INPUTS[name], CLASSES)
    x = torch.randn(5, *INPUTS[name], generator=generator(1), dtype=torch.float64)
    for architecture in (double(standard), double(make_asymmetric(standard, "sigma", {}, 0))):
        params = network(architecture, 0)
        params = {
            n: t + 0.05 * torch.randn(t.shape, generator=generator(2)) for n, t in params.items()
        }
        report = residual(architecture, params, (x, torch.arange(5) % 3), num_samples=2)
        assert {group: report.unsound(group) for group in report.groups} == dict.fromkeys(
            report.groups, ()
        )


@pytest.mark.parametrize("name", STANDARD)
def test_sigma_asymmetry_removes_permutations_and_scales(name):
    architecture = double(make_asymmetric(build(name), "sigma", {}, 0))
    report = residual(architecture, network(architecture, 0))
    for group in report.groups:
        assert float(report.permutation[group]) > 1e-3
        assert report.found(group) == report.declared(group) == ()
        assert report.removed(group) == ("permutation", "sign", "scale")


def test_w_asymmetry_removes_permutations_because_fixed_entries_stay_in_place():
    architecture = double(make_asymmetric(build("mlp"), "w", {}, 0))
    params = network(architecture, 0)
    assert residual(architecture, params).found("h1") == ()
    unmasked = symmetry_report(architecture.apply, params, minibatch(0), architecture.space)
    assert unmasked.found("h1") == ("permutation", "scale")


def test_entries_fixed_at_zero_remove_permutations_and_leave_scales():
    architecture = double(make_asymmetric(build("mlp"), "w", {"kappa": 0.0}, 0))
    report = residual(architecture, network(architecture, 0))
    assert [report.found(group) for group in report.groups] == [("scale",)] * 2
    assert max(float(values.max()) for values in report.scale.values()) < 1e-12


def test_syre_has_the_function_of_the_standard_network():
    architecture = double(make_asymmetric(build("mlp"), "syre", {}, 0))
    report = residual(architecture, network(architecture, 0))
    assert report.declared("h1") == ()
    assert report.found("h1") == ("permutation", "scale")


@pytest.mark.parametrize(
    ("activation", "kinds"),
    [("tanh", ("permutation", "sign")), ("linear", ("permutation", "sign", "scale"))],
)
def test_sign_flips_are_found_where_they_are(activation, kinds):
    architecture = build("mlp", activation=activation)
    assert residual(architecture, network(architecture, 0)).found("h2") == kinds


def test_a_wrong_declaration_is_named():
    architecture = build("mlp", activation="gelu")
    groups = {
        name: replace(group, scaling="positive")
        for name, group in architecture.space.groups.items()
    }
    report = residual(
        replace(architecture, space=WeightSpace(groups, architecture.space.tensors)),
        network(architecture, 0),
    )
    assert report.unsound("h1") == ("scale",)
    assert str(report).count("DECLARED, BUT NOT FOUND: scale") == len(report.groups)
    assert "DECLARED, BUT NOT FOUND" not in str(residual(architecture, network(architecture, 0)))


def test_the_table_has_a_row_for_each_group():
    architecture = double(make_asymmetric(build("mlp"), "w", {"kappa": 0.0}, 0))
    lines = str(residual(architecture, network(architecture, 0))).splitlines()
    assert lines[0].split() == [
        "group",
        "size",
        "permutation",
        "sign",
        "scale",
        "declared",
        "found",
        "removed",
    ]
    assert [line.split()[:2] for line in lines[1:3]] == [["h1", "6"], ["h2", "5"]]
    assert all(
        line.split()[5:] == ["scale", "scale", "permutation,", "sign"] for line in lines[1:3]
    )


# which groups, what shapes, what arguments


def test_hidden_groups_are_written_and_read_or_declare_something_or_else_are_all_of_the_tensors():
    fixed, free = NeuronGroup(2, permutable=False), NeuronGroup(2)
    tensors = {"0": "h <- x", "1": "y <- h", "2": "s^2"}
    groups = {"unused": free, "x": fixed, "h": fixed, "s": free, "y": fixed}
    assert hidden_groups(WeightSpace(groups, tensors)) == ["h", "s"]
    assert hidden_groups(WeightSpace(groups | {"s": fixed}, tensors)) == ["h"]
    assert hidden_groups(WeightSpace(groups | {"s": fixed}, {"0": "y <- x"})) == ["x", "y"]


@pytest.mark.parametrize("name", ["mlp", "cnn"])
@pytest.mark.parametrize("lead", [(), (1,), (3,), (2, 2)])
def test_residuals_have_the_leading_axes_of_the_params(name, lead):
    architecture = build(name, activation="gelu")
    count = math.prod(lead)
    networks = stack([network(architecture, seed) for seed in range(count)])
    params = {key: tensor.reshape(*lead, *tensor.shape[1:]) for key, tensor in networks.items()}
    report = residual(architecture, params)
    for i in range(count):
        alone = residual(architecture, {key: tensor[i] for key, tensor in networks.items()})
        for group, declared in report.groups.items():
            assert report.scale[group].shape == report.sign[group].shape == (*lead, declared.size)
            assert report.permutation[group].shape == lead
            for kind in ("scale", "sign", "permutation"):
                values = getattr(report, kind)[group].reshape(
                    count, *getattr(alone, kind)[group].shape
                )
                torch.testing.assert_close(
                    values[i], getattr(alone, kind)[group], rtol=1e-8, atol=1e-12
                )


def test_another_loss_and_outputs_that_are_no_tensor():
    architecture = build("mlp")
    params, (x, _) = network(architecture, 0), minibatch(0)
    target = torch.randn(12, CLASSES, generator=generator(0), dtype=torch.float64)
    report = symmetry_report(
        lambda params, x: {"logits": architecture.apply(params, x), "state": None},
        params,
        (x, target),
        architecture.space,
        loss=lambda outputs, target: F.mse_loss(outputs["logits"], target),
    )
    assert report.found("h1") == ("permutation", "scale")


def test_dead_neurons_have_residual_zero():
    architecture = build("mlp")
    params = network(architecture, 0)
    params["layers.0.bias"] = torch.full((6,), -100.0, dtype=torch.float64)
    report = residual(architecture, params)
    assert report.scale["h1"].tolist() == [0.0] * 6
    assert report.sign["h1"].isfinite().all()


def test_a_network_whose_outputs_are_all_zero_has_finite_residuals():
    architecture = build("mlp", activation="gelu")
    report = residual(
        architecture,
        {name: torch.zeros_like(tensor) for name, tensor in network(architecture, 0).items()},
    )
    assert all(
        float(values.max()) == 0
        for kind in (report.scale, report.sign, report.permutation)
        for values in kind.values()
    )


def test_single_precision_has_a_tolerance_of_its_own():
    architecture = build("cnn").to("cpu", torch.float32)
    x, y = minibatch(0)
    report = symmetry_report(
        architecture.apply, architecture.init(generator(0)), (x.float(), y), architecture.space
    )
    assert report.found("c1") == ("permutation", "scale")
    assert report.scale["c1"].dtype == torch.float32


def test_two_neurons_are_never_only_left_in_place():
    architecture = double(make_asymmetric(build_mlp(INPUT, CLASSES, (2,)), "sigma", {}, 0))
    for seed in range(10):
        report = residual(
            architecture, network(architecture, 0), generator=generator(seed), num_samples=1
        )
        assert "permutation" in report.removed("h1")


def test_the_report_does_not_depend_on_anything_global():
    architecture, before = build("mlp", activation="gelu"), torch.get_rng_state()
    params = network(architecture, 0)
    first, again = residual(architecture, params), residual(architecture, params)
    assert str(first) == str(again)
    assert torch.equal(before, torch.get_rng_state())
