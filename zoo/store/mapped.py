"""Open files of unknown origin: all of their structure is checked before any of their data is read."""

import mmap
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Shaped

from zoo.hdf5 import TEXT, Column, Structure, parse
from zoo.hdf5_blocks import FormatError, refuse


class StoreError(ValueError):
    """A file of a zoo that is damaged, unsafe or not what the manifest says."""


class Checked(NamedTuple):
    """A file whose whole structure has been checked.

    Attributes:
        path: The file.
        structure: Its attributes and columns.
        data: Its bytes, mapped.
    """

    path: Path
    structure: Structure
    data: memoryview

    @property
    def columns(self) -> Mapping[str, Column]:
        """Its columns by name, in its order."""
        return self.structure.columns

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

    def array(self, name: str) -> Shaped[np.ndarray, "..."]:
        """Read a column.

        Args:
            name: Its name.

        Returns:
            A copy of its values; text has object dtype.

        Raises:
            StoreError: If there is no such column, or its bytes are not values of its type.
        """
        column = self.column(name)
        raw = self.data[column.offset : column.offset + column.length]
        with refusals(self.path):
            if column.dtype == TEXT:
                return np.array(self.structure.heap.texts(raw, repr(name)), dtype=object)
            if column.dtype == "|b1" and np.frombuffer(raw, np.uint8).max() > 1:
                refuse(f"{name!r} holds bytes that are neither False nor True")
        return np.frombuffer(raw, column.dtype).reshape(column.shape).copy()


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
        raise StoreError(f"{path}: {error}") from error


def open_checked(path: Path) -> Checked:
    """Open an HDF5 file of unknown origin and check all of its structure; none of its data is read.

    Args:
        path: The file.

    Returns:
        The file.

    Raises:
        StoreError: If the file is missing, damaged, or holds anything but plain contiguous columns.
    """
    data = map_file(path)
    with refusals(path):
        return Checked(path, parse(data), data)


def map_file(path: Path) -> memoryview:
    """Map a regular file; anything else (a pipe, a device, a folder) is refused without waiting for it.

    Args:
        path: The file.

    Returns:
        Its bytes.

    Raises:
        StoreError: If the file is missing, empty, cannot be read, or is not a regular file.
        OSError: If there is not as much address space.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except FileNotFoundError as error:
        raise StoreError(f"{path}: the file is missing") from error
    except OSError as error:
        raise StoreError(f"{path}: cannot be read ({error.strerror})") from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or not status.st_size:
            raise StoreError(f"{path}: empty, or not a regular file; generate it again")
        try:
            return memoryview(mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ))
        except OSError as error:  # the file is not at fault
            raise OSError(
                error.errno,
                f"{error.strerror}, to map {status.st_size} bytes (ulimit -v?)",
                str(path),
            ) from error
    finally:
        os.close(descriptor)
