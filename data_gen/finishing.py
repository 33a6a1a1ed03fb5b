"""The end of a generation: constants, card and manifest of a complete zoo."""

import json
from pathlib import Path

import torch

from data_gen.columns import job_columns
from data_gen.config import Job
from data_gen.folder import check_described, constants_attributes, has_constants
from data_gen.planning import Plan
from data_gen.table import full_table
from zoo.architectures.base import Architecture
from zoo.store.entries import DEFAULT, ShardEntry, TaskEntry, default_splitting
from zoo.store.manifest import Manifest, PopulationEntry
from zoo.writing.finishing import environment, file_entry, write_constants, write_manifest


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
            kind=task.told_kind,
            input_shape=task.told_inputs,
            output_shape=task.output_shape,
            loss=task.loss.name,
        ),
        columns=job_columns(job, task.kind, full_table(job, task, torch.arange(1))),
        paired=True,
        environment=environment(),
        populations={name: _population_entry(out, job, name, planned) for name in job.populations},
    )
    write_manifest(out, manifest)
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
        shards={s.path(): file_entry(out / s.path(), s.count) for s in shards},
        trajectory={s.path(True): file_entry(out / s.path(True), s.count) for s in kept},
    )


def _constants_entry(
    out: Path, job: Job, name: str, architecture: Architecture
) -> ShardEntry | None:
    """The constants of a population, None if it has none; they are written if they are missing."""
    if not architecture.constants:
        return None
    path = out / "constants" / f"{name}.h5"
    if not has_constants(path, name, job):
        write_constants(path, architecture.constants, constants_attributes(name, job))
    return file_entry(path, len(architecture.constants))
