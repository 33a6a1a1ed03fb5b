"""The tracker in a plain PyTorch loop."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from zoo.conservation.drift import predicted_drift
from zoo.conservation.laws import declared_laws
from zoo.conservation.quantities import conserved_quantities, residuals
from zoo.conservation.tracker import Tracker
from zoo.tracing.tracer import trace


def training(optimizer, steps: int = 6, every: int = 1, **options):
    source = torch.Generator().manual_seed(0)
    module = nn.Sequential(
        nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 6), nn.LeakyReLU(), nn.Linear(6, 3)
    ).double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=source) / 3)
    named = declared_laws(trace(module.float(), torch.zeros(2, 5)).space)
    module.double()
    tracker, stepper, history = Tracker(named, every), optimizer(module.parameters(), **options), []
    for _ in range(steps):
        x, y = (
            torch.randn(16, 5, generator=source).double(),
            torch.randint(3, (16,), generator=source),
        )
        stepper.zero_grad()
        loss = F.cross_entropy(module(x), y)
        loss.backward()
        tracker.step(module, loss)
        params = {name: p.detach().clone() for name, p in module.named_parameters()}
        history.append(
            (
                params,
                {name: p.grad.clone() for name, p in module.named_parameters()},
                float(loss.detach()),
            )
        )
        stepper.step()
    return named, tracker, history


@pytest.mark.parametrize(
    ("optimizer", "options"),
    [
        (torch.optim.SGD, {"lr": 0.1}),
        (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
        (torch.optim.Adam, {"lr": 0.01}),
        (torch.optim.RMSprop, {"lr": 0.01}),
    ],
)
def test_every_step_is_recorded_for_any_optimizer(optimizer, options):
    named, tracker, history = training(optimizer, **options)
    assert tracker.steps == list(range(6))
    assert tracker.losses.tolist() == [loss for *_, loss in history]
    for t, (params, gradients, _) in enumerate(history):
        for law in named:
            torch.testing.assert_close(
                tracker.quantities[law.name][t], conserved_quantities(named, params)[law.name]
            )
            torch.testing.assert_close(
                tracker.residuals[law.name][t], residuals(named, params, gradients)[law.name]
            )
    assert [tuple(tracker.quantities[law.name].shape) for law in named] == [(6, 8), (6, 6)]
    assert max(float(values.max()) for values in tracker.residuals.values()) < 1e-12


def test_what_is_recorded_belongs_to_the_step_before_the_optimizer_moves():
    named, tracker, history = training(torch.optim.SGD, lr=0.1, weight_decay=0.05)
    for t, (params, gradients, _) in enumerate(history[:-1]):
        for name, drift in predicted_drift(named, params, gradients, 0.1, 0.05).items():
            change = tracker.quantities[name][t + 1] - tracker.quantities[name][t]
            torch.testing.assert_close(change, drift, rtol=0, atol=1e-13)


def test_one_call_in_so_many_is_recorded():
    _, tracker, history = training(torch.optim.SGD, steps=8, every=3, lr=0.1)
    assert tracker.steps == [0, 3, 6]
    assert tracker.losses.tolist() == [history[i][2] for i in (0, 3, 6)]
    assert all(len(values) == 3 for values in tracker.quantities.values())


def test_records_do_not_move_with_the_module():
    module = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
    tracker = Tracker(declared_laws(trace(module, torch.zeros(2, 2)).space), every=1)
    loss = module(torch.ones(1, 2)).sum()
    tracker.step(module, loss)  # no gradients yet: they count as 0
    before = tracker.quantities["h1.balance"].clone()
    with torch.no_grad():
        module[0].weight.mul_(5)
    assert torch.equal(tracker.quantities["h1.balance"], before)
    assert not tracker.residuals["h1.balance"].any()
    assert not tracker.losses.requires_grad


def test_an_empty_tracker_and_wrong_arguments():
    space = trace(
        nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1)), torch.zeros(2, 2)
    ).space
    tracker = Tracker(declared_laws(space))
    assert (tracker.quantities, tracker.residuals, tracker.losses.shape) == ({}, {}, (0,))
    with pytest.raises(ValueError, match="missing are"):
        tracker.step(nn.Linear(2, 2), torch.zeros(()))
    with pytest.raises(ValueError, match="every >= 1"):
        Tracker(declared_laws(space), every=0)
