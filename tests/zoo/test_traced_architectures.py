"""A traced module is an architecture: where one is accepted so is the other."""

from functools import cache

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import vmap

from data_gen.shard import ShardWorker, full_table
from data_gen.training.trainer import Trainer
from metanet.contract import InputSpec, seeded
from metanet.estimator import Metanet
from metanet.inputs.population import PopulationView
from metanet.models.probe import Probe
from metanet.testing import random_population
from studies.common.alignments import Matching, match_activations, match_weights
from studies.common.evaluation import Part, evaluate, reset_statistics
from tests.data_gen.test_training_oracle import make_job
from tests.reference.zoo_modules import MODULES
from zoo.architectures import (
    Architecture,
    build_architecture,
    sigma_asymmetric,
    syre,
    w_asymmetric,
)
from zoo.architectures.base import MODULE
from zoo.architectures.record import activations
from zoo.conservation.laws import declared_laws
from zoo.conservation.quantities import conserved_quantities, residuals
from zoo.dynamics.finite_width import tangent_kernel, tangent_kernel_trace
from zoo.params import stack
from zoo.store.manifest import rebuild
from zoo.store.mapped import StoreError
from zoo.symmetry.action import act, sample
from zoo.symmetry.alignment import align
from zoo.symmetry.canonical import canonicalize
from zoo.testing import random_params
from zoo.testing.architecture import LAWS
from zoo.tracing.tracer import module_params, trace

SHAPE, CLASSES = (1, 8, 8), 10
OPTIONS = {
    "mlp": {"hidden": [7, 6]},
    "cnn": {"channels": [4, 4], "norm": "group", "norm_groups": 2},
    "resnet": {"channels": [4, 5, 6]},
}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def inputs(count: int = 6) -> torch.Tensor:
    return torch.randn(count, *SHAPE, generator=generator(7)).double()


def module_of(name: str) -> nn.Module:
    return MODULES[name](SHAPE, CLASSES, **OPTIONS[name]).float()


@cache
def pair(name: str) -> tuple[Architecture, Architecture]:
    """The same function as an architecture of the table and as a traced module."""
    named = build_architecture(name, OPTIONS[name], SHAPE, CLASSES)
    traced = trace(module_of(name), torch.randn(2, *SHAPE), build=lambda: module_of(name))
    assert set(traced.space.tensors) == set(named.space.tensors)
    return named, traced


def networks(named: Architecture, count: int = 3):
    drawn = stack([named.init(generator(seed)) for seed in range(count)])
    noise = random_params(named.space, generator(), batch=(count,))
    return {name: tensor.double() + 0.1 * noise[name].abs() for name, tensor in drawn.items()}


def one(params, at: int = 0):
    return {name: tensor[at] for name, tensor in params.items()}


def close(actual, expected, tolerance: float = 1e-9):
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


@pytest.fixture(params=OPTIONS)
def both(request):
    return pair(request.param)


def test_it_says_what_it_is(both):
    named, traced = both
    assert isinstance(traced, Architecture)
    assert (traced.name, traced.options) == (MODULE, {"class": traced.options["class"]})
    assert (traced.input_shape, traced.num_outputs) == (SHAPE, CLASSES)
    assert set(traced.statistics) == set(named.statistics)
    assert traced.num_free == named.num_free
    assert traced.is_like(traced.to("cpu", torch.float64))
    assert not traced.is_like(
        trace(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), inputs().float())
    )
    with pytest.raises(StoreError, match="torch modules"):
        rebuild(traced.description, traced.space, traced.constants)


def test_many_networks_give_the_outputs_of_the_module_and_of_the_named_one(both, request):
    named, traced = both
    params, x = networks(named), inputs()
    together = vmap(traced.apply, in_dims=(0, None))(params, x)
    close(together, vmap(named.apply, in_dims=(0, None))(params, x))
    module = module_of(request.node.callspec.params["both"]).double().eval()
    for at in range(3):
        module.load_state_dict(one(params, at), strict=False)
        close(together[at], module(x).detach())
        close(traced.apply(one(params, at), x), module(x).detach())


