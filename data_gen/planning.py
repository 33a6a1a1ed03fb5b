"""What a job comes to: its task, its architectures and its shards."""

from typing import NamedTuple

import torch

from data_gen.config import Job
from data_gen.populations import build_population
from data_gen.table import full_table
from data_gen.tasks.data import Task
from data_gen.tasks.task import load_task
from zoo.architectures.base import Architecture
from zoo.writing.shards import MAX_SHARD_BYTES, Shard, divide

_MAX_NETWORK_BYTES = 4 * 10**9


class Plan(NamedTuple):
    """What a job comes to; a function of the job alone.

    Attributes:
        task: Its task, on the CPU.
        architectures: Architecture of each population.
        shards: All shards.
    """

    task: Task
    architectures: dict[str, Architecture]
    shards: list[Shard]


def make_plan(job: Job) -> Plan:
    """Load the task of a job, build its architectures and plan its shards.

    Args:
        job: The job.

    Returns:
        The plan.

    Raises:
        ValueError: If the job does not fit its task.
    """
    task = load_task(job.task)
    _check_hyperparameters(job, task)
    architectures = {name: build_population(job, name, task) for name in job.populations}
    for name, architecture in architectures.items():
        _check_outputs(name, architecture, task)
    full_table(job, task, torch.arange(job.count))  # refuses rows that do not fit the task
    return Plan(task, architectures, plan(job, architectures))


def _check_hyperparameters(job: Job, task: Task) -> None:
    """Refuse what only has a meaning for classes if there are none, and networks without data."""
    if task.train.per_network and job.count > len(task.train.y):
        raise ValueError(
            f"count: expected at most {len(task.train.y)}, as many networks as the task has data "
            f"for (per_network), found {job.count}"
        )
    one_class = task.num_classes is not None and not task.train.target_shape
    has_meaning = {"label_smoothing": task.loss.smooths, "label_noise": one_class}
    for name, has in has_meaning.items():
        if not has and any(job.hyperparameters[name].extremes):
            raise ValueError(
                f"hyperparameters.{name}: expected 0, as it has no meaning for these targets and "
                f"the loss {task.loss.name!r}; found {job.hyperparameters[name].extremes}"
            )


def _check_outputs(name: str, architecture: Architecture, task: Task) -> None:
    """Run a network on two examples: outputs must be what the loss wants."""
    some = torch.arange(2) % len(task.train)
    inputs, targets = task.inputs(task.train.rows(some)), task.train.targets(some[:1])[0][some]
    params = architecture.init(torch.Generator().manual_seed(0))
    with torch.no_grad():
        try:
            outputs = architecture.apply(params, inputs)
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            raise ValueError(f"population {name!r}: inputs do not fit: {error}") from error
        expected = (2, *task.output_shape)
        if outputs.shape != expected:
            raise ValueError(
                f"population {name!r}: outputs of shape {list(outputs.shape)} for two examples; "
                f"the task and its loss {task.loss.name!r} need {list(expected)}"
            )
        loss = task.loss.mean(outputs, targets)
    if not isinstance(loss, torch.Tensor) or loss.shape != ():
        raise ValueError(f"task.loss: {task.loss.name!r}: expected one number, found {loss!r:.200}")


def plan(job: Job, architectures: dict[str, Architecture]) -> list[Shard]:
    """All shards of a job; a function of the job alone.

    Args:
        job: The job.
        architectures: Architecture of each population.

    Returns:
        Shards with at most `shard_size` networks and 256 MB each, the networks of a split spread
        evenly.

    Raises:
        ValueError: If one network with its checkpoints takes more than 4 GB.
    """
    shards = []
    for name, architecture in architectures.items():
        row_bytes = 4 * architecture.space.num_params * max(1, job.checkpoints)
        if row_bytes > _MAX_NETWORK_BYTES:
            raise ValueError(
                f"population {name!r}: a network and its {job.checkpoints} checkpoints take "
                f"{row_bytes} bytes, expected at most {_MAX_NETWORK_BYTES}: set fewer checkpoints"
            )
        most = max(1, min(job.shard_size, MAX_SHARD_BYTES // row_bytes))
        shards += divide(name, job.split.counts(job.count), most)
    return shards
