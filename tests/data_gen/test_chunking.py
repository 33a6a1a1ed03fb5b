"""Chunks that do not fit are made smaller, aloud."""

import pytest
import torch

from data_gen import shard
from data_gen.config import Job
from data_gen.shard import ShardWorker
from data_gen.table import full_table
from data_gen.training.memory import chunk_size, halve_until_it_fits

JOB = {
    "task": {"name": "digits", "train_size": 40, "test_size": 10},
    "populations": {"p": {"architecture": {"name": "mlp", "hidden": [3]}}},
    "hyperparameters": {
        "optimizer": {"choice": ["sgd", "adamw"]},
        "train_fraction": {"uniform": [0.2, 1.0]},
        "steps": 2,
    },
    "count": 12,
}


def test_chunks_are_halved_until_they_fit():
    tried = []

    def run(size):
        tried.append(size)
        if size > 3:
            raise torch.OutOfMemoryError("no")
        return f"trained {size}"

    with pytest.warns(UserWarning, match="networks in lock step do not fit .* trying"):
        assert halve_until_it_fits(run, 13) == "trained 2"
    assert tried == [13, 7, 4, 2]


def test_one_network_that_does_not_fit_is_an_error():
    def run(size):
        raise torch.OutOfMemoryError("no")

    with pytest.raises(torch.OutOfMemoryError), pytest.warns(UserWarning, match="trying 1"):
        halve_until_it_fits(run, 2)


def test_chunks_share_the_networks_evenly():
    sizes = [chunk_size(2**20, torch.device("cpu"), rows) for rows in (1, 6, 7, 13, 100)]
    assert sizes == [1, 6, 4, 5, 6]  # 6 fit


def test_compiled_chunks_have_few_sizes_and_waste_little():
    sizes = {
        rows: chunk_size(6 * 2**20 // 35, torch.device("cpu"), rows, compiled=True)
        for rows in range(1, 500)
    }
    assert len(set(sizes.values())) <= 10
    for rows, size in sizes.items():
        lanes = -(-rows // size) * size
        assert 1 <= size <= min(rows, 36)
        assert lanes <= 1.5 * rows


def test_memory_is_measured_once_for_like_networks_and_no_shard_decides_it(tmp_path, monkeypatch):
    """Chunks of another size would round otherwise: a shard alone must choose as all do."""
    measured = []

    def measure(trainer, runs, params):
        measured.append(runs.optimizer)
        return shard_bytes(trainer, runs, params)

    shard_bytes = shard.training_bytes
    monkeypatch.setattr(shard, "training_bytes", measure)
    job = Job.model_validate(JOB)

    def sizes(worker, order):
        table = full_table(job, worker.task, torch.arange(12))
        rows = {i: {name: column[i : i + 1] for name, column in table.items()} for i in order}
        chosen = {i: worker.chunk_size("p", rows[i]) for i in order}
        return chosen, dict(sorted(worker._bytes.items()))

    workers = [ShardWorker(job, tmp_path, torch.device("cpu")) for _ in range(2)]
    assert sizes(workers[0], range(12)) == sizes(workers[1], range(11, -1, -1))
    assert len(measured) == 2 * 2
