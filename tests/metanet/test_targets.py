"""Links: raw outputs to predictions and back, bounded, robust."""

import math

import numpy as np
import pytest
import torch

from metanet.inputs.targets import fit_target


def skewed(size=400):
    return torch.tensor(np.random.default_rng(0).lognormal(0, 1.5, size))


@pytest.mark.parametrize(
    ("name", "y", "link"),
    [
        (
            "test_accuracy",
            torch.rand(50, dtype=torch.float64, generator=torch.Generator().manual_seed(0)),
            "logit",
        ),
        ("test_loss", skewed(), "log"),
        ("lr", skewed(), "log"),
        ("something_skewed", skewed(), "log"),
        ("generalization_gap", skewed() - 1, "identity"),
        ("label_smoothing", torch.linspace(0, 0.2, 50), "identity"),
        ("lr", torch.tensor([0.0, 0.1, 0.2]), "identity"),
    ],
)
def test_links_and_round_trip(name, y, link):
    target = fit_target(name, y)
    assert target.link == link
    y = y.double().clamp(0.005, 0.995) if link == "logit" else y.double()
    torch.testing.assert_close(target.predict(target.standardize(y)), y, rtol=1e-9, atol=1e-9)


def test_raw_outputs_are_of_order_one():
    raw = fit_target("test_loss", skewed()).standardize(skewed())
    assert raw.abs().median() < 1
    assert 0.5 < raw.std() < 2


@pytest.mark.parametrize("name", ["test_accuracy", "test_loss", "generalization_gap"])
def test_predictions_stay_near_what_was_seen(name):
    y = torch.linspace(0.2, 0.9, 100)
    wild = fit_target(name, y).predict(torch.tensor([-1e6, 1e6]))
    assert wild.isfinite().all()
    assert 0 <= wild[0] <= 0.2
    assert 0.9 <= wild[1] <= 1.05


def test_trees_take_accuracies_as_they_are_and_stay_within_bounds():
    target = fit_target("test_accuracy", torch.linspace(0.1, 1, 100), trees=True)
    assert target.link == "identity"
    assert (target.low, target.high) == pytest.approx((0.01, 1.0))


def huber(difference):
    return difference**2 / 2 if abs(difference) < 1 else abs(difference) - 0.5


@pytest.mark.parametrize("name", ["gap", "test_loss"])
def test_loss_of_gaps_and_of_logarithms_is_huber_in_robust_units(name):
    """Training targets 0 to 8 have median 4 and quartiles 2 and 6."""
    unit = 4 / 1.349
    raw, linked = [0.0, 0.5, 0.5, 0.5, 3.0], [4.0, 4.0, 7.0, -1.0, 4 + 3 * unit]
    differences = [0.0, 0.5, 0.5 - 3 / unit, 0.5 + 5 / unit, 0.0]
    expected = sum(huber(difference) for difference in differences) / 5
    assert abs(differences[2]) < 1 < differences[3], "both branches"
    units = {"gap": lambda y: y, "test_loss": torch.exp}[name]
    target = fit_target(name, units(torch.arange(9.0, dtype=torch.float64)))
    y = units(torch.tensor(linked, dtype=torch.float64))
    loss = float(target.loss(torch.tensor(raw, dtype=torch.float64), y))
    assert loss == pytest.approx(expected, rel=1e-9)


def test_loss_of_accuracies_is_the_cross_entropy_of_their_sigmoid():
    """Accuracies 0.2 and 0.8 have logits -log 4 and log 4: center 0, scale log 4."""
    target = fit_target("test_accuracy", torch.tensor([0.2, 0.8], dtype=torch.float64))
    raw, y = torch.tensor([1.0, -0.5]).double(), torch.tensor([0.6, 0.9]).double()
    expected = 0.6 * math.log(0.8) + 0.4 * math.log(0.2)  # sigmoid(log 4) = 4 / 5
    expected += 0.9 * math.log(1 / 3) + 0.1 * math.log(2 / 3)  # sigmoid(-log 2) = 1 / 3
    assert float(target.loss(raw, y)) == pytest.approx(-expected / 2, rel=1e-7)


def test_the_cross_entropy_is_least_at_the_truth():
    y = torch.tensor([0.3, 0.8], dtype=torch.float64)
    target = fit_target("test_accuracy", y)
    raw = target.standardize(y).requires_grad_()
    (gradient,) = torch.autograd.grad(target.loss(raw, y), raw)
    torch.testing.assert_close(gradient, torch.zeros_like(raw), rtol=0, atol=1e-7)


def test_an_outlier_moves_neither_scale_nor_loss_far():
    y = torch.randn(500, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    wild = torch.cat([y, torch.tensor([1e6], dtype=torch.float64)])
    assert fit_target("gap", wild).scale == pytest.approx(fit_target("gap", y).scale, rel=0.02)


def test_constant_targets_do_not_divide_by_zero():
    for name in ("test_accuracy", "test_loss", "gap"):
        target = fit_target(name, torch.full((10,), 0.5))
        assert float(target.predict(torch.zeros(1))) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("name", "values", "says"),
    [
        ("test_accuracy", [0.5, 73.8], r"in \[0, 1\], got 0.5 to 73.8"),
        ("test_loss", [-1.0, 2.0], ">= 0, got -1"),
    ],
)
def test_values_outside_a_known_range_are_refused(name, values, says):
    with pytest.raises(ValueError, match=says):
        fit_target(name, torch.tensor(values))
