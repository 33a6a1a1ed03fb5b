"""One zoo from folders of the same job whose shards were made on several machines."""

import json
import shutil
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from pydantic import ValidationError

from data_gen.config import Job
from data_gen.executors.failures import writing_to
from data_gen.finishing import finish
from data_gen.folder import check_described, claimed, differing_keys, is_complete, read_job
from data_gen.generation import missing_shards
from data_gen.integrity.justified import check_mergeable
from data_gen.planning import make_plan
from zoo.store.atomic import atomic_write, sha256
from zoo.writing.shards import Shard


def merge_zoos(out: str | Path, sources: Sequence[str | Path]) -> list[Shard]:
    """Copy complete shards of several folders into one.

    The copy with all shards gets its card and manifest.

    May be run again, with the same folders or with others.

    Args:
        out: Folder of the merged zoo; new, or of the same job.
        sources: Folders of one job, each with some of its shards.

    Returns:
        Shards that no folder has; none if the merged zoo is complete.

    Raises:
        ValueError: If the folders are not of the same job or hold less than a thousandth of its
            networks, two of them have different files for one shard, or the task cannot be loaded.
        FolderError: If the merged folder cannot be written.
    """
    out, folders = Path(out), [Path(source) for source in sources]
    job = _common_job(folders)
    planned = make_plan(job)
    with writing_to(out), claimed(out, job):
        for folder in (out, *folders):
            check_described(folder, job)
        holders = {
            shard: [f for f in (out, *folders) if is_complete(f, shard, job)]
            for shard in planned.shards
        }
        trajectory = job.checkpoints > 0
        for shard, holding in holders.items():
            for path in shard.paths(trajectory):
                _refuse_different_files([folder / path for folder in holding])
        for shard, holding in holders.items():
            if holding and holding[0] != out:
                for path in reversed(shard.paths(trajectory)):
                    _copy(holding[0] / path, out / path)
        missing = missing_shards(job, out, planned)
        if not missing:
            finish(out, job, planned)
        return missing


def _common_job(folders: Sequence[Path]) -> Job:
    """The job of all folders, or an error that names the keys that differ."""
    first, *others = folders
    stored = read_job(first)
    for other in others:
        if keys := differing_keys(stored, read_job(other)):
            raise ValueError(f"{first} and {other} hold different jobs, which differ in {keys}")
    try:
        job = Job.model_validate(stored)
    except ValidationError as error:
        detail = error.errors()[0]
        raise ValueError(
            f"{first}: not a job: {'.'.join(map(str, detail['loc']))}: {detail['msg']}"
        ) from error
    if keys := differing_keys(stored, json.loads(job.as_json())):
        raise ValueError(
            f"{first}: this version of symzoo reads the job in another way, which differs in {keys}"
        )
    check_mergeable(folders, job)
    return job


def _refuse_different_files(paths: Sequence[Path]) -> None:
    """Two files for one shard must be equal in all bytes."""
    for first, other in pairwise(paths):
        if not first.samefile(other) and sha256(first) != sha256(other):
            raise ValueError(
                f"{first} and {other} differ; find out which one is right and remove the other"
            )


def _copy(source: Path, target: Path) -> None:
    """Copy a file; it appears under its name only when it is complete and on disk."""
    with atomic_write(target) as temporary:
        shutil.copyfile(source, temporary)
