"""Metrics at checkpoints: those of the parameters that are stored there, by a second formula."""

import datasets
import numpy as np
import pytest
import torch

import zoo
from data_gen import generate
from data_gen.config import Job
from data_gen.integrity.verify import verify_zoo
from data_gen.tasks.task import load_task
from zoo.store.mapped import StoreError

JOB = {
    "task": {"name": "digits", "train_size": 60, "test_size": 40},
    "populations": {"standard": {"architecture": {"name": "mlp", "hidden": [8]}}},
    "hyperparameters": {"steps": {"int_range": [4, 9]}, "lr": 0.1, "batch_size": 10},
    "count": 6,
    "checkpoints": 3,
    "checkpoint_metrics": True,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("zoos") / "measured"
    return generate(Job.model_validate(JOB), path, device="cpu", compile=False, quiet=True)


def test_they_are_the_metrics_of_the_stored_parameters(folder):
    population, task = zoo.load(folder)["standard"], load_task(Job.model_validate(JOB).task)
    exact = population.architecture.to("cpu", torch.float64)
    parts = {"train": task.train, "test": task.test}
    for split in population.splits:
        steps, metrics = population.checkpoint_metrics(split)
        _, params = population.trajectory(split)
        for network, moment in np.ndindex(steps.shape):
            one = {name: t[network, moment].double() for name, t in params.items()}
            for part, images in parts.items():
                logits = exact.apply(one, task.inputs(images.x).double())
                right = (logits.argmax(1) == images.y).double().mean()
                chosen = logits.log_softmax(1).gather(1, images.y[:, None])
                stored = {name: values[network, moment] for name, values in metrics.items()}
                assert stored[f"{part}_accuracy"] == pytest.approx(float(right), abs=1e-12)
                assert stored[f"{part}_loss"] == pytest.approx(float(-chosen.mean()), rel=1e-5)


def test_the_last_is_the_row_of_the_table(folder):
    population = zoo.load(folder)["standard"]
    for split in population.splits:
        table = population.table(split)
        _, metrics = population.checkpoint_metrics(split)
        assert set(metrics) == set(population.manifest.columns_of("metric"))
        for name, values in metrics.items():
            assert values.dtype == np.float64
            np.testing.assert_array_equal(values[:, -1], table[name].to_numpy())


def test_the_rest_of_the_zoo_is_the_same_without_them(folder, tmp_path):
    plain = Job.model_validate(JOB | {"checkpoint_metrics": False})
    other = zoo.load(generate(plain, tmp_path / "plain", device="cpu", compile=False, quiet=True))
    for split in other["standard"].splits:
        assert other["standard"].table(split).equals(zoo.load(folder)["standard"].table(split))
        first, second = (z["standard"].trajectory(split)[1] for z in (other, zoo.load(folder)))
        assert all(torch.equal(first[name], second[name]) for name in first)
    with pytest.raises(StoreError, match="no metrics of checkpoints"):
        other["standard"].checkpoint_metrics("train")


def test_others_read_them_and_verify_finds_no_fault(folder, tmp_path):
    assert verify_zoo(folder) == []
    loaded = datasets.load_dataset(str(folder), "standard.trajectory", cache_dir=str(tmp_path))
    _, metrics = zoo.load(folder)["standard"].checkpoint_metrics("test")
    np.testing.assert_array_equal(loaded["test"]["metric.test_loss"][:], metrics["test_loss"])


def test_they_need_checkpoints():
    with pytest.raises(ValueError, match="checkpoint_metrics: True is recorded at checkpoints"):
        Job.model_validate(JOB | {"checkpoints": 0})
