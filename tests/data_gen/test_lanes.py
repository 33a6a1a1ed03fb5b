"""Networks that have stopped or diverged make room for others, and nobody notices."""

import numpy as np
import pytest
import torch

from data_gen.config import Job
from data_gen.shard import ShardWorker
from data_gen.table import full_table
from data_gen.training.lanes import Lanes
from data_gen.training.recorder import Recorder, checkpoint_steps
from data_gen.training.trainer import Trainer

NETWORKS = 8
HYPERPARAMETERS = {
    "steps": {"choice": [20, 70, 140]},
    "optimizer": "adamw",
    "schedule": "cosine",
    "lr": {"choice": [0.01, 1e30]},
    "label_noise": {"uniform": [0.0, 0.3]},
    "train_fraction": {"uniform": [0.3, 1.0]},
    "batch_size": 8,
}


@pytest.fixture(scope="module")
def worker(tmp_path_factory):
    job = Job.model_validate(
        {
            "task": {"train_size": 60, "test_size": 40},
            "populations": {"p": {"architecture": {"name": "mlp", "hidden": [6]}}},
            "hyperparameters": HYPERPARAMETERS,
            "count": NETWORKS,
            "checkpoints": 4,
        }
    )
    out = tmp_path_factory.mktemp("zoo")
    return ShardWorker(
        job, out, torch.device("cpu"), dtype=torch.float64, store_dtype=torch.float64
    )


class Counting(Trainer):
    """Counts how many network-steps are computed."""

    def advance(self, networks, view, state, length, watch=None):
        self.computed = getattr(self, "computed", 0) + length * len(networks.ids)
        super().advance(networks, view, state, length, watch)


def train(worker, rows, lanes, compiled=False):
    table = {
        name: column[rows]
        for name, column in full_table(worker.job, worker.task, torch.arange(NETWORKS)).items()
    }
    # products of what this leads to are infinite in float64, too
    table["lr"] = np.where(table["lr"] > 1, 1e300, table["lr"])
    plain = worker.trainer("p")
    trainer = Counting(plain.architecture, worker.task, worker.job.seed)
    trainer.compiled = compiled
    networks, initial = worker.runs(table), worker.initial(trainer, table)
    recorder = Recorder(
        torch.from_numpy(checkpoint_steps(4, table["steps"])), initial, torch.float64
    )
    reported = []
    final, diverged_at = Lanes(trainer, networks, initial, lanes, recorder, reported.append).run()
    assert sum(reported) == len(rows)
    return table, final, diverged_at, recorder.params, trainer.computed


@pytest.fixture(scope="module")
def alone(worker):
    return [train(worker, np.array([i]), 1) for i in range(NETWORKS)]


@pytest.mark.parametrize(("lanes", "compiled"), [(3, False), (40, True)])
def test_every_network_is_trained_as_if_alone(worker, alone, lanes, compiled):
    table, final, diverged_at, moments, _ = train(worker, np.arange(NETWORKS), lanes, compiled)
    assert 1 < (diverged_at >= 0).sum() < 7
    assert torch.equal(diverged_at >= 0, torch.from_numpy(table["lr"] > 1))
    for i, (_, last, stop, kept, _) in enumerate(alone):
        assert diverged_at[i] == stop[0]
        for name in final:
            assert torch.isfinite(final[name][i]).all()
            torch.testing.assert_close(final[name][i], last[name][0], rtol=0, atol=1e-12)
            torch.testing.assert_close(moments[name][i], kept[name][0], rtol=0, atol=1e-12)
            torch.testing.assert_close(moments[name][i, -1], final[name][i], rtol=0, atol=0)


def test_stopped_networks_are_not_computed(worker):
    table, *_, computed = train(worker, np.arange(NETWORKS), 4)
    needed = int(table["steps"][table["lr"] < 1].sum())
    # A network leaves at the end of a block of 32 steps; of those that wait, none is computed, nor
    # are lanes without a network.
    assert needed < computed <= needed + NETWORKS * 32
    assert computed < int(np.sort(table["steps"])[::-1][::4].sum() * 4)
    *_, kept_shape = train(worker, np.arange(NETWORKS), 4, compiled=True)
    assert computed <= kept_shape
