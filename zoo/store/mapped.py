"""Open files of unknown origin: their map is checked before any of their data is read."""

import mmap
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
from jaxtyping import Shaped

from zoo.store.file_map import Column, FileMap, FormatError, decode, refuse


class StoreError(ValueError):
    """A file of a zoo that is damaged, unsafe or not what the manifest says."""


class Identity(NamedTuple):
    """What tells an open file from another one that has got its name since."""

    device: int
    inode: int
    size: int
    changed: int

    @classmethod
    def of(cls, descriptor: int) -> "Identity":
        """That of an open file."""
        status = os.fstat(descriptor)
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


class MappedFile(NamedTuple):
    """A file of columns, open: its map has been checked, and its bytes are in the address space.

    Attributes:
        path: The file.
        map: Its attributes and columns.
        data: Its bytes.
        identity: Which file it is.
    """

    path: Path
    map: FileMap
    data: memoryview
    identity: Identity

    @property
    def columns(self) -> Mapping[str, Column]:
        """Its columns by name, in its order."""
        return self.map.columns

    def column(self, name: str) -> Column:
        """A column by its name.

        Args:
            name: The name.

        Returns:
            The column.

        Raises:
            StoreError: If there is none.
        """
        if name not in self.columns:
            raise StoreError(f"{self.path}: no column {name!r}; columns are {list(self.columns)}")
        return self.columns[name]

    def check_length(self) -> None:
        """Check that the file was not cut: bytes that are gone read as zeros or kill the process.

        Raises:
            StoreError: If it is shorter than it was.
        """
        if cast(mmap.mmap, self.data.obj).size() < len(self.data):
            raise StoreError(f"{self.path}: the file was cut while it was read")

    def view(self, name: str) -> Shaped[np.ndarray, "..."]:
        """A column as it lies in the file, not copied; of text its codes.

        Args:
            name: Its name.

        Returns:
            Its values, which may not be written to.
        """
        self.check_length()
        column = self.column(name)
        return np.ndarray(column.shape, column.stored, self.data, column.offset)

    def array(self, name: str) -> Shaped[np.ndarray, "..."]:
        """Read a column.

        Args:
            name: Its name.

        Returns:
            A copy of its values; text has object dtype.

        Raises:
            StoreError: If there is no such column, its bytes are not values of its type, or the
                file was cut.
        """
        column, stored = self.column(name), self.view(name)
        with refusals(self.path):
            if column.is_text and int(stored.max()) >= len(column.values):
                refuse(f"{name!r} has a code that stands for no text")
            if column.dtype == "|b1" and stored.view(np.uint8).max() > 1:
                refuse(f"{name!r} holds bytes that are neither False nor True")
        values = stored.copy()
        self.check_length()
        return np.array(column.values, dtype=object)[values] if column.is_text else values


@contextmanager
def refusals(path: Path) -> Iterator[None]:
    """Name the file in what is refused about its bytes.

    Args:
        path: The file.

    Yields:
        Nothing.

    Raises:
        StoreError: Instead of a `FormatError`.
    """
    try:
        yield
    except FormatError as error:
        raise StoreError(f"{path}: {escape(str(error))}") from error


def escape(text: str) -> str:
    r"""A text of unknown origin as a terminal may show it: no line ends, no control characters.

    Args:
        text: Any text.

    Returns:
        The same text where it is printable, escapes elsewhere.

    >>> escape(chr(27) + "[2Jb")
    '\\x1b[2Jb'
    """
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text
    )


def open_mapped(path: Path) -> MappedFile:
    """Open a file of columns of unknown origin and check its map; none of its data is read.

    Args:
        path: The file.

    Returns:
        The file.

    Raises:
        StoreError: If the file is missing or damaged.
    """
    with open_file(path) as descriptor:
        identity = Identity.of(descriptor)
        data = _mapped(descriptor, path)
    with refusals(path):
        return MappedFile(path, decode(data), data, identity)


def map_file(path: Path) -> memoryview:
    """Map a regular file.

    Args:
        path: The file.

    Returns:
        Its bytes.
    """
    with open_file(path) as descriptor:
        return _mapped(descriptor, path)


@contextmanager
def open_file(path: Path) -> Iterator[int]:
    """Open a regular file; a pipe, a device or a folder is refused without waiting for it.

    Args:
        path: The file.

    Yields:
        Its descriptor.

    Raises:
        StoreError: If the file is missing, empty, cannot be read, or is not a regular file.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise StoreError(f"{path}: the file is missing") from error
    except OSError as error:
        raise StoreError(f"{path}: cannot be read ({error.strerror})") from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or not status.st_size:
            raise StoreError(f"{path}: empty, or not a regular file; generate it again")
        yield descriptor
    finally:
        os.close(descriptor)


def _mapped(descriptor: int, path: Path) -> memoryview:
    try:
        return memoryview(mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ))
    except OSError as error:  # the file is not at fault
        size = os.fstat(descriptor).st_size
        why = f"{error.strerror}, to map {size} bytes (ulimit -v?)"
        raise OSError(error.errno, why, str(path)) from error
