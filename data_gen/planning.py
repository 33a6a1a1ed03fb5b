"""What a job comes to: its task, its architectures and its shards."""

from math import ceil
from typing import NamedTuple

import torch

from data_gen.config import Job
from data_gen.populations import build_population
from data_gen.shard import Shard
from data_gen.table import full_table
from data_gen.tasks.task import Task, load_task
from zoo.architectures.base import Architecture

_MAX_SHARD_BYTES = 256 * 10**6
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
    architectures = {name: build_population(job, name, task) for name in job.populations}
    full_table(job, task, torch.arange(job.count))  # refuses rows that do not fit the task
    return Plan(task, architectures, plan(job, architectures))


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
        most = max(1, min(job.shard_size, _MAX_SHARD_BYTES // row_bytes))
        start = 0
        for split, count in job.split.counts(job.count).items():
            of = ceil(count / most)
            first = start
            for k in range(of):
                stop = start + round((k + 1) * count / of)
                shards.append(Shard(name, split, k, of, first, stop))
                first = stop
            start += count
    return shards
