"""Networks that learn from disjoint parts of the training images."""

import pytest
import torch

from data_gen.config import Job
from data_gen.shard import ShardWorker
from data_gen.table import full_table
from data_gen.tasks.task import load_task
from data_gen.training.runs import draw_view
from tests.reference.data_gen_training import PlainMLP, train_alone

TOTAL, PARTS = 50, 4


def make_job(**hyperparameters):
    return Job.model_validate(
        {
            "task": {"name": "digits", "train_size": TOTAL, "test_size": 20},
            "populations": {"p": {"architecture": {"name": "mlp", "hidden": [5]}}},
            "hyperparameters": {"steps": 20, "batch_size": 8, "train_parts": PARTS}
            | hyperparameters,
            "count": 12,
            "seed": 5,
        }
    )


def images_of(job, tmp_path):
    """For each network the images that it sees, as a set."""
    worker = ShardWorker(job, tmp_path, torch.device("cpu"))
    runs = worker.runs(full_table(job, worker.task, torch.arange(job.count)))
    subset = draw_view(runs, worker.task, job.seed).subset
    return [set(subset[i, :size].tolist()) for i, size in enumerate(runs.train_size.tolist())]


def test_parts_are_disjoint_cover_everything_and_recur(tmp_path):
    parts = images_of(make_job(), tmp_path)
    assert sorted(map(len, parts[:PARTS])) == [12, 12, 13, 13]
    assert set.union(*parts[:PARTS]) == set(range(TOTAL))
    assert parts[:PARTS] == parts[PARTS : 2 * PARTS] == parts[2 * PARTS :]


def test_parts_are_no_intervals_and_depend_on_the_seed(tmp_path):
    parts = images_of(make_job(), tmp_path)
    assert all(max(part) - min(part) > len(part) for part in parts)
    other = make_job().model_copy(update={"seed": 6})
    assert images_of(other, tmp_path)[0] != parts[0]


def test_a_fraction_is_one_of_the_part(tmp_path):
    whole, half = images_of(make_job(), tmp_path), images_of(make_job(train_fraction=0.5), tmp_path)
    assert all(
        part < full and len(part) == round(0.5 * len(full))
        for part, full in zip(half, whole, strict=True)
    )


def test_the_smallest_fraction_is_one_image(tmp_path):
    assert [len(part) for part in images_of(make_job(train_fraction=1e-6), tmp_path)] == [1] * 12


def test_networks_with_one_part_see_what_they_saw_without_the_hyperparameter(tmp_path):
    divided = images_of(make_job(train_parts={"choice": [1, PARTS]}, train_fraction=0.5), tmp_path)
    job = make_job(train_fraction=0.5)
    del job.hyperparameters["train_parts"]
    plain = images_of(job, tmp_path)
    sizes = [len(part) for part in divided]
    assert {6, 25} <= set(sizes)
    assert all(part == other for part, other in zip(divided, plain, strict=True) if len(part) == 25)


def test_a_network_trains_on_its_part_alone(tmp_path):
    """The twin gets a task with nothing but the images of the part, in the order in which the
    network owns them.
    """
    job = make_job(lr=0.05)
    worker = ShardWorker(
        job, tmp_path, torch.device("cpu"), dtype=torch.float64, store_dtype=torch.float64
    )
    metrics, params, _ = worker.train("p", torch.arange(job.count), lambda _: None)
    table = full_table(job, worker.task, torch.arange(job.count))
    architecture = worker.trainer("p").architecture
    view = draw_view(worker.runs(table), worker.task, job.seed)
    for i in (1, 6):
        row = {name: values[i].item() for name, values in table.items()}
        subset = view.subset[i, : row["train_size"]]
        part = type(worker.task.train)(worker.task.train.x[subset], worker.task.train.y[subset])
        task = type(worker.task)(part, worker.task.test, 10, worker.task.mean, worker.task.std)
        initial = {
            n: p.double()
            for n, p in architecture.init(torch.Generator().manual_seed(row["seed"])).items()
        }
        module = PlainMLP(initial, {}, 1, "relu", "none")
        for name, expected in train_alone(module, task, job.seed, i, row).items():
            torch.testing.assert_close(params[name][i], expected, rtol=0, atol=1e-9)
        with torch.no_grad():
            right = module(task.inputs(part.x)).argmax(1) == part.y
        assert metrics["train_accuracy"][i] == right.double().mean()


def test_more_parts_than_images_are_refused():
    job = make_job(train_parts=TOTAL + 1)
    with pytest.raises(
        ValueError,
        match="train_parts: expected at most 50, the number of training images, found 51",
    ):
        full_table(job, load_task(job.task), torch.arange(2))
