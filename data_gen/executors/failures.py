"""What can go wrong while a zoo is generated, in words that say what to do."""

import errno
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

# Errors that no other shard would escape: the folder takes no more files.
_FOLDER_ERRORS = {
    errno.ENOSPC: "no space left on the disk; free some and run the same command again",
    errno.EDQUOT: "the disk quota is used up; free some space and run the same command again",
    errno.EROFS: "the file system is read-only; make it writable or choose another folder",
    errno.EACCES: "no permission to write; change the permissions or choose another folder",
    errno.EPERM: "no permission to write; change the permissions or choose another folder",
    errno.ENOTDIR: "a part of the path is a file, not a folder; choose another folder",
}
_MOST_NAMED = 10


class FolderError(OSError):
    """The folder of a zoo that cannot be written; the message is one line that says what to do."""


class NoProcess(RuntimeError):
    """Not one process can be started, though items wait."""


class MissingShards(RuntimeError):
    """Shards that are not there at the end; the others are kept. Its notes are traces of errors."""


@dataclass(frozen=True)
class Failure:
    """Why a shard could not be made.

    Attributes:
        reason: In one line.
        trace: Where it happened, for an error of the code; empty for one that a user can mend.
        errno: Number of the system's error if the folder takes no more files, or 0.
    """

    reason: str
    trace: str = ""
    errno: int = 0


def failure_of(error: Exception) -> Failure:
    """What to remember of an exception; all of it can be sent to another process.

    Args:
        error: The exception, with its trace.

    Returns:
        The failure.
    """
    lines = str(error).strip().splitlines() or [""]
    if isinstance(error, OSError) and error.errno in _FOLDER_ERRORS:
        named = f" ({error})" if error.filename else ""
        return Failure(f"{_FOLDER_ERRORS[error.errno]}{named}", errno=error.errno)
    if isinstance(error, (ValueError, OSError)):
        return Failure(lines[0])
    return Failure(
        f"{type(error).__name__}: {lines[0]}", "".join(traceback.format_exception(error))
    )


@contextmanager
def writing_to(out: Path) -> Iterator[None]:
    """Turn errors of a full, read-only or forbidden folder into one line.

    Args:
        out: Folder of the zoo.

    Yields:
        Nothing.

    Raises:
        FolderError: If the folder takes no files.
        OSError: If the system has another error.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _FOLDER_ERRORS:
            raise
        raise FolderError(f"{out}: {_FOLDER_ERRORS[error.errno]}") from error


def raise_for_missing(
    out: Path, total: int, missing: list[str], failures: Mapping[str, Failure]
) -> None:
    """End with an error that names the shards that are not there, and why.

    Args:
        out: Folder of the zoo.
        total: Number of all shards.
        missing: Paths of those that are not there.
        failures: By path, why.

    Raises:
        FolderError: If shards are missing because the folder takes no files.
        MissingShards: If shards are missing for another reason.
    """
    if not missing:
        return
    count = f"{len(missing)} of {total} shards are missing"
    for failure in failures.values():
        if failure.errno:
            raise FolderError(f"{out}: {failure.reason} ({count}, the others are kept)")
    lines = [f"{out}: {count}; the others are kept, run the same command again:"]
    for path in missing[:_MOST_NAMED]:
        lines.append(f"  {path}: {failures[path].reason if path in failures else 'not made'}")
    if len(missing) > _MOST_NAMED:
        lines.append(f"  and {len(missing) - _MOST_NAMED} more")
    error = MissingShards("\n".join(lines))
    for trace in dict.fromkeys(failure.trace for failure in failures.values() if failure.trace):
        error.add_note(trace)
    raise error
