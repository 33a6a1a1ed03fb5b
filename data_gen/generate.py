"""Generate a zoo: plan its shards, make those that are missing, then write card and manifest."""

import json
import platform
from collections.abc import Sequence
from math import ceil
from pathlib import Path

import torch

from data_gen.chunking import compiler_works
from data_gen.config import Job
from data_gen.executors import run_here, run_in_processes
from data_gen.shard import Shard, Worker, build_population
from data_gen.tasks import Task, load_task
from zoo.architectures.base import Architecture
from zoo.card import card
from zoo.manifest import MANIFEST_NAME, Manifest, PopulationEntry, ShardEntry
from zoo.store import StoreError, read_attributes, sha256, write_columns, write_text

_JOB_NAME = ".job.json"
_MAX_SHARD_BYTES = 256 * 10**6


def generate(
    job: Job,
    out: str | Path,
    device: str = "auto",
    workers: int = 0,
    chunk_size: int | None = None,
    compile: bool = True,
    quiet: bool = False,
) -> Path:
    """Generate a zoo, or go on with one that was interrupted.

    Args:
        job: What to generate.
        out: Folder of the zoo; new, or from an earlier run of the same job.
        device: `"auto"`, `"cpu"` or `"cuda"`.
        workers: Processes to spawn; 0 trains in this process.
        chunk_size: Networks in lock step, at most; by memory if None.
        compile: Whether steps may be compiled where it pays.
        quiet: Whether to show no progress.

    Returns:
        The folder.

    Raises:
        ValueError: If the job does not fit its task, the device is not there, or the folder holds something else.
    """
    out = Path(out)
    place = choose_device(device)
    task = load_task(job.task)
    architectures = {name: build_population(job, name, task) for name in job.populations}
    claim(out, job)
    for name, architecture in architectures.items():
        _write_constants(out, name, architecture, job)
    shards = plan(job, architectures)
    missing = [shard for shard in shards if not is_complete(out, shard, job)]
    worker = Worker(job, out, place, chunk_size)
    if missing and compile and worker.compilation_pays and compiler_works(place):
        worker = Worker(job, out, place, chunk_size, allow_compile=True)
    if missing and workers:
        run_in_processes(worker, missing, workers, quiet)
    elif missing:
        run_here(worker, missing, quiet)
    return finish(out, job, task, architectures, shards)


def choose_device(name: str) -> torch.device:
    """The device to train on.

    Args:
        name: `"auto"` (a GPU where there is one), `"cpu"` or `"cuda"`.

    Returns:
        The device.

    Raises:
        ValueError: If the name is unknown or there is no such device.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise ValueError(f"device: expected auto, cpu or cuda, found {name!r}")
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("device: cuda was asked for, but torch sees no GPU")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def claim(out: Path, job: Job) -> None:
    """Make the folder of a zoo, or check that it belongs to the same job.

    Args:
        out: The folder.
        job: The job.

    Raises:
        ValueError: If the folder holds another job, or anything else.
    """
    marker = out / _JOB_NAME
    if marker.is_file():
        other = json.loads(marker.read_text(encoding="utf-8"))
        if other != json.loads(job.as_json()):
            keys = sorted(k for k in {*other, *json.loads(job.as_json())} if other.get(k) != json.loads(job.as_json()).get(k))
            raise ValueError(f"{out} holds another job, which differs in {keys}; choose another --out or remove the folder")
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} exists and is not a zoo of this job; choose another --out")
    else:
        out.mkdir(parents=True, exist_ok=True)
        write_text(marker, job.as_json())


def plan(job: Job, architectures: dict[str, Architecture]) -> list[Shard]:
    """All shards of a job; a function of the job alone.

    Args:
        job: The job.
        architectures: Architecture of each population.

    Returns:
        Shards with at most `shard_size` networks and 256 MB each, the networks of a split spread evenly.
    """
    shards = []
    for name, architecture in architectures.items():
        row_bytes = 4 * architecture.space.num_params * max(1, job.checkpoints)
        most = max(1, min(job.shard_size, _MAX_SHARD_BYTES // row_bytes))
        start = 0
        for split, count in job.split.counts(job.count).items():
            of = ceil(count / most)
            bounds = [start + round(k * count / of) for k in range(of + 1)] if of else []
            shards += [Shard(name, split, k, of, bounds[k], bounds[k + 1]) for k in range(of)]
            start += count
    return shards


def is_complete(out: Path, shard: Shard, job: Job) -> bool:
    """Whether a shard is on disk, whole and from this job.

    Args:
        out: Folder of the zoo.
        shard: The shard.
        job: The job.

    Returns:
        Whether nothing has to be done for it.
    """
    expected = {"population": shard.population, "split": shard.split, "shard": shard.number, "config_sha256": job.sha256}
    for trajectory in (False, True) if job.checkpoints else (False,):
        path = out / shard.path(trajectory)
        if not path.is_file():
            return False
        try:
            found = read_attributes(path)
        except StoreError:
            return False
        if any(found.get(name) != value for name, value in expected.items()):
            return False
    return True


def _write_constants(out: Path, name: str, architecture: Architecture, job: Job) -> None:
    path = out / "constants" / f"{name}.h5"
    if architecture.constants and not path.is_file():
        arrays = {key: tensor.numpy() for key, tensor in architecture.constants.items()}
        write_columns(path, arrays, {"population": name, "config_sha256": job.sha256}, equal_rows=False)


def finish(out: Path, job: Job, task: Task, architectures: dict[str, Architecture], shards: Sequence[Shard]) -> Path:
    """Write the card and, last, the manifest.

    Args:
        out: Folder of the zoo.
        job: The job.
        task: Its task.
        architectures: Architecture of each population.
        shards: All shards, complete.

    Returns:
        The folder.
    """

    def entry(path: Path, rows: int) -> ShardEntry:
        return ShardEntry(rows=rows, bytes=path.stat().st_size, sha256=sha256(path))

    populations = {}
    for name, architecture in architectures.items():
        own = [shard for shard in shards if shard.population == name]
        constants = out / "constants" / f"{name}.h5"
        kept = own if job.checkpoints else []
        populations[name] = PopulationEntry(
            architecture=job.populations[name].architecture,
            asymmetry=job.populations[name].asymmetry,
            space=json.loads(architecture.space.to_json()),
            hyperparameters=tuple(job.hyperparameters),
            constants=entry(constants, len(architecture.constants)) if architecture.constants else None,
            shards={s.path(): entry(out / s.path(), s.stop - s.start) for s in own},
            trajectory={s.path(True): entry(out / s.path(True), s.stop - s.start) for s in kept},
        )
    manifest = Manifest(
        config=json.loads(job.as_json()),
        config_sha256=job.sha256,
        input_shape=task.input_shape,
        num_classes=task.num_classes,
        split=job.split.counts(job.count),
        environment={"python": platform.python_version(), "torch": torch.__version__, "machine": platform.machine()},
        populations=populations,
    )
    write_text(out / "README.md", card(out, manifest))
    write_text(out / MANIFEST_NAME, manifest.model_dump_json(indent=1) + "\n")
    return out
