"""Files and folders that appear whole or not at all."""

import errno
import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Write a file or a folder; it has its name only when all of it is on disk.

    Args:
        path: Its name; the folder around it is made if it is missing.

    Yields:
        A temporary name beside it, to write to. It is removed if the block fails.

    Raises:
        OSError: If the disk is full, the message says so; or of another error of the system.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_path(path)
    try:
        yield temporary
        publish(temporary, path)
    except BaseException as error:
        _remove(temporary)
        number = _system_error(error)
        if number == errno.ENOSPC:
            raise OSError(
                errno.ENOSPC, f"no space left on the disk for {path}; free some and run again"
            ) from error
        if number is None or isinstance(error, OSError):
            raise
        raise OSError(number, f"{path}: {error}") from error


def _system_error(error: BaseException) -> int | None:
    """Number of an error of the system, which libraries in Rust have in their words."""
    if isinstance(error, OSError):
        return error.errno
    words = re.search(r"\(os error (\d+)\)$", str(error))
    return int(words[1]) if words else None


def temporary_path(path: Path) -> Path:
    """A hidden name beside a file for writing it; no process of any machine has the same.

    Args:
        path: The file.

    Returns:
        `.<name>.<process id>.<8 hexadecimal digits>.tmp`.
    """
    return path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")


def publish(temporary: Path, path: Path) -> None:
    """Move what is finished to its name so that a crash leaves either all of it or nothing.

    Args:
        temporary: The finished file or folder, on the same disk.
        path: Its name from now on; an older file is replaced, a folder must be missing or empty.
    """
    for part in (*temporary.rglob("*"), temporary):
        _flush(part)
    temporary.replace(path)
    _flush(path.parent)


def write_text(path: Path, text: str) -> None:
    """Write a small text file whole or not at all.

    Args:
        path: Where it goes.
        text: Its content, stored as UTF-8.
    """
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def check_new(out: Path) -> None:
    """Refuse a folder that holds something.

    Args:
        out: Folder that will be made.

    Raises:
        ValueError: If it is anything but missing or empty.
    """
    if out.is_symlink() or (out.exists() and (not out.is_dir() or any(out.iterdir()))):
        raise ValueError(f"{out}: expected a folder that is new or empty; choose another")


def sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(temporary: Path) -> None:
    if temporary.is_dir() and not temporary.is_symlink():
        shutil.rmtree(temporary, ignore_errors=True)
    else:
        temporary.unlink(missing_ok=True)
