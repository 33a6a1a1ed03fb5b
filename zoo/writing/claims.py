"""The folder of a zoo while it is written: one process at a time, and nothing left of dead ones."""

import errno
import fcntl
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

LOCK_NAME = ".lock"
TEMPORARY = re.compile(
    r"\.(?P<name>.+)\.(?P<pid>\d{1,9})\.[0-9a-f]{8}\.tmp"
)  # as zoo.store.atomic.temporary_path makes them
_OURS = re.compile(r"\.(job|write)\.json|README\.md|zoo\.json|[a-z0-9_-]+\.h5")


@contextmanager
def locked(out: Path, number: int | None = None, paths: Sequence[str] = ()) -> Iterator[None]:
    """Make a folder, and keep others from writing to it meanwhile.

    Locks are the kernel's, so a killed process holds none. What killed processes have left behind
    is removed.

    Args:
        out: The folder.
        number: The only shard that is going to be made, so that others may make other shards; None
            for the whole folder.
        paths: Files of that shard, relative to the folder.

    Yields:
        Nothing.

    Raises:
        ValueError: If another process writes to it.
    """
    out.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(
        out / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666
    )
    try:
        is_locked = _lock(descriptor, out, number)
        removed = (None if number is None else paths) if is_locked else ()
        try:
            _remove_left_overs(out, removed)
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
        match = TEMPORARY.fullmatch(path.name)
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
