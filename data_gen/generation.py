"""Generating a zoo: what is missing is made, and nothing is made twice."""

from collections.abc import Sequence
from dataclasses import replace
from operator import attrgetter, methodcaller
from pathlib import Path

import torch

from data_gen.config import Job
from data_gen.executors.executor import Executor, InThisProcess
from data_gen.executors.failures import raise_for_missing, writing_to
from data_gen.executors.local import LocalProcesses
from data_gen.executors.progress import show_progress
from data_gen.finishing import finish
from data_gen.folder import check_described, check_owner, claimed, is_complete
from data_gen.planning import Plan, make_plan
from data_gen.shard import ShardWorker
from data_gen.training.compilation import compiler_works
from zoo.imports import allow
from zoo.options import Count, Natural, checked
from zoo.writing.shards import Shard


@checked
def generate(
    job: Job,
    out: str | Path,
    device: str = "auto",
    workers: Natural = 0,
    chunk_size: Count | None = None,
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
    allow(job.code)
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
    allow(job.code)
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
