"""Generate a zoo: plan its shards, make those that are missing, then write card and manifest."""

import json
import platform
from collections.abc import Sequence
from dataclasses import replace
from math import ceil
from operator import attrgetter, methodcaller
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from data_gen.columns import KIND, LOSS, job_columns
from data_gen.config import Job
from data_gen.executors.executor import Executor, InThisProcess
from data_gen.executors.failures import raise_for_missing, writing_to
from data_gen.executors.local import LocalProcesses
from data_gen.executors.progress import show_progress
from data_gen.folder import (
    check_described,
    check_owner,
    claimed,
    constants_attributes,
    has_constants,
    is_complete,
)
from data_gen.populations import build_population
from data_gen.shard import Shard, ShardWorker
from data_gen.table import full_table
from data_gen.tasks.task import Task, load_task
from data_gen.training.compilation import compiler_works
from zoo.architectures.base import Architecture
from zoo.sharing.card import render_card
from zoo.store.atomic import sha256, write_text
from zoo.store.entries import DEFAULT, ShardEntry, TaskEntry, default_splitting
from zoo.store.hdf5 import write_columns
from zoo.store.manifest import CARD_NAME, MANIFEST_NAME, Manifest, PopulationEntry

_MAX_SHARD_BYTES = 256 * 10**6


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


def generate(
    job: Job,
    out: str | Path,
    device: str = "auto",
    workers: int = 0,
    chunk_size: int | None = None,
    compile: bool = True,
    quiet: bool = False,
    executor: Executor | None = None,
) -> Path:
    """Generate a zoo, or go on with one that was interrupted.

    Args:
        job: What to generate.
        out: Folder of the zoo; new, or from an earlier run of the same job.
        device: `"auto"`, `"cpu"` or `"cuda"`.
        workers: Local processes; 0 trains in this process.
        chunk_size: Networks in lock step, at most; by memory if None.
        compile: Whether steps may be compiled where it pays.
        quiet: Whether to show no progress.
        executor: Where to make shards, instead of `workers`.

    Returns:
        The folder.

    Raises:
        ValueError: If the job does not fit its task, the device is not there, the folder holds
            something else, or another process writes to it.
        FolderError: If the folder cannot be written.
        MissingShards: If shards could not be made; all others are on disk.
        NoProcess: If no process can be started.
    """
    chosen = executor or (LocalProcesses(workers) if workers else InThisProcess())
    out, place, planned = Path(out), choose_device(device, chosen.elsewhere), make_plan(job)
    worker = ShardWorker(job, out, place, chunk_size, allow_compile=compile)
    with writing_to(out), claimed(out, job):
        check_described(out, job)
        _make_missing(chosen, worker, planned.shards, quiet)
        return finish(out, job, planned)


def generate_shard(
    job: Job,
    out: str | Path,
    number: int,
    device: str = "auto",
    chunk_size: int | None = None,
    compile: bool = True,
    quiet: bool = False,
    threads: int = 1,
) -> list[Shard]:
    """Make one shard in this process.

    The process that finds all shards complete writes card and manifest.

    Args:
        job: What to generate.
        out: Folder of the zoo; others may make other shards of the same job in it.
        number: Which shard, as in the plan, from 0.
        device: `"auto"`, `"cpu"` or `"cuda"`.
        chunk_size: Networks in lock step, at most; by memory if None.
        compile: Whether steps may be compiled where it pays.
        quiet: Whether to show no progress.
        threads: Threads on a CPU; another number may round differently.

    Returns:
        Shards that are still missing; none if the zoo is complete.

    Raises:
        ValueError: If there is no such shard, or for a reason that `generate` has.
        FolderError: If the folder cannot be written.
        MissingShards: If the shard could not be made.
    """
    out, place, planned = Path(out), choose_device(device), make_plan(job)
    total = len(planned.shards)
    if not 0 <= number < total:
        raise ValueError(
            f"--shard {number}: expected 0 to {total - 1}, this job has {total} shards"
        )
    shard = planned.shards[number]
    worker = ShardWorker(job, out, place, chunk_size, allow_compile=compile)
    with writing_to(out), claimed(out, job, number, shard.paths(job.checkpoints > 0)):
        check_described(out, job)
        _make_missing(InThisProcess(threads), worker, [shard], quiet)
        missing = _missing(job, out, planned.shards)
        if not missing:
            finish(out, job, planned)
        return missing


def missing_shards(job: Job, out: Path, planned: Plan) -> list[Shard]:
    """Shards that are not in a folder yet.

    Args:
        job: The job.
        out: The folder; may be missing.
        planned: What the job comes to.

    Returns:
        The shards.

    Raises:
        ValueError: If the folder holds another job, or anything else.
    """
    check_owner(out, job)
    return _missing(job, out, planned.shards)


