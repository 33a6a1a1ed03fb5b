"""Laws along training: those of every architecture hold, those of what is gone do not."""

import pytest
import torch

from tests.zoo.conservation.networks import (
    OPTIMIZERS,
    VARIANTS,
    build,
    kept_by,
    loss_of,
    minibatch,
    names,
    network,
    trained,
)
from zoo.architectures import make_asymmetric
from zoo.conservation.find import find_laws
from zoo.conservation.laws import declared_laws
from zoo.conservation.quantities import residuals


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", VARIANTS)
def test_the_laws_of_every_architecture_hold_on_every_minibatch(name, optimizer):
    architecture = build(name)
    named = kept_by(name, architecture)
    assert named
    params, gradients = trained(name, architecture, optimizer, 8)
    for law, values in residuals(named, params, gradients).items():
        assert float(values.max()) < 1e-12, law


@pytest.mark.parametrize("name", VARIANTS)
def test_what_a_space_declares_is_found(name):
    architecture = build(name)
    kept = {law.name for law in kept_by(name, architecture)}
    for law in declared_laws(architecture.space):
        assert law.name in kept or law.name.replace("balance", "matrix") in kept


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("asymmetry", ["gelu", "w", "sigma"])
@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_where_the_symmetry_is_gone_the_laws_of_the_standard_network_do_not_hold(
    name, asymmetry, optimizer
):
    standard = build(name)
    if asymmetry == "gelu":
        other = build(name, activation="gelu")
    else:
        options = {"n_fix": 0.3} if asymmetry == "w" else {}
        other = make_asymmetric(build(name), asymmetry, options, 0).to("cpu", torch.float64)
    params, gradients = trained(name, other, optimizer, 5)
    assert declared_laws(other.space) == ()
    for values in residuals(standard.space, params, gradients).values():
        assert float(values.amax(-1).min()) > 1e-3
        assert float(values.median()) > 1e-3
    assert {law.kind for law in kept_by(name, other)} <= {"shift"}


def test_fixed_entries_break_a_law_only_if_masks_are_given():
    architecture = make_asymmetric(build("mlp"), "w", {"n_fix": 0.3}, 0).to("cpu", torch.float64)
    loss, params = loss_of(architecture, minibatch("mlp", 0)), network(architecture, 0)
    assert names(find_laws(architecture.space, loss, params, architecture.free)) == [
        "layers.2.bias.shift"
    ]
    assert [law.name for law in find_laws(architecture.space, loss, params)][:2] == [
        "h1.balance",
        "h2.balance",
    ]
