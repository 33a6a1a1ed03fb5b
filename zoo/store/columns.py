"""HDF5 shards: write them whole or not at all, check them before any data is read, read them at raw speed.

A shard holds one dataset for each column at its root, contiguous and little-endian, without
filters, so that Hugging Face `datasets` loads it as it is and a bulk read is one read of the file.
h5py writes; `zoo.hdf5` reads, since libhdf5 is not made for files of strangers. Nothing but this
file imports h5py.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from zoo.hdf5 import FORMAT_VERSION, MAX_RANK, TEXT, check_name
from zoo.store.atomic import atomic_write
from zoo.store.mapped import StoreError, map_file, open_checked

_DTYPES = tuple(np.dtype(code) for code in ("<f4", "<f8", "<i4", "<i8", "|u1", "|b1"))

Columns = Mapping[str, Shaped[np.ndarray, "..."]]


def write_columns(
    path: Path, columns: Columns, attributes: Mapping[str, str | int], equal_rows: bool = True
) -> None:
    """Write one HDF5 file; it appears under its name only when it is complete and on disk.

    Args:
        path: Where the file goes; its folder is made if it is missing.
        columns: Arrays by name: numbers, booleans, or text (object or str dtype), at least one axis
            each.
        attributes: Metadata of the file.
        equal_rows: Whether all columns must have the same first axis, as a table does.

    Raises:
        ValueError: If a column cannot be stored in the format.
        OSError: If the disk is full or the folder cannot be written; no file is left under the
            name.
    """
    rows = {name: len(array) if array.ndim else 0 for name, array in columns.items()}
    if not columns or 0 in rows.values() or (equal_rows and len(set(rows.values())) != 1):
        raise ValueError(
            f"{path}: expected columns with equally many rows, at least one, got {rows}"
        )
    with atomic_write(path) as temporary:
        # Made in memory: HDF5 crashes the process when a disk fills up under a column of text.
        with h5py.File(
            temporary, "w", driver="core", backing_store=False, libver="v110", track_order=True
        ) as file:
            file.attrs["format_version"] = FORMAT_VERSION
            for name, value in attributes.items():
                file.attrs[name] = value
            for name, array in columns.items():
                _write_column(file, name, array)
            file.flush()
            temporary.write_bytes(file.id.get_file_image())
        _check_written(temporary, columns)


def _write_column(file: h5py.File, name: str, array: Shaped[np.ndarray, "..."]) -> None:
    check_name(name, "column")
    if array.dtype.kind in "OU":
        file.create_dataset(
            name, data=array.astype(object), dtype=h5py.string_dtype("utf-8"), track_times=False
        )
        return
    stored = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    if stored.dtype not in _DTYPES or stored.ndim > MAX_RANK:
        raise ValueError(
            f"column {name!r}: expected dtype in {_DTYPES} and rank <= {MAX_RANK}, got {array.dtype}, {array.ndim}"
        )
    file.create_dataset(name, data=stored, track_times=False)


def _check_written(temporary: Path, columns: Columns) -> None:
    # What cannot be read again, for example because another libhdf5 lays files out in another way,
    # must not get its name.
    found = {name: column.shape for name, column in open_checked(temporary).columns.items()}
    if list(found.items()) != [(name, array.shape) for name, array in columns.items()]:
        raise StoreError(f"{temporary}: wrote columns {found}, which are not those that were given")


def read_attributes(path: Path) -> dict[str, str | int]:
    """The metadata of a checked file.

    Args:
        path: The file.

    Returns:
        Texts and integers by name.
    """
    return open_checked(path).structure.attributes


def read_names(path: Path) -> list[str]:
    """Names of the columns of a checked file, in its order.

    Args:
        path: The file.

    Returns:
        The names.
    """
    return list(open_checked(path).columns)


def read_columns(
    paths: Sequence[Path], names: Sequence[str] | None = None
) -> dict[str, Shaped[np.ndarray, "..."]]:
    """Read columns of checked files, rows of one file after those of the one before it.

    Args:
        paths: Files with the same columns.
        names: Columns to read, all of the first file if None.

    Returns:
        Arrays by name; text columns have object dtype.

    Raises:
        StoreError: If a file is not what it should be, or has no such column, or another kind of it
            than the first file.
    """
    parts: dict[str, list[Shaped[np.ndarray, "..."]]] = {}
    for path in paths:
        checked = open_checked(path)
        names = list(checked.columns) if names is None else names
        for name in names:
            array = checked.array(name)
            first = parts.setdefault(name, [array])[0]
            if (first.dtype, first.shape[1:]) != (array.dtype, array.shape[1:]):
                raise StoreError(f"{path}: {name!r} has another type or shape than in {paths[0]}")
            if first is not array:
                parts[name].append(array)
    return {
        name: np.concatenate(arrays) if len(arrays) > 1 else arrays[0]
        for name, arrays in parts.items()
    }


def read_tensors(paths: Sequence[Path], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Read float32 columns of many files straight into one tensor each.

    Args:
        paths: Checked before they are read; rows of one file after those of the one before it.
        shapes: Shape of each column without its rows.

    Returns:
        Tensors `[rows, *shape]`.

    Raises:
        StoreError: If a file is not what it should be, or a column is missing or has another shape
            or dtype.
    """
    places = [locate(path, shapes) for path in paths]
    rows = sum(count for count, _ in places)
    arrays = {
        name: np.empty((rows, math.prod(shape)), np.float32) for name, shape in shapes.items()
    }
    _copy(paths, places, arrays)
    return {
        name: torch.from_numpy(array).reshape(rows, *shapes[name]) for name, array in arrays.items()
    }


def read_flat(paths: Sequence[Path], shapes: Mapping[str, tuple[int, ...]]) -> Float[Tensor, "N P"]:
    """Read float32 columns of many files straight into one tensor, each row the entries of all columns in turn.

    Args:
        paths: Checked before they are read; rows of one file after those of the one before it.
        shapes: Shape of each column without its rows.

    Returns:
        `[rows, P]`, the same as `zoo.params.flatten` of what `read_tensors` returns.

    Raises:
        StoreError: If a file is not what it should be, or a column is missing or has another shape
            or dtype.
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
        StoreError: If the file is not what it should be, or a column is missing or has another
            shape or dtype.
    """
    checked = open_checked(path)
    rows, offsets = None, {}
    for name, shape in shapes.items():
        column = checked.column(name)
        rows = column.shape[0] if rows is None else rows
        if column.shape != (rows, *shape) or column.dtype != "<f4":
            found = column.dtype if column.dtype == TEXT else np.dtype(column.dtype).name
            raise StoreError(
                f"{path}: {name!r}: expected shape {[rows, *shape]} float32, found {list(column.shape)} {found}"
            )
        offsets[name] = column.offset
    return rows or 0, offsets


def _copy(
    paths: Sequence[Path], places: Sequence[tuple[int, dict[str, int]]], targets: Columns
) -> None:
    """Copy columns out of mapped files: contiguous columns need no help of HDF5, and one copy is all there is.

    `numpy.empty` behind the targets asks for huge pages; with small ones, page faults would take
    most of the time.

    Raises:
        StoreError: If a file became shorter since it was checked.
    """
    start = 0
    for path, (rows, offsets) in zip(paths, places, strict=True):
        mapped = map_file(path)
        for name, target in targets.items():
            if offsets[name] + 4 * rows * target.shape[1] > len(mapped):
                raise StoreError(f"{path}: the file changed while it was read")
            target[start : start + rows] = np.ndarray(
                (rows, target.shape[1]), "<f4", mapped, offsets[name]
            )
        start += rows
