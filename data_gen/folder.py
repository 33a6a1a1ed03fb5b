"""The folder of a zoo while it is made: whose it is, who writes to it, what is there already."""

import errno
import fcntl
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from data_gen.config import Job
from data_gen.shard import Shard
from zoo.store.atomic import write_text
from zoo.store.bounds import check_bytes, inside, read_json
from zoo.store.manifest import CARD_NAME, MANIFEST_NAME, read_manifest
from zoo.store.mapped import StoreError, open_mapped

JOB_NAME = ".job.json"
_LOCK_NAME = ".lock"
_TEMPORARY = re.compile(
    r"\.(?P<name>.+)\.(?P<pid>\d{1,9})\.[0-9a-f]{8}\.tmp"
)  # as zoo.store.atomic.temporary_path makes them
_OURS = re.compile(
    rf"{re.escape(JOB_NAME)}|{re.escape(CARD_NAME)}|{re.escape(MANIFEST_NAME)}|[a-z0-9_-]+\.h5"
)


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
    return name == _LOCK_NAME or (
        name.startswith(f".{JOB_NAME}.") and _TEMPORARY.fullmatch(name) is not None
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

    Locks are the kernel's, so a killed process holds none. What killed processes have left behind
    is removed.

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
    out.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(
        out / _LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666
    )
    try:
        is_locked = _lock(descriptor, out, number)
        removed = (None if number is None else paths) if is_locked else ()
        try:
            _remove_left_overs(out, removed)
            claim(out, job)
            yield
        finally:
            _remove_left_overs(out, removed)
    finally:
        os.close(descriptor)


def _lock(descriptor: int, out: Path, number: int | None) -> bool:
    """Lock all bytes of the lock file, or the one of a shard; whether there are locks at all."""
    place = (0, 0) if number is None else (1, number)  # length, where 0 is all, and start
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, *place)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            what = "this folder" if number is None else "this folder or this shard"
            advice = "wait until it has ended, or choose another --out"
            raise ValueError(f"{out}: another process writes to {what}; {advice}") from error
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL):
            raise
        print(
            f"{out}: no locks on this file system; "
            "do not run generate-zoo on this folder twice at once",
            file=sys.stderr,
        )
        return False
    return True


def _remove_left_overs(out: Path, paths: Sequence[str] | None) -> None:
    """Remove temporary files of processes that are no more: for certain files, or for all."""
    for path in (*out.glob(".*.tmp"), *out.glob("*/.*.tmp")):
        match = _TEMPORARY.fullmatch(path.name)
        if match and _OURS.fullmatch(match["name"]) and not _is_alive(int(match["pid"])):
            name = str(path.with_name(match["name"]).relative_to(out))
            if paths is None or name in paths:
                path.unlink(missing_ok=True)


def _is_alive(pid: int) -> bool:
    """Whether another process of this machine has this number."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it is somebody else's
        return True
    return pid != os.getpid()


def is_complete(out: Path, shard: Shard, job: Job) -> bool:
    """Whether a shard is on disk, whole and from this job.

    Args:
        out: Folder of the zoo.
        shard: The shard.
        job: The job.

    Returns:
        Whether nothing has to be done for it.
    """
    expected = shard.attributes(job)
    return all(_has_attributes(out / path, expected) for path in shard.paths(job.checkpoints > 0))


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
    return _has_attributes(path, constants_attributes(population, job))


def _has_attributes(path: Path, expected: Mapping[str, str | int]) -> bool:
    try:
        return expected.items() <= open_mapped(path).map.attributes.items()
    except StoreError:
        return False