def _missing(job: Job, out: Path, shards: Sequence[Shard]) -> list[Shard]:
    return [shard for shard in shards if not is_complete(out, shard, job)]


def _make_missing(
    executor: Executor, worker: ShardWorker, shards: Sequence[Shard], quiet: bool
) -> None:
    """Make those of some shards that are missing; an error names the ones that could not be made.

    The worker may compile where it is allowed to, it pays, and it works.
    """
    missing = _missing(worker.job, worker.out, shards)
    if not missing:
        return
    compiles = (
        worker.allow_compile
        and replace(worker, device=torch.device("cpu")).compilation_pays
        and compiler_works(worker.device)
    )
    # absolute: another process may be elsewhere
    ready = replace(worker, out=worker.out.absolute(), allow_compile=compiles)
    size, label = attrgetter("count"), methodcaller("path")
    with show_progress(shards, missing, size, label, "networks", quiet) as progress:
        executor.run(ready, missing, progress)
    left = [shard.path() for shard in _missing(worker.job, worker.out, missing)]
    failures = {shard.path(): failure for shard, failure in progress.failures.items()}
    raise_for_missing(worker.out, len(shards), left, failures)


def choose_device(name: str, elsewhere: bool = False) -> torch.device:
    """The device to train on.

    Args:
        name: `"auto"` (a GPU where there is one), `"cpu"` or `"cuda"`.
        elsewhere: Whether networks train on other machines, so that a GPU need not be here.

    Returns:
        The device.

    Raises:
        ValueError: If the name is unknown or there is no such device.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise ValueError(f"device: expected auto, cpu or cuda, found {name!r}")
    has_gpu = torch.cuda.is_available()
    if name == "cuda" and not (has_gpu or elsewhere):
        raise ValueError("device: cuda was asked for, but torch sees no GPU")
    return torch.device("cuda" if name == "cuda" or (name == "auto" and has_gpu) else "cpu")


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
    """
    shards = []
    for name, architecture in architectures.items():
        row_bytes = 4 * architecture.space.num_params * max(1, job.checkpoints)
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


def finish(out: Path, job: Job, planned: Plan) -> Path:
    """Write constants that are missing, the card and, last, the manifest.

    Args:
        out: Folder of the zoo, with all shards.
        job: The job.
        planned: What the job comes to.

    Returns:
        The folder. A file that an earlier manifest describes otherwise raises ValueError.
    """
    check_described(out, job)
    task = planned.task
    manifest = Manifest(
        config=json.loads(job.as_json()),
        config_sha256=job.sha256,
        task=TaskEntry(
            kind=KIND,
            input_shape=task.input_shape,
            output_shape=(task.num_classes,),
            loss=LOSS,
        ),
        columns=job_columns(job, full_table(job, task, torch.arange(1))),
        paired=True,
        environment={
            "python": platform.python_version(),
            "torch": torch.__version__,
            "machine": platform.machine(),
        },
        populations={name: _population_entry(out, job, name, planned) for name in job.populations},
    )
    write_text(out / CARD_NAME, render_card(out, manifest))
    write_text(out / MANIFEST_NAME, manifest.model_dump_json(indent=1) + "\n")
    return out


def _population_entry(out: Path, job: Job, name: str, planned: Plan) -> PopulationEntry:
    """What the manifest says of a population; constants that are missing are written."""
    architecture = planned.architectures[name]
    constants = _constants_entry(out, job, name, architecture)
    shards = [shard for shard in planned.shards if shard.population == name]
    kept = shards if job.checkpoints else []
    return PopulationEntry(
        architecture=job.populations[name].architecture,
        asymmetry=job.populations[name].asymmetry,
        space=json.loads(architecture.space.to_json()),
        splittings={DEFAULT: default_splitting(job.split.counts(job.count))},
        constants=constants,
        shards={s.path(): _shard_entry(out / s.path(), s.count) for s in shards},
        trajectory={s.path(True): _shard_entry(out / s.path(True), s.count) for s in kept},
    )


def _constants_entry(
    out: Path, job: Job, name: str, architecture: Architecture
) -> ShardEntry | None:
    """The constants of a population, None if it has none; they are written if they are missing."""
    if not architecture.constants:
        return None
    path = out / "constants" / f"{name}.h5"
    if not has_constants(path, name, job):
        tensors = architecture.constants.items()
        arrays = {tensor: np.atleast_1d(value.numpy()) for tensor, value in tensors}
        write_columns(path, arrays, constants_attributes(name, job), equal_rows=False)
    return _shard_entry(path, len(architecture.constants))


def _shard_entry(path: Path, rows: int) -> ShardEntry:
    return ShardEntry(rows=rows, bytes=path.stat().st_size, sha256=sha256(path))
