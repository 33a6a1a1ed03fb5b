"""The end of a generation: constants, card and manifest of a complete zoo."""

import json
import platform
from pathlib import Path

import numpy as np
import torch

from data_gen.columns import job_columns
from data_gen.config import Job
from data_gen.folder import check_described, constants_attributes, has_constants
from data_gen.planning import Plan
from data_gen.table import full_table
from zoo.architectures.base import Architecture
from zoo.sharing.card import render_card
from zoo.store.atomic import sha256, write_text
from zoo.store.entries import DEFAULT, ShardEntry, TaskEntry, default_splitting
from zoo.store.hdf5 import write_columns
from zoo.store.manifest import CARD_NAME, MANIFEST_NAME, Manifest, PopulationEntry


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
