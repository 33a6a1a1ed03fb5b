"""HDF5 shards: write them whole or not at all, check them before any data is read, read them at raw speed.

A shard holds one dataset for each column at its root, contiguous and little-endian, without filters, so that Hugging Face
`datasets` loads it as it is and a bulk read is one read of the file. Nothing but this file imports h5py.
"""

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import torch
from jaxtyping import Shaped
from torch import Tensor

FORMAT_VERSION = 1
MAX_RANK = 6
_OVERHEAD = 10**6  # bytes of headers and metadata of a file, generously
_DTYPES = tuple(np.dtype(code) for code in ("<f4", "<f8", "<i4", "<i8", "|u1", "|b1"))

Columns = Mapping[str, Shaped[np.ndarray, "..."]]


class StoreError(ValueError):
    """A file of a zoo that is damaged, unsafe or not what the manifest says."""


def write_columns(path: Path, columns: Columns, attributes: Mapping[str, str | int], equal_rows: bool = True) -> None:
    """Write one HDF5 file; it appears under its name only when it is complete and on disk.

    Args:
        path: Where the file goes; its folder is made if it is missing.
        columns: Arrays by name: numbers, booleans, or text (object or str dtype), at least one axis each.
        attributes: Metadata of the file.
        equal_rows: Whether all columns must have the same first axis, as a table does.

    Raises:
        ValueError: If a column cannot be stored in the format.
        OSError: If the disk is full or the folder cannot be written; no file is left under the name.
    """
    rows = {name: len(array) if array.ndim else 0 for name, array in columns.items()}
    if not columns or 0 in rows.values() or (equal_rows and len(set(rows.values())) != 1):
        raise ValueError(f"{path}: expected columns with equally many rows, at least one, got {rows}")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        _check_room(path, columns)
        with h5py.File(temporary, "w", libver="v110", track_order=True) as file:
            file.attrs["format_version"] = FORMAT_VERSION
            for name, value in attributes.items():
                file.attrs[name] = value
            for name, array in columns.items():
                _write_column(file, name, array)
        publish(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise OSError(errno.ENOSPC, f"no space left on the disk for {path}; free some and run again") from error
        raise


def _check_room(path: Path, columns: Columns) -> None:
    # HDF5 crashes the process when the disk fills up under a column of text, so a disk that is too small is refused before.
    sizes = [array.nbytes if array.dtype.kind != "O" else array.astype(str).nbytes for array in columns.values()]
    if shutil.disk_usage(path.parent).free < sum(sizes) + _OVERHEAD:
        raise OSError(errno.ENOSPC, "no space left on the disk")


def _write_column(file: h5py.File, name: str, array: Shaped[np.ndarray, "..."]) -> None:
    if "/" in name or name in ("", "."):
        raise ValueError(f"column {name!r}: expected a name without '/', HDF5 would make groups of it")
    if array.dtype.kind in "OU":
        file.create_dataset(name, data=array.astype(object), dtype=h5py.string_dtype("utf-8"), track_times=False)
        return
    stored = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    if stored.dtype not in _DTYPES or stored.ndim > MAX_RANK:
        raise ValueError(
            f"column {name!r}: expected dtype in {_DTYPES} and rank <= {MAX_RANK}, got {array.dtype}, {array.ndim}"
        )
    file.create_dataset(name, data=stored, track_times=False)


def publish(temporary: Path, path: Path) -> None:
    """Move a finished file to its name so that a crash leaves either all of it or nothing.

    Args:
        temporary: The finished file, in the same folder.
        path: Its name from now on.
    """
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_text(path: Path, text: str) -> None:
    """Write a small text file whole or not at all.

    Args:
        path: Where it goes.
        text: Its content, stored as UTF-8.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        publish(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def open_checked(path: Path) -> Iterator[h5py.File]:
    """Open an HDF5 file of unknown origin; nothing is read from its datasets before all of them have been checked.

    Args:
        path: The file.

    Yields:
        The open file.

    Raises:
        StoreError: If the file is missing, truncated, or holds anything but plain contiguous columns.
    """
    try:
        file = h5py.File(path, "r")
    except FileNotFoundError as error:
        raise StoreError(f"{path}: the file is missing") from error
    except OSError as error:
        raise StoreError(f"{path}: not a complete HDF5 file ({error}); generate it again") from error
    with file:
        found = file.attrs.get("format_version")
        if isinstance(found, np.ndarray) or found != FORMAT_VERSION:
            raise StoreError(f"{path}: expected format_version {FORMAT_VERSION}, found {found}")
        for name in file:
            _check_column(path, file, str(name))
        yield file


def _check_column(path: Path, file: h5py.File, name: str) -> None:
    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        raise StoreError(f"{path}: {name!r} is a soft or external link; only hard links are allowed")
    dataset = file[name]
    if not isinstance(dataset, h5py.Dataset):
        raise StoreError(f"{path}: {name!r} is a group; expected datasets at the root")
    properties = dataset.id.get_create_plist()
    if properties.get_layout() != h5py.h5d.CONTIGUOUS or properties.get_external_count() or properties.get_nfilters():
        raise StoreError(f"{path}: {name!r} must be contiguous, without filters, inside the file")
    is_text = h5py.check_string_dtype(dataset.dtype) is not None
    if not is_text and dataset.dtype not in _DTYPES:
        raise StoreError(f"{path}: {name!r} has dtype {dataset.dtype}; expected one of {_DTYPES} or text")
    if not 1 <= dataset.ndim <= MAX_RANK:
        raise StoreError(f"{path}: {name!r} has rank {dataset.ndim}; expected 1 to {MAX_RANK}")
    if dataset.nbytes and (dataset.id.get_offset() or 0) + dataset.nbytes > path.stat().st_size:
        raise StoreError(f"{path}: {name!r} declares {dataset.nbytes} bytes, more than the file holds")


def read_attributes(path: Path) -> dict[str, str | int]:
    """The metadata of a checked file.

    Args:
        path: The file.

    Returns:
        Texts and integers by name; attributes of other kinds are left out.
    """
    with open_checked(path) as file:
        scalars = {name: value for name, value in file.attrs.items() if isinstance(value, (str, np.integer))}
        return {name: value if isinstance(value, str) else int(value) for name, value in scalars.items()}


def read_columns(paths: Sequence[Path], names: Sequence[str] | None = None) -> dict[str, Shaped[np.ndarray, "..."]]:
    """Read columns of checked files, rows of one file after those of the one before it.

    Args:
        paths: Files with the same columns.
        names: Columns to read, all of the first file if None.

    Returns:
        Arrays by name; text columns have object dtype.

    Raises:
        StoreError: If a file is not what it should be, or has no such column.
    """
    parts: dict[str, list[Shaped[np.ndarray, "..."]]] = {}
    for path in paths:
        with open_checked(path) as file:
            for name in names if names is not None else list(file):
                dataset = _column(path, file, name)
                is_text = h5py.check_string_dtype(dataset.dtype) is not None
                parts.setdefault(name, []).append(np.asarray(dataset.asstr()[()] if is_text else dataset[()]))
    return {name: np.concatenate(arrays) if len(arrays) > 1 else arrays[0] for name, arrays in parts.items()}


def read_tensors(paths: Sequence[Path], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Read float32 columns of many files straight into one tensor each.

    Args:
        paths: Checked before they are read; rows of one file after those of the one before it.
        shapes: Shape of each column without its rows.

    Returns:
        Tensors `[rows, *shape]`.

    Raises:
        StoreError: If a file is not what it should be, or a column is missing or has another shape or dtype.
    """
    rows = []
    for path in paths:
        with open_checked(path) as file:
            count = None
            for name, shape in shapes.items():
                dataset = _column(path, file, name)
                count = dataset.shape[0] if count is None else count
                if dataset.shape != (count, *shape) or dataset.dtype != np.dtype("<f4"):
                    expected = f"shape {[count, *shape]} float32"
                    found = f"{list(dataset.shape)} {dataset.dtype}"
                    raise StoreError(f"{path}: {name!r}: expected {expected}, found {found}")
            rows.append(count or 0)
    tensors = {name: torch.empty((sum(rows), *shape)) for name, shape in shapes.items()}
    start = 0
    for path, count in zip(paths, rows, strict=True):
        with h5py.File(path, "r") as file:  # checked above
            for name, tensor in tensors.items():
                _column(path, file, name).read_direct(tensor.numpy()[start : start + count])
        start += count
    return tensors


def _column(path: Path, file: h5py.File, name: str) -> h5py.Dataset:
    dataset = file.get(name)
    if not isinstance(dataset, h5py.Dataset):
        raise StoreError(f"{path}: no column {name!r}; columns are {list(file)}")
    return dataset


def sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