def test_training_moves_statistics_as_the_module_and_the_named_one_do(both, request):
    named, traced = both
    params, x = networks(named), inputs()
    before = {name: tensor.clone() for name, tensor in params.items()}
    run = lambda of: vmap(of.apply_training, in_dims=(0, None))(params, x)  # noqa: E731
    (logits, moved), (expected, expected_moved) = run(traced), run(named)
    close(logits, expected)
    close({n: moved[n] for n in named.statistics}, {n: expected_moved[n] for n in named.statistics})
    assert all(torch.equal(tensor, before[name]) for name, tensor in params.items())
    module = module_of(request.node.callspec.params["both"]).double().train()
    module.load_state_dict(one(params), strict=False)
    close(logits[0], module(x).detach())
    for name, tensor in moved.items():
        close(tensor[0], module.state_dict()[name])


def test_only_norms_train():
    dropout = nn.Dropout(0.5)
    module = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), dropout, nn.Linear(6, 3))
    traced = trace(module, torch.randn(5, 4))
    x, params = torch.randn(5, 4, generator=generator()), module_params(traced.space, module)
    state = torch.get_rng_state()
    logits, moved = traced.apply_training(params, x)
    assert torch.equal(state, torch.get_rng_state())
    dropout.p = 0.0
    close(logits, module.train()(x).detach(), 1e-6)
    assert set(moved) == {"1.running_mean", "1.running_var"}
    close(moved["1.running_var"], module[1].running_var, 1e-6)


def test_a_norm_of_your_own_that_writes_new_buffers():
    class Norm(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("mean", torch.zeros(6))

        def forward(self, x):
            if self.training:
                self.mean = 0.5 * self.mean + 0.5 * x.mean(0)
            return x - self.mean

    module = nn.Sequential(nn.Linear(4, 6), Norm(), nn.ReLU(), nn.Linear(6, 3))
    traced = trace(module, torch.randn(5, 4), statistics=["1.mean"])
    x = torch.randn(5, 4, generator=generator())
    many = stack([module_params(traced.space, module)] * 2)
    moved = vmap(traced.apply_training, in_dims=(0, None))(many, x)[1]
    close(moved["1.mean"][1], 0.5 * module[0](x).mean(0).detach(), 1e-6)
    assert torch.equal(module.get_buffer("1.mean"), torch.zeros(6))


def test_a_norm_that_counts_batches_is_refused_in_training():
    module = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6, momentum=None), nn.Linear(6, 3))
    traced = trace(module, torch.randn(5, 4))
    params = module_params(traced.space, module)
    assert traced.apply(params, torch.randn(5, 4)).shape == (5, 3)
    with pytest.raises(ValueError, match="momentum None"):
        traced.apply_training(params, torch.randn(5, 4))


def test_it_trains_in_lock_step_as_the_named_one(both, request, tmp_path):
    named, traced = both
    name = request.node.callspec.params["both"]
    job = make_job({"name": name, **OPTIONS[name]}, None, "sgd", "cosine")
    worker = ShardWorker(job, tmp_path, torch.device("cpu"), dtype=torch.float64)
    runs = worker.runs(full_table(job, worker.task, torch.arange(3)))
    trained = []
    for architecture in (named, traced):
        trainer = Trainer(architecture.to("cpu", torch.float64), worker.task, job.seed)
        state = trainer.start(runs, networks(named))
        trainer.run(runs, state)
        assert bool((state.diverged_at < 0).all())
        trained.append(state.params)
    for key, tensor in trained[0].items():
        assert not torch.equal(tensor, networks(named)[key])
        close(trained[1][key], tensor, 1e-7)


