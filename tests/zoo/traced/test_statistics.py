"""Statistics of the norms of a traced module: training moves them, they can be computed anew."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import vmap

from studies.common.evaluation import Part, evaluate, reset_statistics
from tests.zoo.traced.pairs import CLASSES, close, generator, inputs, module_of, networks, one
from zoo.params import stack
from zoo.tracing.tracer import module_params, trace


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
