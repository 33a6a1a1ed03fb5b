"""Which groups a symmetry report has, its shapes and what it takes."""

import math

import pytest
import torch
import torch.nn.functional as F

from tests.zoo.symmetry_report.networks import (
    CLASSES,
    INPUT,
    build,
    double,
    generator,
    minibatch,
    network,
    residual,
)
from zoo.architectures import build_mlp, make_asymmetric
from zoo.params import stack
from zoo.symmetry.residual import hidden_groups, symmetry_report
from zoo.weight_space import NeuronGroup, WeightSpace


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