def test_init_builds_the_module_by_the_generator(both, request):
    _, traced = both
    state = torch.get_rng_state()
    first, again, other = (traced.init(generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(state, torch.get_rng_state())
    assert list(first) == list(traced.space.tensors)
    assert all(torch.equal(tensor, again[name]) for name, tensor in first.items())
    assert any(not torch.equal(tensor, other[name]) for name, tensor in first.items())
    torch.random.set_rng_state(generator(1).get_state())
    again = module_params(traced.space, module_of(request.node.callspec.params["both"]))
    torch.random.set_rng_state(state)
    assert all(torch.equal(tensor, again[name]) for name, tensor in first.items())
    unknown = trace(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), inputs().float())
    with pytest.raises(ValueError, match="build="):
        unknown.init(generator())


@pytest.mark.parametrize("law", LAWS)
def test_it_keeps_the_laws_of_architectures(both, law):
    LAWS[law](both[1], inputs().float(), 0)


@pytest.mark.parametrize("twin", [w_asymmetric, syre])
def test_it_has_asymmetric_twins(twin):
    named, traced = (twin(architecture, generator(3)) for architecture in pair("mlp"))
    assert named.constants.keys() == traced.constants.keys()
    for name, tensor in named.constants.items():
        assert torch.equal(tensor, traced.constants[name])
    assert traced.num_free == named.num_free
    close(traced.apply(one(networks(named)), inputs()), named.apply(one(networks(named)), inputs()))


def test_a_first_layer_with_one_channel_is_a_weight_that_can_be_masked():
    weights = ["convs.0.weight", "convs.1.weight", "classifier.weight"]
    n_fix = dict(zip(weights, (2, 3, 0), strict=True))
    named, traced = (
        w_asymmetric(architecture, generator(3), n_fix=n_fix) for architecture in pair("cnn")
    )
    assert set(traced.free) == set(named.free) == {"convs.0.weight", "convs.1.weight"}
    assert torch.equal(traced.free["convs.0.weight"], named.free["convs.0.weight"])


def test_it_moves_and_aligns_as_the_named_one(both):
    named, traced = both
    params = networks(named)
    element = sample(traced.space, generator(2), batch=(3,))
    moved = act(traced.space, element, params)
    x = inputs()
    run = vmap(traced.apply, in_dims=(0, None))
    close(run(moved, x), run(params, x))
    close(canonicalize(traced.space, moved), canonicalize(traced.space, params), 1e-7)
    aligned = act(traced.space, align(traced.space, moved, one(params)), moved)
    close(run(aligned, x), run(params, x))
    shapes = [sorted(law.shape for law in declared_laws(a.space)) for a in both]
    assert shapes[0] == shapes[1]


def test_conserved_quantities_are_those_of_the_named_one():
    named, traced = pair("mlp")
    params, x = one(networks(named)), inputs()
    gradients = torch.func.grad(lambda p: traced.apply(p, x).square().mean())(params)
    for space in (named.space, traced.space):
        for values in residuals(space, params, gradients).values():
            assert float(values.abs().max()) < 1e-12
    pairs = [conserved_quantities(space, params).values() for space in (named.space, traced.space)]
    for ours, theirs in zip(*pairs, strict=True):
        close(ours, theirs)


def test_kernels(both):
    named, traced = (architecture.to("cpu", torch.float64) for architecture in both)
    params, x = networks(named), inputs()
    trained = {
        name: torch.tensor(False).expand(named.space.shapes[name]) for name in named.statistics
    }
    for kernel in (tangent_kernel, tangent_kernel_trace):
        close(
            kernel(traced.apply, params, x, free=trained),
            kernel(named.apply, params, x, free=trained),
            1e-8,
        )


def test_probes(both):
    named, traced = (architecture.to("cpu", torch.float64) for architecture in both)
    params, features = networks(named, 5), []
    for architecture in (named, traced):
        with seeded(0):
            spec = InputSpec(architecture.space, architecture=architecture)
            module = Probe(spec, num_probes=4, width=8).double().eval()
        module.calibrate([params])
        with torch.no_grad():
            features.append(module(params))
    close(features[1], features[0])


def test_evaluation_and_new_statistics(both):
    named, traced = both
    params = networks(named)
    part = Part(inputs(20), torch.randint(CLASSES, (20,), generator=generator()))
    for ours, theirs in zip(
        evaluate(traced, params, part), evaluate(named, params, part), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9)
    close(reset_statistics(traced, params, part.x), reset_statistics(named, params, part.x), 1e-8)


def test_new_statistics_are_those_of_the_batch_whatever_the_momentum():
    module = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6, momentum=0.3), nn.Linear(6, 3))
    traced = trace(module, torch.randn(5, 4))
    x = torch.randn(9, 4, generator=generator()).double()
    params = {n: p.double()[None] for n, p in module_params(traced.space, module).items()}
    reset, hidden = reset_statistics(traced, params, x), module.double()[0](x).detach()
    close(reset["1.running_mean"][0], hidden.mean(0))
    close(reset["1.running_var"][0], hidden.var(0))


