"""Losses: training with each equals a plain PyTorch loop, and metrics are scikit-learn's."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import accuracy_score, r2_score, root_mean_squared_error

from data_gen.config import Job
from data_gen.planning import make_plan
from data_gen.shard import ShardWorker
from data_gen.table import full_table
from data_gen.tasks.losses import LOSSES, cross_entropy, make_loss
from data_gen.tasks.task import TaskConfig, load_task
from tests.reference.data_gen_training import PlainMLP, own_part, train_alone

NETWORKS = 3
MODULE = """
def fourth_power(outputs, targets):
    return ((outputs - targets) ** 4).mean()

def each(outputs, targets):
    return outputs[:, 0]
"""
WEIGHTS = [0.5, 2.0, 1.0]


def weighted(outputs, targets, row):
    smoothing, weight = row["label_smoothing"], torch.tensor(WEIGHTS, dtype=outputs.dtype)
    how = {"weight": weight, "label_smoothing": smoothing, "reduction": "none"}
    return F.cross_entropy(outputs, targets, **how).mean()


def binary(outputs, targets, row):
    smooth = (1 - row["label_smoothing"]) * targets.double() + row["label_smoothing"] / 2
    return F.binary_cross_entropy_with_logits(outputs[:, 0], smooth)


# task -> the same loss by torch's own function
WEIGHTED = {"name": "cross_entropy", "class_weights": WEIGHTS}
CASES = {
    "classes": (
        {"name": "wine"},
        lambda o, t, row: F.cross_entropy(o, t, label_smoothing=row["label_smoothing"]),
    ),
    "weights": (
        {"name": "wine", "loss": {"name": "cross_entropy", "class_weights": WEIGHTS}},
        weighted,
    ),
    "binary": ({"name": "breast_cancer", "loss": "binary_cross_entropy"}, binary),
    "squares": ({"name": "diabetes", "standardize": "both"}, lambda o, t, _: F.mse_loss(o, t)),
    "sizes": (
        {"name": "diabetes", "loss": "absolute_error", "standardize": "both"},
        lambda o, t, _: F.l1_loss(o, t),
    ),
    "huber": (
        {"name": "diabetes", "loss": {"name": "huber", "delta": 0.5}, "standardize": "both"},
        lambda o, t, _: F.huber_loss(o, t, delta=0.5),
    ),
    "classes as numbers": (
        {"name": "iris", "loss": "squared_error"},
        lambda o, t, _: F.mse_loss(o, t),
    ),
    "code": (
        {"name": "diabetes", "loss": "losses_of_tests:fourth_power", "standardize": "both"},
        lambda o, t, _: ((o - t) ** 4).mean(),
    ),
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "losses_of_tests.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("zoo.imports._allowed", {"losses_of_tests"})
    return tmp_path


def job_of(task, **changes):
    has_classes = load_task(TaskConfig.model_validate(task)).num_classes is not None
    hyperparameters = {
        "lr": 0.02,
        "momentum": 0.5,
        "steps": {"int_range": [9, 11]},
        "batch_size": 8,
        "train_fraction": {"uniform": [0.3, 1.0]},
    }
    if has_classes:
        hyperparameters |= {"label_smoothing": {"uniform": [0.1, 0.3]}, "label_noise": 0.2}
    job = {
        "task": task,
        "populations": {"p": {"architecture": {"name": "mlp", "hidden": [6]}}},
        "hyperparameters": hyperparameters,
        "count": NETWORKS,
        "seed": 3,
    }
    return Job.model_validate(job | changes)


def trained(job, folder):
    """Worker, table and parameters of all networks, in float64."""
    double = {"dtype": torch.float64, "store_dtype": torch.float64}
    worker = ShardWorker(job, folder, torch.device("cpu"), **double)
    table, params, _ = worker.train("p", torch.arange(NETWORKS), lambda _: None)
    return worker, table, params


@pytest.mark.parametrize("case", CASES)
def test_chunk_equals_plain_loop(case, folder):
    task, loss_of = CASES[case]
    job = job_of(task)
    worker, _, params = trained(job, folder)
    table = full_table(job, worker.task, torch.arange(NETWORKS))
    architecture = worker.trainer("p").architecture
    for i in range(NETWORKS):
        row = {column: values[i].item() for column, values in table.items()}
        initial = architecture.init(torch.Generator().manual_seed(row["seed"]))
        module = PlainMLP({n: p.double() for n, p in initial.items()}, {}, 1, "relu", "none")
        if not worker.task.loss.smooths:
            row["label_smoothing"] = 0.0
        alone = train_alone(module, worker.task, job.seed, i, row, loss_of)
        for name, expected in alone.items():
            assert not torch.equal(expected, initial[name])
            torch.testing.assert_close(params[name][i], expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("case", ["squares", "huber", "code", "binary"])
def test_metrics_are_those_of_scikit_learn(case, folder):
    job = job_of(CASES[case][0], hyperparameters={"steps": 9, "lr": 0.02, "train_fraction": 0.5})
    worker, table, params = trained(job, folder)
    task, architecture = worker.task, worker.trainer("p").architecture
    raw = load_task(job.task.model_copy(update={"standardize": None, "loss": None}))
    for i in range(NETWORKS):
        seen = own_part(task, job.seed, i, int(table["train_size"][i]))
        parts = {"train": (task.train, raw.train, seen), "test": (task.test, raw.test, slice(None))}
        for part, (scaled, plain, rows) in parts.items():
            one = {name: tensor[i] for name, tensor in params.items()}
            outputs = architecture.apply(one, task.inputs(scaled.x[rows]))
            loss = float(task.loss.mean(outputs, scaled.y[rows]))
            assert table[f"{part}_loss"][i] == pytest.approx(loss, rel=1e-9)
            if task.num_classes is not None:
                right = accuracy_score(plain.y[rows], outputs[:, 0] > 0)
                assert table[f"{part}_accuracy"][i] == pytest.approx(right, rel=1e-12)
                continue
            predicted = task.in_units(outputs)
            r2, rmse = (f(plain.y[rows], predicted) for f in (r2_score, root_mean_squared_error))
            assert table[f"{part}_r2"][i] == pytest.approx(r2, rel=1e-5)
            assert table[f"{part}_rmse"][i] == pytest.approx(rmse, rel=1e-5)
    main = "accuracy" if task.num_classes is not None else "r2"
    gap = table[f"train_{main}"] - table[f"test_{main}"]
    np.testing.assert_array_equal(table["generalization_gap"], gap)


def test_r2_of_equal_targets_is_nothing(tmp_path):
    hyperparameters = {"steps": 2, "train_fraction": 0.0001, "lr": 0.001}
    job = job_of({"name": "diabetes", "standardize": "both"}, hyperparameters=hyperparameters)
    _, table, _ = trained(job, tmp_path)
    assert table["train_size"].tolist() == [1] * NETWORKS
    assert np.isnan(table["train_r2"]).all()
    assert np.isnan(table["generalization_gap"]).all()
    assert not table["diverged"].any()


def test_classes_of_positions():
    random = torch.Generator().manual_seed(0)
    outputs = torch.randn(5, 3, 4, 2, generator=random, dtype=torch.float64)
    targets = torch.randint(3, (5, 4, 2), generator=random)
    for weights in (None, WEIGHTS):
        weight = None if weights is None else torch.tensor(weights, dtype=torch.float64)
        expected = F.cross_entropy(
            outputs, targets, weight=weight, label_smoothing=0.2, reduction="none"
        )
        each = cross_entropy(weights).each(outputs, targets, torch.tensor(0.2, dtype=torch.float64))
        torch.testing.assert_close(each, expected.mean((1, 2)), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("task", "why"),
    [
        ({"loss": "squared"}, "unknown loss 'squared'; known are "),
        ({"loss": {"name": "huber", "delta": -1}}, "'delta' of loss 'huber': expected more than 0"),
        ({"loss": {"name": "squared_error", "delta": 1}}, "unknown option 'delta'"),
        ({"loss": {"delta": 1}}, "unknown loss None"),
        ({"loss": "a:b:c"}, "expected 'module:attribute', found 'a:b:c'"),
        ({"loss": {"name": "a:b", "delta": 1}}, "expected no options"),
        ({"standardize": "targets"}, "'inputs', 'both' or 'none'"),
        ({"name": "wine", "loss": "binary_cross_entropy"}, "is of 2 classes; the targets have 3"),
        (
            {"name": "wine", "loss": {"name": "cross_entropy", "class_weights": [1.0]}},
            "is of 1 classes; the targets have 3",
        ),
        ({"name": "diabetes", "loss": "cross_entropy"}, "'cross_entropy' is of classes"),
        ({"name": "wine", "standardize": "both"}, "'both' is of targets that are numbers"),
        ({"name": "wine", "loss": "losses_of_tests:no"}, "task.loss: .* has no 'no'"),
    ],
)
def test_a_loss_that_does_not_fit_is_refused(task, why, folder):
    with pytest.raises(ValueError, match=why):
        load_task(TaskConfig.model_validate(task))


@pytest.mark.parametrize(
    ("task", "hyperparameters", "why"),
    [
        ("diabetes", {"label_noise": 0.1}, "hyperparameters.label_noise: expected 0, as it has"),
        ("diabetes", {"label_smoothing": {"uniform": [0, 0.1]}}, "label_smoothing: expected 0"),
    ],
)
def test_hyperparameters_of_classes_are_refused_for_numbers(task, hyperparameters, why):
    job = job_of({"name": task}, hyperparameters={"steps": 1, **hyperparameters})
    with pytest.raises(ValueError, match=why):
        make_plan(job)
    make_plan(job_of({"name": task}, hyperparameters={"steps": 1, "label_noise": 0}))


@pytest.mark.parametrize(
    ("loss", "why"),
    [
        ("losses_of_tests:each", "expected one number, found tensor"),
        (None, "a cnn needs inputs of shape"),
    ],
)
def test_what_does_not_fit_together_is_refused_before_training(loss, why, folder):
    populations = {"p": {"architecture": {"name": "mlp" if loss else "cnn"}}}
    changes = {"populations": populations, "hyperparameters": {"steps": 1}}
    job = job_of({"name": "iris", "loss": loss}, **changes)
    with pytest.raises(ValueError, match=why):
        make_plan(job)


def test_a_loss_by_name_alone_is_the_same_job():
    short = TaskConfig.model_validate({"loss": "huber"})
    assert short == TaskConfig.model_validate({"loss": {"name": "huber"}})
    assert make_loss(short.loss, "regression").name == "huber"
    assert "loss" not in TaskConfig().model_dump(exclude_none=True)
    assert all(make().name == name for name, make in LOSSES.items())
