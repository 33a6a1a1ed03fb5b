"""Quantities and residuals that are recorded in lock step are those of plain loops, and reach users
through the zoo.
"""

import pytest
import torch
import torch.nn.functional as F

import zoo
from data_gen.config import Job
from data_gen.generation import generate
from data_gen.rng import fold, key
from data_gen.shard import ShardWorker
from data_gen.table import full_table
from data_gen.training.order import shuffled
from tests.data_gen.test_training_oracle import KINDS, NETWORKS, make_job
from tests.reference.data_gen_training import PlainMLP, labels_seen, own_part
from zoo.store.mapped import StoreError

MLP = {"name": "mlp", "hidden": [7, 6]}
RECORDED = {"checkpoints": 3, "laws": "found"}


def around(tensors, i, neuron):
    """What a neuron of layer `i` is read by, and what writes it."""
    inside = torch.cat(
        [tensors[f"layers.{i}.weight"][neuron], tensors[f"layers.{i}.bias"][neuron, None]]
    )
    return tensors[f"layers.{i + 1}.weight"][:, neuron], inside


def cosine(field, gradient):
    size = field.norm() * gradient.norm()
    return (field @ gradient).abs() / size if size else size


def by_hand(params, gradients):
    """Quantities and residuals of the perceptron, a neuron or a column at a time.

    `gradients` are 0 at fixed entries.
    """
    pairs_of_laws = {}
    for i in range(2):
        for neuron in range(len(params[f"layers.{i}.bias"])):
            (out, inside), gradient = (
                around(params, i, neuron),
                torch.cat(around(gradients, i, neuron)),
            )
            pair = out @ out - inside @ inside, cosine(torch.cat([out, -inside]), gradient)
            pairs_of_laws.setdefault(f"h{i + 1}.balance", []).append(pair)
    for name in ("layers.2.weight", "layers.2.bias"):
        columns = zip(
            params[name].reshape(10, -1).T, gradients[name].reshape(10, -1).T, strict=True
        )
        pairs_of_laws[f"{name}.shift"] = [
            (column.sum(), cosine(torch.ones_like(column), gradient))
            for column, gradient in columns
        ]
    return {
        name: [torch.stack(part) for part in zip(*pairs, strict=True)]
        for name, pairs in pairs_of_laws.items()
    }


@pytest.mark.parametrize("kind", KINDS)
def test_recorded_columns_are_those_of_a_plain_loop(kind, tmp_path):
    job = make_job(MLP, KINDS[kind], "sgd", "constant", **RECORDED)
    worker = ShardWorker(
        job, tmp_path, torch.device("cpu"), dtype=torch.float64, store_dtype=torch.float64
    )
    _, _, trajectory = worker.train("p", torch.arange(NETWORKS), lambda _: None)
    constants, task = worker.trainer("p").architecture.constants, worker.task
    rows = full_table(job, task, torch.arange(NETWORKS))
    for i in range(NETWORKS):
        row = {name: column[i].item() for name, column in rows.items()}
        order = fold(key(job.seed, "order"), torch.tensor([i]))
        first = shuffled(
            order, torch.arange(row["batch_size"])[None], torch.tensor([row["train_size"]])
        )[0]
        images = torch.tensor(own_part(task, job.seed, i, row["train_size"]))[first]
        labels = labels_seen(task, job.seed, i, row["label_noise"])[images]
        x = (task.train.x[images].double() - task.mean) / task.std
        for moment in range(3):
            params = {
                name: trajectory[name][i, moment]
                for name in worker.trainer("p").architecture.space.tensors
            }
            module = PlainMLP(params, constants, 2, "relu", "none")
            F.cross_entropy(module(x), labels, label_smoothing=row["label_smoothing"]).backward()
            gradients = {name: raw.grad for name, raw in zip(module.names, module.raw, strict=True)}
            for law, (quantity, residual) in by_hand(params, gradients).items():
                torch.testing.assert_close(
                    trajectory[f"quantity.{law}"][i, moment], quantity, rtol=1e-9, atol=1e-11
                )
                torch.testing.assert_close(
                    trajectory[f"residual.{law}"][i, moment], residual, rtol=1e-6, atol=1e-11
                )


def test_laws_that_symmetry_keeps_have_no_residual_and_those_that_it_lost_have_one(tmp_path):
    largest = {}
    for kind in ("standard", "w", "sigma"):
        job = make_job(MLP, KINDS[kind], "adamw", "constant", **RECORDED)
        worker = ShardWorker(
            job, tmp_path, torch.device("cpu"), dtype=torch.float64, store_dtype=torch.float64
        )
        _, _, trajectory = worker.train("p", torch.arange(NETWORKS), lambda _: None)
        largest[kind] = float(trajectory["residual.h1.balance"].max())
    assert largest["standard"] < 1e-12 < 1e-3 < min(largest["w"], largest["sigma"])


def test_a_zoo_with_laws_is_read_back_and_recorded_in_chunks_of_any_size(tmp_path):
    job = make_job(
        MLP,
        None,
        "sgd",
        "constant",
        **RECORDED,
        count=6,
        split={"train": 0.5, "validation": 0.0, "test": 0.5},
    )
    folders = [
        generate(job, tmp_path / str(size), quiet=True, compile=False, chunk_size=size)
        for size in (2, 6)
    ]
    (steps, quantities, residuals), (_, others, _) = (
        zoo.load(folder)["p"].conservation("test") for folder in folders
    )
    assert (
        list(quantities)
        == list(residuals)
        == ["h1.balance", "h2.balance", "layers.2.weight.shift", "layers.2.bias.shift"]
    )
    assert steps.shape == (3, 3)
    assert quantities["h1.balance"].shape == residuals["h1.balance"].shape == (3, 3, 7)
    assert (
        0
        < float(residuals["h1.balance"].max())
        < 1e-5
        < float(quantities["h1.balance"].abs().max())
    )
    for law, values in quantities.items():
        torch.testing.assert_close(others[law], values)
    assert set(zoo.load(folders[0])["p"].trajectory("test")[1]) == set(
        zoo.load(folders[0])["p"].space.tensors
    )


def test_declared_laws_are_those_of_the_standard_space(tmp_path):
    job = make_job(MLP, KINDS["w"], "sgd", "constant", checkpoints=2, laws="declared")
    assert [law.name for law in ShardWorker(job, tmp_path, torch.device("cpu")).laws("p")] == [
        "h1.balance",
        "h2.balance",
    ]


def test_impossible_wishes_are_refused(tmp_path):
    with pytest.raises(ValueError, match="expected checkpoints >= 2, found 0"):
        make_job(MLP, None, "sgd", "constant", laws="found")
    with pytest.raises(ValueError, match="laws"):
        make_job(MLP, None, "sgd", "constant", checkpoints=2, laws="all")
    job = make_job(MLP, None, "sgd", "constant", checkpoints=2, hyperparameters={"steps": 1})
    folder = generate(job, tmp_path / "zoo", quiet=True, compile=False)
    with pytest.raises(StoreError, match="no conserved quantities; the job asked for no laws"):
        zoo.load(folder)["p"].conservation("train")


def test_a_job_without_laws_is_the_job_that_it_was():
    job = make_job(MLP, None, "sgd", "constant", checkpoints=2)
    assert "laws" not in job.as_json()
    assert Job.model_validate(job.model_dump()).sha256 == job.sha256