def test_statistics_that_take_no_batch_in_cannot_be_reset():
    module = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6, momentum=0.0), nn.Linear(6, 3))
    traced = trace(module, torch.randn(5, 4))
    params = {n: p[None] for n, p in module_params(traced.space, module).items()}
    with pytest.raises(ValueError, match=r"'1\.running_mean' does not take new batches in"):
        reset_statistics(traced, params, torch.randn(9, 4))


def test_weights_are_matched_and_activations_refused():
    named, traced = pair("mlp")
    first, second = one(networks(named)), one(networks(named), 1)
    part = Part(inputs(), torch.zeros(6, dtype=torch.int64))
    matched = [
        match_weights(a.space, second, first, Matching(a, part, 5, 0)) for a in (named, traced)
    ]
    for name, order in matched[0].permutations.items():
        assert torch.equal(order, matched[1].permutations[name])
    with pytest.raises(ValueError, match="traced module"):
        match_activations(traced.space, second, first, Matching(traced, part, 1, 0))


def test_what_replaces_or_records_non_linearities_refuses_it():
    _, traced = pair("mlp")
    with pytest.raises(ValueError, match=r"sigma_asymmetric: a traced module .*zoo\.asymmetric"):
        sigma_asymmetric(traced, generator())
    with pytest.raises(ValueError, match=r"a traced module runs its own .*recorded"):
        activations(traced, traced.init(generator()), inputs().float())


def population(architecture: Architecture) -> PopulationView:
    params = {
        split: {n: t.float() for n, t in networks(architecture, 24).items()}
        for split in ("train", "validation", "test")
    }
    table = random_population().table("train").iloc[:24].reset_index(drop=True)
    return PopulationView(
        "mine",
        architecture.space,
        lambda split: params[split],
        lambda _split: table,
        tuple(params),
        architecture=architecture,
    )


def test_a_metanet_that_runs_networks_of_a_module_is_not_saved(tmp_path):
    _, traced = pair("mlp")
    fitted = Metanet("probe", target="test_accuracy", epochs=1).fit(population(traced))
    with pytest.raises(ValueError, match="metanet 'probe' runs networks that are a traced module"):
        fitted.save(tmp_path / "probe.safetensors")
    assert list(tmp_path.iterdir()) == []
    Metanet("mlp", target="test_accuracy", epochs=1).fit(population(traced)).save(tmp_path / "mlp")


def test_outputs_are_one_tensor():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, x):
            return {"logits": self.layer(x), "twice": 2 * self.layer(x)}

    module, x = Two(), torch.randn(2, 4)
    several = trace(module, x)
    params = module_params(several.space, module)
    with pytest.raises(ValueError, match="returns 2 tensors, expected one"):
        several.apply(params, x)
    chosen = trace(module, x, output=lambda out: out["logits"])
    close(chosen.apply(params, x), F.linear(x, params["layer.weight"], params["layer.bias"]), 1e-6)
    assert (several.num_outputs, chosen.num_outputs) == (0, 3)
    single = trace(module, x, output=lambda out: {"scores": [out["logits"]], "rest": None})
    assert torch.equal(single.apply(params, x), chosen.apply(params, x))


def test_buffers_follow_the_precision_of_the_params():
    class Fixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 3)
            self.register_buffer("fixed", torch.randn(3, 3))

        def forward(self, x):
            return self.layer(x) @ self.fixed

    module, x = Fixed(), torch.randn(2, 4).double()
    traced = trace(module, torch.randn(2, 4))
    params = {name: p.double() for name, p in module_params(traced.space, module).items()}
    assert list(params) == list(traced.space.tensors)
    close(traced.apply(params, x), module.double()(x).detach(), 1e-12)
    assert traced.statistics == ()


def test_params_of_another_module_are_refused():
    traced = trace(nn.Linear(4, 3), torch.randn(2, 4))
    with pytest.raises(ValueError, match=r"missing \['bias'\]"):
        module_params(traced.space, nn.Linear(4, 3, bias=False))
    with pytest.raises(ValueError, match="tensor 'weight': expected shape"):
        module_params(traced.space, nn.Linear(5, 3))
