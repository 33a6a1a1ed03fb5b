"""Folders that appear whole or not at all."""

import os
from pathlib import Path


def check_new(out: Path) -> None:
    """Refuse a folder that holds something.

    Args:
        out: Folder that will be made.

    Raises:
        ValueError: If it is anything but missing or empty.
    """
    if out.is_symlink() or (out.exists() and (not out.is_dir() or any(out.iterdir()))):
        raise ValueError(f"{out}: expected a folder that is new or empty; choose another")


def publish_folder(temporary: Path, out: Path) -> None:
    """Move a finished folder to its name so that a crash leaves either all of it or nothing.

    Args:
        temporary: The finished folder, beside the other.
        out: Its name from now on; missing or empty.
    """
    for path in (*temporary.rglob("*"), temporary):
        _flush(path)
    temporary.replace(out)
    _flush(out.parent)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
