"""Asymmetric modules are those of the architectures, and no symmetry is left in them."""

import itertools

import pytest
import torch
from torch import nn
from torch.func import functional_call

import zoo
from tests.zoo.asymmetric_modules.modules import Perceptron, assert_same, effective, randn
from zoo.architectures import build_cnn, build_mlp, make_asymmetric
from zoo.architectures.base import constants_of
from zoo.modules.twins import free_masks
from zoo.tracing.tracer import trace


@pytest.mark.parametrize(
    "options", [{}, {"n_fix": 2, "kappa": 0.3}, {"n_fix": {"*": 1, "layers.1": 0}, "kappa": 0.0}]
)
def test_w_is_that_of_the_architectures(options):
    module, x = Perceptron(6, 5, 4, 3), randn(7, 6)
    standard = build_mlp((6,), 3, (5, 4))
    names = ["layers.0.weight", "layers.1.weight", "layers.2.weight"]
    given = options | (
        {"n_fix": dict(zip(names, (1, 0, 1), strict=True))}
        if isinstance(options.get("n_fix"), dict)
        else {}
    )
    architecture = make_asymmetric(standard, "w", given, 5)
    twin = zoo.asymmetric(module, seed=5, **options)
    assert_same(free_masks(twin), architecture.free)
    params = {name: effective(twin, name) for name in standard.space.tensors}
    for name, fixed in constants_of(architecture.constants, "fixed").items():
        assert torch.equal(params[name][~architecture.free[name]], fixed[~architecture.free[name]])
    torch.testing.assert_close(twin(x), architecture.apply(params, x))


@pytest.mark.parametrize(
    ("kind", "options"), [("sigma", {}), ("sigma", {"std": 2.0}), ("syre", {"std": 0.5})]
)
def test_sigma_and_syre_are_those_of_the_architectures(kind, options):
    module, x = Perceptron(6, 5, 4, 3), randn(7, 6)
    architecture = make_asymmetric(build_mlp((6,), 3, (5, 4)), kind, options, 5)
    examples = {"example_inputs": x} if kind == "sigma" else {}
    twin = zoo.asymmetric(module, kind, seed=5, **options, **examples)
    params = {name: effective(twin, name) for name in architecture.space.tensors}
    torch.testing.assert_close(params, dict(module.named_parameters()), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(twin(x), architecture.apply(params, x))
    for name, offset in constants_of(architecture.constants, "offset").items():
        owner, _, attribute = name.rpartition(".")
        assert torch.equal(twin.get_submodule(owner).parametrizations[attribute][0].offset, offset)


def test_filters_are_those_of_the_architectures():
    architecture = make_asymmetric(
        build_cnn((3, 8, 8), 4, channels=(5, 6)), "w", {"fix": "filters", "n_fix": CNN_FIXED}, 5
    )
    module = nn.ModuleDict(
        {
            "convs": nn.ModuleList([nn.Conv2d(3, 5, 3), nn.Conv2d(5, 6, 3)]),
            "classifier": nn.Linear(6, 4),
        }
    )
    twin = zoo.asymmetric(module, fix="filters", n_fix={"*": 2, "convs.0": 0}, seed=5)
    assert_same(free_masks(twin), architecture.free)
    assert (
        free_masks(twin)["convs.1.weight"].flatten(2).all(2)
        == free_masks(twin)["convs.1.weight"].flatten(2).any(2)
    ).all()


CNN_FIXED = {"convs.0.weight": 0, "convs.1.weight": 2, "classifier.weight": 2}


@pytest.mark.parametrize("kappa", [0.0, 1.0])
def test_no_permutation_of_neurons_maps_the_twin_onto_another(kappa):
    module, x = Perceptron(6, 5, 3), randn(7, 6)
    twin = zoo.asymmetric(module, kappa=kappa, n_fix=2)
    params, weight = dict(module.named_parameters()), twin.layers[0].weight.detach()
    entries = twin.layers[0].parametrizations.weight[0]
    for order in list(itertools.permutations(range(5)))[1:]:
        moved = {
            name: tensor[list(order)] if name.startswith("layers.0") else tensor
            for name, tensor in params.items()
        }
        moved["layers.1.weight"] = params["layers.1.weight"][:, list(order)]
        torch.testing.assert_close(functional_call(module, moved, (x,)), module(x))
        assert not torch.equal(weight[list(order)][~entries.free], entries.fixed[~entries.free])


def test_the_tracer_finds_no_symmetry_in_a_twin():
    module, x = Perceptron(6, 5, 4, 3), randn(7, 6)
    for kind, options in {"w": {}, "sigma": {"example_inputs": x}, "syre": {}}.items():
        traced = trace(zoo.asymmetric(module, kind, **options), x)
        assert not any(
            group.permutable or group.scaling != "none" for group in traced.space.groups.values()
        )
    partly = trace(zoo.asymmetric(module, skip=["layers.0", "layers.1"], n_fix=1), x)
    assert [group.size for group in partly.space.groups.values() if group.permutable] == [5]
