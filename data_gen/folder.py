"""The folder of a zoo while it is made: whose it is, who writes to it, what is there already."""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from data_gen.config import Job
from zoo.store.atomic import write_text
from zoo.store.bounds import check_bytes, inside, read_json
from zoo.store.manifest import MANIFEST_NAME, read_manifest
from zoo.store.mapped import StoreError
from zoo.writing.claims import LOCK_NAME, TEMPORARY, locked
from zoo.writing.shards import Shard, has_attributes

JOB_NAME = ".job.json"


def check_owner(out: Path, job: Job) -> None:
    """Check that a folder is new, or that of the same job; nothing is written.

    Args:
        out: The folder.
        job: The job.

    Raises:
        ValueError: If the folder holds another job, or anything else, or a link that leads out of
            it, which no reader would follow.
    """
    if out.is_symlink() and not out.exists():
        raise ValueError(f"{out}: a link to nothing; choose another --out or remove it")
    for path in out.iterdir() if out.is_dir() else ():
        inside(out, path.name)
    if (out / JOB_NAME).is_file():
        keys = differing_keys(read_job(out), json.loads(job.as_json()))
        if keys:
            raise ValueError(
                f"{out} holds another job, which differs in {keys}; "
                "choose another --out or remove the folder"
            )
    elif out.exists() and (
        not out.is_dir() or not all(_is_ours(path.name) for path in out.iterdir())
    ):
        raise ValueError(f"{out} exists and is not a zoo of this job; choose another --out")


def _is_ours(name: str) -> bool:
    """Whether a run killed before it wrote `.job.json` may have left a file of this name."""
    return name == LOCK_NAME or (
        name.startswith(f".{JOB_NAME}.") and TEMPORARY.fullmatch(name) is not None
    )


def claim(out: Path, job: Job) -> None:
    """Make the folder of a zoo with the record of its job, or check that it is of the same job.

    Args:
        out: The folder.
        job: The job.

    Raises:
        ValueError: If the folder holds another job, or anything else.
    """
    check_owner(out, job)
    if not (out / JOB_NAME).is_file():
        write_text(out / JOB_NAME, job_record(job))


def job_record(job: Job) -> str:
    """The job as JSON text, everything in the order that the manifest has."""
    return json.dumps(job.model_dump(mode="json", exclude_none=True))


def read_job(out: Path) -> dict[str, object]:
    """The record of the job that a folder belongs to.

    Args:
        out: The folder.

    Returns:
        The job as it was stored; not checked in any way.

    Raises:
        ValueError: If there is none, or it is not JSON.
    """
    marker = out / JOB_NAME
    if not os.path.lexists(marker):
        raise ValueError(f"{out}: not a folder of generate-zoo, {JOB_NAME} is missing")
    try:
        job = json.loads(read_json(marker, "the record of a job"))
    except ValueError as error:
        raise ValueError(f"{error}; it was not written by generate-zoo") from error
    if not isinstance(job, dict):
        raise ValueError(f"{marker}: expected a JSON object, found {type(job).__name__}")
    return job


def differing_keys(job: dict[str, object], other: dict[str, object]) -> list[str]:
    """Keys in which two jobs differ, in order of the alphabet."""
    missing = object()
    return sorted(key for key in {*job, *other} if job.get(key, missing) != other.get(key, missing))


@contextmanager
def claimed(
    out: Path, job: Job, number: int | None = None, paths: Sequence[str] = ()
) -> Iterator[None]:
    """Make the folder of a zoo or check whose it is, and keep others from writing to it meanwhile.

    Args:
        out: The folder.
        job: The job.
        number: The only shard that is going to be made, so that others may make other shards; None
            for the whole folder.
        paths: Files of that shard, relative to the folder.

    Yields:
        Nothing.

    Raises:
        ValueError: If the folder holds another job, or anything else, or another process writes to
            it.
    """
    check_owner(out, job)
    with locked(out, number, paths):
        claim(out, job)
        yield


def is_complete(out: Path, shard: Shard, job: Job) -> bool:
    """Whether a shard is on disk, whole and from this job.

    Args:
        out: Folder of the zoo.
        shard: The shard.
        job: The job.

    Returns:
        Whether nothing has to be done for it.
    """
    expected = shard.attributes(job.sha256)
    return all(has_attributes(out / path, expected) for path in shard.paths(job.checkpoints > 0))


def check_described(out: Path, job: Job) -> None:
    """Check that files which are there are those that the manifest describes, byte for byte.

    A damaged file must not be taken for done, or the manifest would get its hash.

    Args:
        out: The folder.
        job: The job.

    Raises:
        ValueError: If there is a manifest of this job and a file is not the one that it describes.
    """
    try:
        manifest = read_manifest(out)
    except StoreError:
        return
    if manifest.config_sha256 != job.sha256:
        return
    for path, entry in manifest.entries().items():
        if os.path.lexists(out / path):
            try:
                check_bytes(out, path, entry)
            except StoreError as error:
                raise ValueError(
                    f"{error} ({MANIFEST_NAME} describes another file; run symzoo repair {out})"
                ) from error


def constants_attributes(population: str, job: Job) -> dict[str, str | int]:
    """Metadata of the file with the constants of a population."""
    return {"population": population, "config_sha256": job.sha256}


def has_constants(path: Path, population: str, job: Job) -> bool:
    """Whether the constants of a population are on disk, whole and from this job.

    Args:
        path: Their file.
        population: Name of the population.
        job: The job.

    Returns:
        Whether nothing has to be done for them.
    """
    return has_attributes(path, constants_attributes(population, job))
