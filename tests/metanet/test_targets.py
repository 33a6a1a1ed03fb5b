"""Links: raw outputs to predictions and back, bounded, robust."""

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


def test_loss_is_least_at_the_truth():
    for name, y in (
        ("test_accuracy", torch.tensor([0.3, 0.8])),
        ("test_loss", skewed(20)),
        ("gap", skewed(20) - 1),
    ):
        target = fit_target(name, y)
        raw = target.standardize(y.double()).requires_grad_()
        (gradient,) = torch.autograd.grad(target.loss(raw, y.double()), raw)
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
