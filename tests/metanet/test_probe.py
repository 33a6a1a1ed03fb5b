"""Probing reads what networks compute: the function all of it, and nothing but the function."""

from functools import cache

import numpy as np
import pytest
import torch

import metanet
import zoo
from data_gen.config import Job
from data_gen.generation import generate
from metanet import Metanet
from metanet.contract import InputSpec, seeded
from metanet.models.probe import Probe, _generator
from metanet.testing import random_population
from tests.zoo.instances import CLASSES, INPUTS, OPTIONS
from zoo.architectures import build_architecture, make_asymmetric
from zoo.params import stack
from zoo.symmetry.action import act, sample
from zoo.testing import random_params
from zoo.views import view

COUNT = 6
SMALL = {
    "mlp": {"hidden": [7, 5]},
    "siren": {"hidden": [7, 5]},
    "cnn": {"channels": [4, 5]},
    "resnet": {"channels": [2, 3, 2]},
}
SMALL |= {"transformer": {"dim": 8}, "tanh": {"hidden": [7, 5], "activation": "tanh"}}
SMALL |= {"normed cnn": {"channels": [4, 8], "norm": "group"}}
NAMES = {"tanh": "mlp", "normed cnn": "cnn"}
CASES = ["mlp", "tanh", "siren", "cnn", "normed cnn", "resnet", "transformer", "gin"]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@cache
def network(case, kind=None):
    name = NAMES.get(case, case)
    options = {**OPTIONS[name], **SMALL.get(case, {})}
    function = build_architecture(name, options, INPUTS[name], CLASSES)
    return function if kind is None else make_asymmetric(function, kind, {}, seed=0)


def networks(of, count=COUNT):
    """Random params around the initialization: no function is nearly constant or overflows."""
    drawn = stack([of.init(generator(seed)) for seed in range(count)])
    noise = random_params(of.space, generator(), batch=(count,))
    return {name: tensor.double() + 0.1 * noise[name].abs() for name, tensor in drawn.items()}


def probe(of, params, **options):
    with seeded(0):
        module = (
            Probe(InputSpec(of.space, architecture=of), **{"num_probes": 4, "width": 8, **options})
            .double()
            .eval()
        )
    module.calibrate([params])
    return module


@torch.no_grad()
def change(module, params, moved):
    """Largest change of a prediction, over their spread between networks."""
    before = module(params)
    return float((before - module(moved)).abs().max() / before.std())


