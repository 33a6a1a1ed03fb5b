"""HDF5 shards: write them whole or not at all, check them before any data is read, read them at raw speed.

A shard holds one dataset for each column at its root, contiguous and little-endian, without filters, so that Hugging Face
`datasets` loads it as it is and a bulk read is one read of the file. Nothing but this file imports h5py.
"""

import errno
import hashlib
import math
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

FORMAT_VERSION = 1
MAX_RANK = 6
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
    temporary = temporary_path(path)
    try:
        # Made in memory: HDF5 crashes the process when a disk fills up under a column of text.
        with h5py.File(temporary, "w", driver="core", backing_store=False, libver="v110", track_order=True) as file:
            file.attrs["format_version"] = FORMAT_VERSION
            for name, value in attributes.items():
                file.attrs[name] = value
            for name, array in columns.items():
                _write_column(file, name, array)
            file.flush()
            temporary.write_bytes(file.id.get_file_image())
        publish(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise OSError(errno.ENOSPC, f"no space left on the disk for {path}; free some and run again") from error
        raise


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


def temporary_path(path: Path) -> Path:
    """A hidden name beside a file for writing it; no other process has it, on this or any other machine.

    Args:
        path: The file.

    Returns:
        `.<name>.<process id>.<8 hexadecimal digits>.tmp`.
    """
    return path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")


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
    temporary = temporary_path(path)
    try:
        temporary.write_text(text, encoding="utf-8")
        publish(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


class Checked(NamedTuple):
    """An open file whose columns have all been checked; usable inside `open_checked` only."""

    attributes: Mapping[str, Any]
    columns: dict[str, h5py.Dataset]


@contextmanager
def open_checked(path: Path) -> Iterator[Checked]:
    """Open an HDF5 file of unknown origin; nothing is read from its datasets before all of them have been checked.

    Args:
        path: The file.

    Yields:
        The open file's attributes and columns.

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
        size = path.stat().st_size
        yield Checked(file.attrs, {str(name): _check_column(path, size, file, str(name)) for name in file})


def _check_column(path: Path, size: int, file: h5py.File, name: str) -> h5py.Dataset:
    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        raise StoreError(f"{path}: {name!r} is a soft or external link; only hard links are allowed")
    dataset = file[name]
    if not isinstance(dataset, h5py.Dataset):
        raise StoreError(f"{path}: {name!r} is a group; expected datasets at the root")
    properties = dataset.id.get_create_plist()
    if properties.get_layout() != h5py.h5d.CONTIGUOUS or properties.get_external_count() or properties.get_nfilters():
        raise StoreError(f"{path}: {name!r} must be contiguous, without filters, inside the file")
    dtype, shape = dataset.dtype, dataset.shape or ()
    if dtype not in _DTYPES and h5py.check_string_dtype(dtype) is None:
        raise StoreError(f"{path}: {name!r} has dtype {dtype}; expected one of {_DTYPES} or text")
    if not 1 <= len(shape) <= MAX_RANK:
        raise StoreError(f"{path}: {name!r} has rank {len(shape)}; expected 1 to {MAX_RANK}")
    declared = math.prod(shape) * dtype.itemsize
    if declared and (dataset.id.get_offset() or 0) + declared > size:
        raise StoreError(f"{path}: {name!r} declares {declared} bytes, more than the file holds")
    return dataset


def read_attributes(path: Path) -> dict[str, str | int]:
    """The metadata of a checked file.

    Args:
        path: The file.

    Returns:
        Texts and integers by name; attributes of other kinds are left out.
    """
    with open_checked(path) as checked:
        scalars = {name: value for name, value in checked.attributes.items() if isinstance(value, (str, np.integer))}
        return {name: value if isinstance(value, str) else int(value) for name, value in scalars.items()}


def read_names(path: Path) -> list[str]:
    """Names of the columns of a checked file, in its order.

    Args:
        path: The file.

    Returns:
        The names.
    """
    with open_checked(path) as checked:
        return list(checked.columns)


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
        with open_checked(path) as checked:
            for name in names if names is not None else checked.columns:
                dataset = _column(path, checked, name)
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
    places = [locate(path, shapes) for path in paths]
    rows = sum(count for count, _ in places)
    arrays = {name: np.empty((rows, math.prod(shape)), np.float32) for name, shape in shapes.items()}
    _copy(paths, places, arrays)
    return {name: torch.from_numpy(array).reshape(rows, *shapes[name]) for name, array in arrays.items()}


def read_flat(paths: Sequence[Path], shapes: Mapping[str, tuple[int, ...]]) -> Float[Tensor, "N P"]:
    """Read float32 columns of many files straight into one tensor, each row the entries of all columns in turn.

    Args:
        paths: Checked before they are read; rows of one file after those of the one before it.
        shapes: Shape of each column without its rows.

    Returns:
        `[rows, P]`, the same as `zoo.params.flatten` of what `read_tensors` returns.

    Raises:
        StoreError: If a file is not what it should be, or a column is missing or has another shape or dtype.
    """
    places = [locate(path, shapes) for path in paths]
    ends = np.cumsum([math.prod(shape) for shape in shapes.values()])
    flat = np.empty((sum(count for count, _ in places), ends[-1]), np.float32)
    _copy(paths, places, dict(zip(shapes, np.split(flat, ends[:-1], axis=1), strict=True)))
    return torch.from_numpy(flat)


def locate(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, dict[str, int]]:
    """Find float32 columns in a file, which is checked.

    Args:
        path: The file.
        shapes: Shape of each column without its rows.

    Returns:
        Number of rows, and where in the file each column starts, in bytes.

    Raises:
        StoreError: If the file is not what it should be, or a column is missing or has another shape or dtype.
    """
    with open_checked(path) as checked:
        rows, offsets = None, {}
        for name, shape in shapes.items():
            dataset = _column(path, checked, name)
            found_shape, offset = dataset.shape, dataset.id.get_offset()
            rows = found_shape[0] if rows is None else rows
            if found_shape != (rows, *shape) or dataset.dtype != np.dtype("<f4") or offset is None:
                found = f"{list(found_shape)} {dataset.dtype}{' without data' if offset is None else ''}"
                raise StoreError(f"{path}: {name!r}: expected shape {[rows, *shape]} float32, found {found}")
            offsets[name] = offset
        return rows or 0, offsets


def _copy(paths: Sequence[Path], places: Sequence[tuple[int, dict[str, int]]], targets: Columns) -> None:
    """Copy columns out of mapped files: contiguous columns need no help of HDF5, and one copy is all there is.

    `numpy.empty` behind the targets asks for huge pages; with small ones, page faults would take most of the time.
    """
    start = 0
    for path, (rows, offsets) in zip(paths, places, strict=True):
        mapped = np.memmap(path, np.uint8, mode="r")
        for name, target in targets.items():
            target[start : start + rows] = np.ndarray((rows, target.shape[1]), "<f4", mapped, offsets[name])
        start += rows


def _column(path: Path, checked: Checked, name: str) -> h5py.Dataset:
    if name not in checked.columns:
        raise StoreError(f"{path}: no column {name!r}; columns are {list(checked.columns)}")
    return checked.columns[name]


def sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
