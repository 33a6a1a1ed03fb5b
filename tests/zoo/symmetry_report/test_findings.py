"""What the symmetry report finds and says."""

from dataclasses import replace

import pytest
import torch

from tests.zoo.instances import INPUTS, OPTIONS
from tests.zoo.symmetry_report.networks import (
    CLASSES,
    STANDARD,
    build,
    double,
    generator,
    minibatch,
    network,
    residual,
)
from zoo.architectures import ARCHITECTURES, build_architecture, make_asymmetric
from zoo.symmetry.residual import symmetry_report
from zoo.weight_space import WeightSpace

SMALL = {
    "mlp": {"hidden": (8, 6)},
    "cnn": {"channels": (5, 6)},
    "resnet": {"channels": (3, 4, 4)},
    "transformer": {"dim": 8, "depth": 1},
    "siren": {"hidden": (6, 5)},
}


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
