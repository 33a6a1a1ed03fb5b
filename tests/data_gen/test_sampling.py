"""Hyperparameters: distributions, ranges, errors."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy import stats

import zoo
from data_gen.config import HYPERPARAMETERS, Job
from data_gen.planning import make_plan
from data_gen.sampling import Distribution, group_rows, sample_table
from tests.data_gen.jobs import MLP, tiny_job

IDS = torch.arange(20_000)


def draws(spec):
    return sample_table({"x": Distribution.model_validate(spec)}, 0, IDS)["x"]


@pytest.mark.parametrize(
    ("spec", "law"),
    [
        ({"uniform": [2, 5]}, stats.uniform(2, 3)),
        ({"log_uniform": [1e-4, 10]}, stats.loguniform(1e-4, 10)),
    ],
)
def test_continuous_draws_follow_their_law(spec, law):
    # Kolmogorov-Smirnov: fails for correct draws with probability 1e-6.
    assert stats.kstest(draws(spec), law.cdf).pvalue > 1e-6


@pytest.mark.parametrize(
    ("spec", "values"),
    [
        ({"int_range": [3, 6]}, [3, 4, 5, 6]),
        ({"int_range": [3, 3]}, [3]),
        ({"uniform": [0.5, 0.5]}, [0.5]),
        ({"choice": ["a", "b"]}, ["a", "b"]),
        (0.5, [0.5]),
    ],
)
def test_discrete_draws_hit_every_value_equally(spec, values):
    drawn, counts = np.unique(draws(spec), return_counts=True)
    assert drawn.tolist() == values
    assert stats.chisquare(counts).pvalue > 1e-6 or len(values) == 1


def test_a_row_depends_on_seed_and_id_only():
    spec = {"lr": Distribution(uniform=(0, 1)), "momentum": Distribution(uniform=(0, 1))}
    whole = sample_table(spec, 1, torch.arange(100))
    part = sample_table({"lr": spec["lr"]}, 1, torch.tensor([70, 3]))
    assert part["lr"].tolist() == whole["lr"][[70, 3]].tolist()
    assert sample_table(spec, 2, torch.arange(100))["lr"].tolist() != whole["lr"].tolist()
    assert abs(np.corrcoef(whole["lr"], whole["momentum"])[0, 1]) < 0.5


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"uniform": [2, 1]}, "expected low <= high, found low = 2.0, high = 1.0"),
        ({"log_uniform": [0, 1]}, "expected low > 0, found 0"),
        ({"uniform": [0, float("inf")]}, "a finite number"),
        ({"choice": []}, "at least one value"),
        ({"uniform": [0, 1], "choice": [1]}, "exactly one of"),
        ({}, "exactly one of"),
        ({"unifrom": [0, 1]}, "Extra inputs"),
        ({"int_range": [0.5, 3]}, "integer"),
    ],
)
def test_bad_distributions_say_what_is_wrong(spec, message):
    with pytest.raises(ValidationError, match=message):
        Distribution.model_validate(spec)


@pytest.mark.parametrize(
    ("name", "spec", "message"),
    [
        ("lr", {"uniform": [0, 1]}, r"lr: expected values in \(0, inf\], found 0"),
        ("momentum", 1.0, r"momentum: expected values in \[0, 1\), found 1"),
        ("label_noise", 1.5, r"label_noise: expected values in \[0, 1\]"),
        ("optimizer", "adam", "optimizer: expected one of"),
        ("batch_size", 6.5, "batch_size: expected integers"),
        ("batch_size", {"uniform": [1, 2]}, "batch_size: expected integers"),
        ("lr", "fast", "lr: expected numbers, found 'fast'"),
        ("lr", True, "lr: expected numbers, found True"),
        ("learning_rate", 0.1, "unknown hyperparameter 'learning_rate'"),
    ],
)
def test_values_out_of_range_are_refused(name, spec, message):
    job = {"task": {}, "populations": {"p": {"architecture": {"name": "mlp"}}}, "count": 1}
    with pytest.raises(ValidationError, match=message):
        Job.model_validate(job | {"hyperparameters": {"steps": 1, name: spec}})


def test_job_fills_defaults_and_needs_a_length():
    job = {"task": {}, "populations": {"p": {"architecture": {"name": "mlp"}}}, "count": 1}
    filled = Job.model_validate(job | {"hyperparameters": {"epochs": 2}}).hyperparameters
    assert set(filled) == set(HYPERPARAMETERS) - {"steps", "train_parts"}
    for given in ({}, {"steps": 1, "epochs": 1}):
        with pytest.raises(ValidationError, match="exactly one of 'steps' and 'epochs'"):
            Job.model_validate(job | {"hyperparameters": given})


def test_whole_numbers_may_be_written_as_powers_of_ten():
    given = {"steps": 1e3, "batch_size": {"choice": [1e1, 32]}, "lr": 1.0}
    job = tiny_job(hyperparameters=given)
    plain = tiny_job(hyperparameters={"steps": 1000, "batch_size": {"choice": [10, 32]}, "lr": 1.0})
    assert job.sha256 == plain.sha256
    table = sample_table(job.hyperparameters, 0, IDS)
    kinds = {name: table[name].dtype.kind for name in given}
    assert kinds == {"steps": "i", "batch_size": "i", "lr": "f"}
    with pytest.raises(ValidationError, match=r"steps: expected integers, found 10\.5"):
        tiny_job(hyperparameters={"steps": 10.5})


@pytest.mark.parametrize("change", [{"count": 1e18}, {"count": 0}, {"count": 2.5}])
def test_counts_that_are_none_are_refused(change):
    with pytest.raises(ValidationError, match="count"):
        tiny_job(**change)
    with pytest.raises(ValidationError, match="batch_size: expected values in"):
        tiny_job(hyperparameters={"steps": 1, "batch_size": 10**9})


@pytest.mark.parametrize("value", [float("inf"), float("nan"), 1e39, 10**40])
def test_numbers_that_float32_does_not_hold_are_refused(value):
    """Networks would have infinite weights, and the zoo be one that `verify` refuses."""
    options = {"kappa": value}
    jobs = [
        {"hyperparameters": {"lr": value, "steps": 1}},
        {"hyperparameters": {"lr": {"choice": [0.1, value]}, "steps": 1}},
        {"populations": {"p": {"architecture": MLP, "asymmetry": {"kind": "w", **options}}}},
        {"populations": {"p": {"architecture": MLP, "asymmetry": {"kind": "syre", "std": value}}}},
        {"populations": {"p": {"architecture": {"name": "siren", "omega": value}}}},
    ]
    for change in jobs:
        with pytest.raises(ValueError, match=r"float32 holds|got (.* and )?(inf|nan)"):
            make_plan(tiny_job(**change))
    with pytest.raises(ValueError, match=r"float32 holds|got (.* and )?(inf|nan)"):
        zoo.asymmetric(torch.nn.Sequential(torch.nn.Linear(2, 2)), "w", **options)


def test_group_rows_against_a_loop():
    rng = np.random.default_rng(0)
    table = {"a": rng.integers(0, 3, 50), "b": rng.choice(["x", "y"], 50)}
    groups = group_rows(table, ("a", "b"))
    assert sorted(row for rows in groups.values() for row in rows) == list(range(50))
    for (a, b), rows in groups.items():
        assert rows == [i for i in range(50) if table["a"][i] == a and table["b"][i] == b]
