"""Diverged networks are kept with their last finite parameters; their neighbors are not touched."""

import torch

from data_gen.shard import ShardWorker
from data_gen.table import full_table
from tests.data_gen.test_training_oracle import ARCHITECTURES, make_job
from tests.reference.data_gen_training import PlainMLP, train_alone

WILD = {
    "lr": {"choice": [0.02, 1e6]},
    "label_noise": 0.0,
    "train_fraction": 1.0,
    "weight_decay": 1.0,
    "momentum": 0.5,
}


def train(tmp_path, **changes):
    job = make_job(ARCHITECTURES["mlp"][0], None, "sgd", "constant", count=8, **changes)
    base = job.model_dump(mode="json", exclude_none=True)
    job = type(job).model_validate(base | {"hyperparameters": base["hyperparameters"] | WILD})
    worker = ShardWorker(
        job, tmp_path, torch.device("cpu"), dtype=torch.float64, store_dtype=torch.float64
    )
    return job, worker, *worker.train("p", torch.arange(8), lambda _: None)


def test_diverged_networks_keep_their_last_finite_parameters(tmp_path):
    job, worker, table, params, trajectory = train(tmp_path, checkpoints=4)
    wild = table["lr"] > 1
    assert 0 < wild.sum() < 8
    assert (table["diverged"] == wild).all()
    assert (table["diverged_at"][~wild] == -1).all()
    for name, tensor in params.items():
        assert torch.isfinite(tensor).all()
        assert torch.isfinite(trajectory[name]).all()

    blueprint = worker.trainer("p").architecture
    rows = full_table(job, worker.task, torch.arange(8))
    for i in wild.nonzero()[0][:2].tolist():
        row = {column: values[i].item() for column, values in rows.items()}
        stop = int(table["diverged_at"][i])
        assert 1 <= stop <= row["steps"]
        before, after = (
            _alone(blueprint, worker.task, job.seed, i, row, steps) for steps in (stop - 1, stop)
        )
        assert all(torch.isfinite(tensor).all() for tensor in before.values())
        assert not all(torch.isfinite(tensor).all() for tensor in after.values())
        for name, expected in before.items():
            torch.testing.assert_close(params[name][i], expected, rtol=1e-6, atol=1e-9)


def test_neighbors_of_a_diverged_network_train_as_if_alone(tmp_path):
    _, worker, table, params, _ = train(tmp_path)
    tame = [i for i in range(8) if table["lr"][i] < 1]
    _, alone, _ = worker.train("p", torch.tensor(tame), lambda _: None)
    for name, tensor in alone.items():
        torch.testing.assert_close(tensor, params[name][tame], rtol=0, atol=1e-9)


def _alone(blueprint, task, seed, i, row, steps):
    initial = {
        n: p.double() for n, p in blueprint.init(torch.Generator().manual_seed(row["seed"])).items()
    }
    initial = {n: row["init_scale"] * p if n.endswith("weight") else p for n, p in initial.items()}
    return train_alone(
        PlainMLP(initial, {}, 2, "relu", "none"), task, seed, i, row | {"steps": steps}
    )


def test_a_diverged_network_with_running_statistics_is_what_it_was_before_the_step(tmp_path):
    table, params = train_resnets(tmp_path, 20)
    rows = table["diverged"].nonzero()[0].tolist()
    assert 0 < len(rows) < 8
    assert (table["lr"][rows] > 1).all()
    for i in rows:
        _, before = train_resnets(tmp_path, int(table["diverged_at"][i]) - 1)
        for name, tensor in before.items():
            assert torch.isfinite(params[name][i]).all()
            torch.testing.assert_close(params[name][i], tensor[i], rtol=1e-12, atol=0)


def train_resnets(tmp_path, steps):
    """Batch norm keeps networks finite for long, unless the learning rate is beyond all bounds."""
    architecture = {"name": "resnet", "channels": [3, 3, 3]}
    hyperparameters = {
        "lr": {"choice": [0.02, 1e30]},
        "weight_decay": 1.0,
        "batch_size": 8,
        "steps": steps,
    }
    job = make_job(architecture, None, "sgd", "constant", count=8, hyperparameters=hyperparameters)
    worker = ShardWorker(
        job, tmp_path, torch.device("cpu"), dtype=torch.float64, store_dtype=torch.float64
    )
    table, params, _ = worker.train("p", torch.arange(8), lambda _: None)
    return table, params
