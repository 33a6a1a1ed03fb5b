"""The metanets of Lim et al. have the paper's shapes and compute what the paper says."""

import pytest
import torch
from torch import nn

from metanet import METANETS
from metanet.contract import InputSpec
from metanet.layers import pooled_relu
from metanet.layers.pooled_relu import mean_relu
from metanet.models.table import build
from metanet.testing import random_population
from metanet.train import _decay_groups
from tests.reference import metanet_models as slow

POPULATION = random_population()
SPEC = InputSpec(POPULATION.space)
D = POPULATION.space.num_params


def built(model, spec=SPEC, **options):
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(torch.Generator().manual_seed(0).get_state())
        module = METANETS[model](spec, **options).double().eval()
    params = {name: tensor.double() for name, tensor in POPULATION.params("train").items()}
    features = module.features(params)
    module.calibrate([features])
    return module, features


@pytest.mark.parametrize(
    ("model", "twin"), [("mlp", slow.flat_mlp), ("deepsets", slow.deepsets), ("dmc", slow.dmc)]
)
def test_outputs_equal_their_twins(model, twin):
    module, features = built(model)
    torch.testing.assert_close(
        module(features), twin(module, module.norm(features)), rtol=1e-10, atol=1e-10
    )


def test_gradients_of_deepsets_equal_those_of_its_twin():
    module, features = built("deepsets")
    x = module.norm(features)
    ours = torch.autograd.grad(module(features).square().sum(), list(module.parameters()))
    theirs = torch.autograd.grad(slow.deepsets(module, x).square().sum(), list(module.parameters()))
    for mine, twin in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, twin, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("chunk", [1, 40, 2**18])
def test_mean_relu_has_the_right_gradient(chunk, monkeypatch):
    monkeypatch.setattr(pooled_relu, "CHUNK_FLOATS", chunk)
    generator = torch.Generator().manual_seed(0)
    u, weight, bias = (
        torch.randn(*s, generator=generator, dtype=torch.float64, requires_grad=True)
        for s in ((3, 4, 2), (2, 5), (5,))
    )
    torch.testing.assert_close(mean_relu(u, weight, bias), torch.relu(u @ weight + bias).mean(1))
    assert torch.autograd.gradcheck(mean_relu, (u, weight, bias))


def linears(module):
    return [tuple(layer.weight.shape) for layer in module.modules() if isinstance(layer, nn.Linear)]


def test_shapes_of_the_paper():
    assert linears(built("mlp")[0]) == [(64, D), (1, 64)]
    assert linears(built("statnn")[0]) == [(256, 7 * 6), (256, 256), (1, 256)]
    assert linears(built("deepsets")[0]) == [(64, 1), (64, 64), (64, 64), (1, 64)]
    dmc = built("dmc")[0]
    kernels = [layer.weight.shape for layer in dmc.modules() if isinstance(layer, nn.Conv2d)]
    assert [kernel[0] for kernel in kernels] == [2, 4, 8, 16, 32, 64, 64, 64, 64, 64]
    assert {tuple(kernel[2:]) for kernel in kernels} == {(1, 5)}
    assert sum(isinstance(layer, nn.MaxPool2d) for layer in dmc.modules()) == 8
    assert linears(dmc) == [(64, 64), (64, 64), (1, 64)]


def test_sizes_are_options():
    assert linears(built("mlp", width=8)[0]) == [(8, D), (1, 8)]
    assert linears(built("deepsets", width=8)[0])[0] == (8, 1)
    with pytest.raises(ValueError, match="multiple of 32, got 40"):
        built("dmc", width=40)


def test_hparams_needs_hyperparameters():
    with pytest.raises(ValueError, match="no hyperparameter columns"):
        METANETS["hparams"](SPEC)


@pytest.mark.parametrize(
    ("model", "module", "most", "why"),
    [
        ("tokens", "tokens", 30, r"tokens: \d+ tokens a network; expected at most 10"),
        ("gmn", "mixed_gmn", 30, f"gmn: networks of {2 * D} params; expected at most 30"),
    ],
)
def test_networks_too_large_are_refused(model, module, most, why, monkeypatch):
    monkeypatch.setattr(f"metanet.models.{module}.MAX_SIZE", most)
    with pytest.raises(ValueError, match=why):
        build(model, [SPEC] * (1 if model == "tokens" else 2), {})


def test_an_unknown_preset_is_refused_with_those_that_there_are():
    with pytest.raises(ValueError, match=r"'nfn' has no preset 'lim'; its presets are \['"):
        build("nfn", [SPEC], {"preset": "lim"})


def test_parameters_that_do_not_learn_are_in_no_group_of_the_optimizer():
    module = nn.Linear(3, 2)
    module.weight.requires_grad_(False)
    assert [group["params"] for group in _decay_groups(module, 0.1)] == [[], [module.bias]]
