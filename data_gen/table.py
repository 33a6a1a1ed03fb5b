"""The table of a job: what each network is trained with; a row depends on job and id alone."""

from functools import partial

import numpy as np
import torch
from jaxtyping import Int64, Shaped
from torch import Tensor

from data_gen.config import Job
from data_gen.rng import key
from data_gen.sampling import sample_table
from data_gen.tasks.data import Task
from data_gen.training.runs import TrainingRuns, part_bounds, parts_of

Table = dict[str, Shaped[np.ndarray, "N ..."]]
_NUMERIC = ("lr", "weight_decay", "momentum", "label_smoothing", "label_noise", "init_scale")


def full_table(job: Job, task: Task, ids: Int64[Tensor, " N"]) -> Table:
    """Hyperparameters, seed and derived numbers of steps and images of networks.

    Args:
        job: The job.
        task: The task.
        ids: Network ids.

    Returns:
        `network_id`, `seed`, every hyperparameter, `label` if the task has one for each network,
        `steps` and `train_size`, each `[N]`.

    Raises:
        ValueError: If there are more parts than training images.
    """
    table = sample_table(job.hyperparameters, job.seed, ids)
    train_size = _train_sizes(table, ids, len(task.train))
    if "steps" not in table:
        steps = np.ceil(table["epochs"].astype(float) * train_size / table["batch_size"])
        table["steps"] = np.maximum(1, steps).astype(np.int64)
    seeds = np.array([key(job.seed, "network", int(i)) for i in ids], dtype=np.int64)
    labels = {} if task.train.labels is None else {"label": task.train.labels[ids].numpy()}
    return {"network_id": ids.numpy(), "seed": seeds, **table, **labels, "train_size": train_size}


def _train_sizes(table: Table, ids: Int64[Tensor, " N"], total: int) -> Int64[np.ndarray, " N"]:
    """Training images of each network: a fraction of its part, at least one."""
    parts = torch.from_numpy(parts_of(table.get("train_parts"), len(ids)))
    most = int(parts.max())
    if most > total:
        raise ValueError(
            f"train_parts: expected at most {total}, the number of training images, found {most}"
        )
    start, stop = part_bounds(ids, parts, total)
    wanted = table["train_fraction"].astype(float) * (stop - start).numpy()
    return np.maximum(1, np.round(wanted)).astype(np.int64)


def runs_of(table: Table, device: torch.device, dtype: torch.dtype) -> TrainingRuns:
    """Who is trained, and how.

    Args:
        table: Rows of `full_table`, with one optimizer, schedule and batch size.
        device: Where the networks train.
        dtype: Floating type of training.

    Returns:
        The networks, on the device.
    """
    column = partial(torch.as_tensor, device=device)
    return TrainingRuns(
        ids=column(table["network_id"]),
        hparams={name: column(table[name], dtype=dtype) for name in _NUMERIC},
        steps=column(table["steps"]),
        train_size=column(table["train_size"]),
        parts=column(parts_of(table.get("train_parts"), len(table["network_id"]))),
        optimizer=str(table["optimizer"][0]),
        schedule=str(table["schedule"][0]),
        batch_size=int(table["batch_size"][0]),
    )
