"""Zoos of numbers, of many classes and of two: made, resumed, verified, repaired and read alike."""

import contextlib
import shutil

import datasets
import numpy as np
import pytest

import zoo
from data_gen.config import Job
from data_gen.generation import generate, generate_shard
from data_gen.integrity.repair import repair_zoo
from data_gen.integrity.verify import verify_zoo
from metanet import Metanet
from tests.data_gen.integrity.damage import edit, flip, rewrite
from tests.data_gen.jobs import assert_resumes_after_kill, visible

TASKS = {
    "numbers": {"name": "diabetes", "standardize": "both"},
    "huber": {"name": "diabetes", "standardize": "both", "loss": {"name": "huber", "delta": 0.5}},
    "classes": {"name": "wine"},
    "binary": {"name": "breast_cancer", "loss": "binary_cross_entropy"},
    "file": {"name": "file", "path": "data.npz", "loss": "absolute_error", "train_size": 40},
}
SHARD = "p/train-00000-of-00002.h5"
TOLD = {
    "numbers": ("regression", "squared_error", (1,)),
    "huber": ("regression", "huber", (1,)),
    "classes": ("classification", "cross_entropy", (3,)),
    "binary": ("classification", "binary_cross_entropy", (1,)),
    "file": ("regression", "absolute_error", (2,)),
}
TRUST = {"trust_task": True}


@pytest.fixture(autouse=True, scope="module")
def data(tmp_path_factory):
    """The current folder, with a file of data."""
    random, folder = np.random.default_rng(0), tmp_path_factory.mktemp("data")
    x = random.normal(size=(80, 3))
    arrays = {"x_train": x[:50], "y_train": x[:50, :2] ** 2, "x_test": x[50:]}
    np.savez(folder / "data.npz", **arrays, y_test=x[50:, :2] ** 2)
    with contextlib.chdir(folder):
        yield folder


def job_of(task):
    return Job.model_validate(
        {
            "task": task,
            "populations": {"p": {"architecture": {"name": "mlp", "hidden": [4]}}},
            "hyperparameters": {"steps": 12, "lr": {"log_uniform": [0.01, 0.1]}},
            "count": 8,
            "shard_size": 2,
            "checkpoints": 2,
            "checkpoint_metrics": True,
            "laws": "found",
        }
    )


def made(folder, task, **options):
    return generate(job_of(task), folder, device="cpu", compile=False, quiet=True, **options)


@pytest.fixture(scope="module", params=TASKS)
def original(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("zoos") / request.param
    return request.param, made(folder, TASKS[request.param])


def test_the_manifest_says_what_it_is(original):
    kind, folder = original
    manifest = zoo.load(folder).manifest
    task = manifest.task
    assert (task.kind, task.loss, task.output_shape) == TOLD[kind]
    measured = ["loss", "r2", "rmse"] if task.kind == "regression" else ["loss", "accuracy"]
    expected = [f"{part}_{name}" for part in ("train", "test") for name in measured]
    assert [*manifest.columns_of("metric")] == [*expected, "generalization_gap"]
    assert verify_zoo(folder, sample=8, **TRUST) == []


def test_an_interrupted_zoo_is_the_same_to_the_byte(original, tmp_path):
    kind, folder = original
    job = job_of(TASKS[kind])
    generate_shard(job, tmp_path / "zoo", 1, device="cpu", compile=False, quiet=True)
    generate_shard(job, tmp_path / "zoo", 0, device="cpu", compile=False, quiet=True)
    assert visible(made(tmp_path / "zoo", TASKS[kind])) == visible(folder)


@pytest.mark.parametrize("number", [5, 10])
def test_a_killed_run_goes_on_to_the_same_bytes(original, tmp_path, number):
    """When a shard has its trajectory but no networks, and when all but the card is there."""
    kind, folder = original

    def make(out):
        made(out, TASKS[kind])

    assert_resumes_after_kill(number, make, tmp_path / "zoo", visible(folder))


def test_chunks_change_nothing_but_rounding(original, tmp_path):
    kind, folder = original
    one, other = zoo.load(folder)["p"], zoo.load(made(tmp_path / "zoo", TASKS[kind], chunk_size=1))
    for name, tensor in one.params("train").items():
        np.testing.assert_allclose(other["p"].params("train")[name], tensor, rtol=1e-4, atol=1e-5)


def test_damage_is_found_and_mended(original, tmp_path):
    copy = shutil.copytree(original[1], tmp_path / "zoo")
    flip(copy / SHARD, 8 * 4000)
    faults = repair_zoo(copy, device="cpu", compile=False, quiet=True, **TRUST)
    assert [fault.path for fault in faults] == [SHARD]
    assert visible(copy) == visible(original[1])


def test_metrics_that_are_not_those_of_the_weights_are_found(original, tmp_path):
    copy, metrics = shutil.copytree(original[1], tmp_path / "zoo"), ("test_loss", "train_loss")

    def change(columns, prefix=""):
        for name in (*metrics, "generalization_gap"):
            columns[f"{prefix}{name}"] = columns[f"{prefix}{name}"] - 0.2

    rewrite(copy, change, SHARD)
    rewrite(copy, lambda columns: change(columns, "metric."), f"p.trajectory{SHARD[1:]}")
    assert verify_zoo(copy, sample=0) == []
    reasons = [fault.reason for fault in verify_zoo(copy, sample=8, **TRUST)]
    for name in (*metrics, "generalization_gap"):
        assert sum(f"{name} is" in reason for reason in reasons) == 2


def test_a_manifest_that_says_another_kind_is_refused(original, tmp_path):
    copy = shutil.copytree(original[1], tmp_path / "zoo")
    edit(copy, lambda manifest: manifest["task"].update(loss="another"))
    assert any("task: expected" in str(fault) for fault in verify_zoo(copy, sample=0))


@pytest.mark.filterwarnings("ignore")
def test_others_read_it_and_metanets_learn_from_it(original, tmp_path):
    kind, folder = original
    population = zoo.load(folder)["p"]
    loaded = datasets.load_dataset(str(folder), "p", cache_dir=str(tmp_path))
    target = "test_accuracy" if kind in ("classes", "binary") else "test_rmse"
    stored = population.table("train")[target].to_numpy()
    np.testing.assert_array_equal(loaded["train"][target][:], stored)
    fitted = Metanet("mlp", target=target, seed=0, epochs=2).fit(population)
    assert fitted.predict(population.params("test")).shape == (2,)