@pytest.mark.parametrize("kind", [None, "sigma"])
@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_it_is_a_loop_over_networks_and_probes(case, kind):
    of = network(case, kind)
    params = networks(of, 10)
    module = probe(of, params)
    function = of.to("cpu", torch.float64)
    codes, first, second = module.codes, *(layer.weight for layer in module.generator)
    bias = module.generator[1].bias
    together = module(params)
    for at in range(10):
        answers = []
        for code in codes:
            x = (second @ (first @ code) + bias).reshape(1, *INPUTS[NAMES.get(case, case)])
            logits = function.apply({name: tensor[at] for name, tensor in params.items()}, x)[0]
            answers += [
                torch.log(1 + (torch.logsumexp(logits, 0) - logit) / module.scale)
                for logit in logits
            ]
        expected = module.perceptron(torch.stack(answers)[None])
        torch.testing.assert_close(together[at : at + 1], expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("case", CASES)
def test_no_declared_symmetry_changes_it(case):
    of = network(case)
    params = networks(of)
    space = of.space
    element = sample(space, generator(1), (COUNT,))
    assert change(probe(of, params), params, act(space, element, params)) < 1e-8


@pytest.mark.parametrize("case", CASES)
def test_another_function_changes_it(case):
    of = network(case)
    params = networks(of)
    weight = next(name for name in reversed(params) if params[name].dim() > 2)
    assert (
        change(probe(of, params), params, {**params, weight: params[weight].roll(1, dims=2)}) > 1e-4
    )


def test_constants_are_part_of_the_function():
    params = networks(network("mlp"))
    modules = [probe(network("mlp", kind), params) for kind in (None, "sigma")]
    modules[1].scale.copy_(modules[0].scale)
    with torch.no_grad():
        assert not torch.allclose(modules[0](params), modules[1](params))


def test_gradients_reach_the_probes_through_the_networks():
    of = network("cnn")
    params = networks(of)
    module = probe(of, params, dropout=0.0)
    weights = [module.codes, *module.generator.parameters()]
    gradients = torch.autograd.grad(module(params).sum(), weights)
    for weight, gradient in zip(weights, gradients, strict=True):
        step = torch.randn(weight.shape, generator=generator(), dtype=weight.dtype)
        values = []
        for size in (1e-6, -1e-6):
            with torch.no_grad():
                weight.add_(size * step)
                values.append(module(params).sum())
                weight.sub_(size * step)
        assert float((values[0] - values[1]) / 2e-6) == pytest.approx(
            float((gradient * step).sum()), rel=1e-4
        )


@pytest.mark.parametrize("case", ["mlp", "normed cnn"])
def test_networks_that_overflow_stay_in_range(case):
    of = network(case)
    module, params = (
        probe(of, networks(of)).float(),
        {name: tensor.float() for name, tensor in networks(of).items()},
    )
    for tensor in params.values():
        tensor[0] = 3e38
    out = module(params)
    out.sum().backward()
    assert out.isfinite().all()
    assert all(weight.grad.isfinite().all() for weight in module.parameters())


def test_one_output_is_the_logit_of_two_classes():
    of = build_architecture("siren", {"hidden": [5]}, (2,), 1)
    params = networks(of)
    module = probe(of, params)
    chances = (-module.answers(params)).exp()
    torch.testing.assert_close(chances.sum(-1), torch.ones_like(chances[..., 0]))
    logits = torch.func.vmap(of.apply, in_dims=(0, None))(params, module.probes())
    torch.testing.assert_close(chances[..., :1], torch.sigmoid(logits))


@pytest.fixture(scope="module")
def populations(tmp_path_factory):
    architecture = {"name": "mlp", "hidden": [6, 5]}
    kinds = {
        "standard": None,
        "w_asymmetric": {"kind": "w", "n_fix": 2},
        "sigma_asymmetric": {"kind": "sigma"},
    }
    job = {
        "task": {"name": "digits", "train_size": 60, "test_size": 40},
        "populations": {
            name: {"architecture": architecture, "asymmetry": kind} for name, kind in kinds.items()
        },
        "hyperparameters": {
            "lr": {"log_uniform": [0.01, 0.5]},
            "steps": {"int_range": [3, 30]},
            "batch_size": 16,
        },
        "count": 24,
    }
    folder = tmp_path_factory.mktemp("probe")
    jobs = [Job.model_validate(job | {"seed": seed}) for seed in (0, 1)]
    first, second = (
        zoo.load(generate(j, folder / str(j.seed), device="cpu", quiet=True, compile=False))
        for j in jobs
    )
    return {**first, "other seed": second["sigma_asymmetric"]}


@pytest.mark.parametrize("name", ["standard", "w_asymmetric", "sigma_asymmetric"])
def test_networks_of_a_zoo_are_learned_and_saved(name, populations, tmp_path):
    population = populations[name]
    fitted = Metanet("probe", epochs=3, num_probes=8).fit(population)
    fitted.save(tmp_path / "probe")
    again = metanet.load(tmp_path / "probe")
    assert np.array_equal(fitted.predict(population), again.predict(population))
    assert np.array_equal(fitted.predict(population), again.predict(population.params("test")))
    assert again.reader_.specs[0].architecture.is_like(population.architecture)


def test_networks_that_compute_something_else_are_refused(populations):
    fitted = Metanet("probe", epochs=1, num_probes=4).fit(populations["sigma_asymmetric"])
    with pytest.raises(
        ValueError, match="'sigma_asymmetric' computes another function of its params"
    ):
        fitted.score(populations["other seed"])
    blind = Metanet("statnn", epochs=1).fit(populations["sigma_asymmetric"])
    assert blind.reader_.specs[0].architecture is None
    assert np.isfinite(blind.predict(populations["other seed"])).all()


def test_networks_whose_function_is_unknown_are_refused():
    population = random_population(sizes=(40, 16, 16))
    with pytest.raises(ValueError, match=r"metanet 'probe' runs networks on inputs: .* got none"):
        Metanet("probe").fit(view(population, architecture=None))
    fitted = Metanet("probe", epochs=1).fit(population)
    with pytest.raises(ValueError, match="got unknown"):
        fitted.score(view(population, architecture=None))


def test_probes_are_as_large_as_inputs_at_the_start():
    """Codes are standard normal; two layers keep their variance, each output being a sum of it."""
    with seeded(0):
        layers = _generator(400, 300)
    for layer in layers:
        assert float(layer.weight.detach().std()) == pytest.approx(400**-0.5, rel=0.02)
    codes = torch.randn(200, 400, generator=generator())
    assert float(layers(codes).detach().std()) == pytest.approx(1.0, rel=0.05)
