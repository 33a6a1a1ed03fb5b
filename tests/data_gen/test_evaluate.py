"""Metrics of networks against one forward pass of a plain network over the images that it saw."""

import pytest
import torch
import torch.nn.functional as F

from data_gen.config import Job
from data_gen.shard import ShardWorker
from data_gen.table import full_table
from tests.reference.data_gen_training import labels_seen, own_part


@pytest.mark.parametrize("test_size", [256, 257, 300, 512])
def test_every_image_counts_once_whatever_the_size_of_blocks(tmp_path, test_size):
    """Images are evaluated in blocks of 256, the last of which repeats an image until it is full.

    The networks saw 240 to 270 of 300 training images, some of them with wrong labels.
    """
    job = Job.model_validate(
        {
            "task": {"name": "digits", "train_size": 300, "test_size": test_size},
            "populations": {"p": {"architecture": {"name": "mlp", "hidden": [6]}}},
            "hyperparameters": {
                "steps": 5,
                "lr": 0.1,
                "label_noise": 0.2,
                "train_fraction": {"choice": [0.8, 0.9]},
            },
            "count": 3,
        }
    )
    double = {"dtype": torch.float64, "store_dtype": torch.float64}
    worker, ids = ShardWorker(job, tmp_path, torch.device("cpu"), **double), torch.arange(3)
    metrics, params, _ = worker.train("p", ids, lambda _: None)
    task, table = worker.task, full_table(job, worker.task, ids)
    for i in range(3):
        subset = own_part(task, job.seed, i, int(table["train_size"][i]))
        labels = labels_seen(task, job.seed, i, 0.2)[subset]
        for part, x, y in (
            ("train", task.train.x[subset], labels),
            ("test", task.test.x, task.test.y),
        ):
            inputs = ((x.double() - task.mean) / task.std).flatten(1)
            hidden = (inputs @ params["layers.0.weight"][i].T + params["layers.0.bias"][i]).relu()
            logits = hidden @ params["layers.1.weight"][i].T + params["layers.1.bias"][i]
            loss, hits = float(F.cross_entropy(logits, y)), int((logits.argmax(1) == y).sum())
            assert float(metrics[f"{part}_loss"][i]) == pytest.approx(loss, rel=1e-12)
            assert float(metrics[f"{part}_accuracy"][i]) == pytest.approx(hits / len(y), rel=1e-15)
