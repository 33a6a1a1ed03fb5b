"""A traced module is an architecture: it runs, trains, starts and is refused as one."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import vmap

from data_gen.shard import ShardWorker, full_table
from data_gen.training.trainer import Trainer
from tests.data_gen.test_training_oracle import make_job
from tests.zoo.traced.pairs import (
    CLASSES,
    OPTIONS,
    SHAPE,
    close,
    generator,
    inputs,
    module_of,
    networks,
    one,
    pair,
)
from zoo.architectures import Architecture, syre, w_asymmetric
from zoo.architectures.base import MODULE
from zoo.store.bounds import rebuild
from zoo.store.mapped import StoreError
from zoo.testing.architecture import LAWS
from zoo.tracing.tracer import module_params, trace


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
    with pytest.raises(ValueError, match="from_module"):
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
