"""How much work the files of a zoo justify: the job of a stranger may ask for any amount."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import torch

from data_gen.config import Job
from data_gen.table import full_table
from data_gen.tasks.task import load_task
from zoo.store.bounds import inside
from zoo.store.mapped import MappedFile, StoreError, open_mapped

_TIMES = 2
_PARTS = 1000


def check_justified(directory: Path, job: Job) -> None:
    """Refuse a job with more than twice the networks, or steps, of the files that are there.

    Args:
        directory: The zoo.
        job: The job that would make its files again; its task is loaded.

    Raises:
        ValueError: If the job asks for more.
    """
    files = list(_shards(directory, job))
    _compare(directory, "networks", *_networks(job, files))
    steps = sum(float(file.array("steps").astype(float).sum()) for file in files)
    table = full_table(job, load_task(job.task), torch.arange(job.count))
    wanted = float(table["steps"].astype(float).sum()) * len(job.populations)
    _compare(directory, "training steps", wanted, steps)


def check_mergeable(folders: Sequence[Path], job: Job) -> None:
    """Refuse to plan a job of which some folders hold less than a thousandth.

    Args:
        folders: Folders with some shards each.
        job: Their job.

    Raises:
        ValueError: If they hold less.
    """
    files = (file for folder in folders for file in _shards(folder, job))
    wanted, networks = _networks(job, files)
    if wanted > _PARTS * networks:
        raise ValueError(
            f"{folders[0]}: the job makes {wanted:,} networks, the folders hold {networks:,}; "
            "expected at least a thousandth of them"
        )


def _networks(job: Job, files: Iterable[MappedFile]) -> tuple[int, int]:
    """How many networks a job makes, and how many files hold."""
    held = (file.column("network_id").shape[0] for file in files)
    return job.count * len(job.populations), sum(held)


def _compare(directory: Path, unit: str, wanted: int | float, at_hand: int | float) -> None:
    if wanted > _TIMES * at_hand:
        raise ValueError(
            f"{directory}: the job makes {wanted:,.0f} {unit}, the files that are there hold "
            f"{at_hand:,.0f}; give --trust-task to make them all the same"
        )


def _shards(directory: Path, job: Job) -> Iterator[MappedFile]:
    """Files of final networks that can be opened, damaged or not."""
    for name in job.populations:
        for path in sorted((directory / name).glob("[!.]*.h5")):
            try:
                file = open_mapped(inside(directory, f"{name}/{path.name}"))
            except StoreError:
                continue
            if {"network_id", "steps"} <= file.columns.keys():
                yield file
