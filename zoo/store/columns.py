"""Columns of open files as arrays and tensors, at raw speed.

A bulk read is one copy of mapped files.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from zoo.store.file_map import TEXT
from zoo.store.mapped import MappedFile, StoreError


def read_columns(
    files: Iterable[MappedFile], names: Sequence[str] | None = None
) -> dict[str, Shaped[np.ndarray, "..."]]:
    """Read columns of files, rows of one file after those of the one before it.

    Args:
        files: Files with the same columns.
        names: Columns to read, all of the first file if None.

    Returns:
        Arrays by name; text columns have object dtype.

    Raises:
        StoreError: If a file has no such column, or another kind of it than the first file.
    """
    parts: dict[str, list[Shaped[np.ndarray, "..."]]] = {}
    for file in files:
        names = list(file.columns) if names is None else names
        for name in names:
            array = file.array(name)
            arrays = parts.setdefault(name, [])
            arrays.append(array)
            if (arrays[0].dtype, arrays[0].shape[1:]) != (array.dtype, array.shape[1:]):
                raise StoreError(
                    f"{file.path}: {name!r} has another type or shape than in the first file"
                )
    return {
        name: np.concatenate(arrays) if len(arrays) > 1 else arrays[0]
        for name, arrays in parts.items()
    }


def read_tensors(
    files: Sequence[MappedFile], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, Tensor]:
    """Read float32 columns of many files straight into one tensor each.

    Args:
        files: Rows of one file after those of the one before it.
        shapes: Shape of each column without its rows.

    Returns:
        Tensors `[rows, *shape]`.

    Raises:
        StoreError: If a column is missing or has another shape or dtype.
    """
    rows = sum(check_rows(file, shapes) for file in files)
    arrays = {name: np.empty((rows, *shape), np.float32) for name, shape in shapes.items()}
    _copy(files, arrays)
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def read_flat(
    files: Sequence[MappedFile], shapes: Mapping[str, tuple[int, ...]]
) -> Float[Tensor, "N P"]:
    """Read float32 columns of many files into one tensor; a row is all columns in turn.

    Args:
        files: Rows of one file after those of the one before it.
        shapes: Shape of each column without its rows.

    Returns:
        `[rows, P]`, the same as `zoo.params.flatten` of what `read_tensors` returns.

    Raises:
        StoreError: If a column is missing or has another shape or dtype.
    """
    rows = sum(check_rows(file, shapes) for file in files)
    ends = np.cumsum([math.prod(shape) for shape in shapes.values()])
    flat = np.empty((rows, ends[-1]), np.float32)
    _copy(files, dict(zip(shapes, np.split(flat, ends[:-1], axis=1), strict=True)))
    return torch.from_numpy(flat)


def check_rows(file: MappedFile, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Check that a file has certain float32 columns.

    Args:
        file: The file.
        shapes: Shape of each column without its rows.

    Returns:
        Number of rows.

    Raises:
        StoreError: If a column is missing or has another shape or dtype.
    """
    rows = file.column(next(iter(shapes))).shape[0]
    check_columns(file, {name: ("<f4", (rows, *shape)) for name, shape in shapes.items()})
    return rows


def check_columns(file: MappedFile, expected: Mapping[str, tuple[str, tuple[int, ...]]]) -> None:
    """Check that a file has certain columns.

    Args:
        file: The file.
        expected: Type and shape of each column.

    Raises:
        StoreError: If a column is missing or has another shape or dtype.
    """
    for name, (dtype, shape) in expected.items():
        column = file.column(name)
        if (column.dtype, column.shape) != (dtype, shape):
            raise StoreError(
                f"{file.path}: {name!r}: expected shape {list(shape)} {type_name(dtype)}, "
                f"found {list(column.shape)} {type_name(column.dtype)}"
            )


def has_diverged(table: Any) -> Bool[np.ndarray, " N"]:
    """Which networks of a table have diverged; none where the zoo does not say.

    Args:
        table: A DataFrame, or columns by name.

    Returns:
        One value a network.
    """
    if "diverged" in table:
        return np.asarray(table["diverged"], bool)
    return np.zeros(len(table["network_id"]), bool)


def type_name(dtype: str) -> str:
    """A type of a column for a message."""
    return dtype if dtype == TEXT else np.dtype(dtype).name


def _copy(files: Iterable[MappedFile], targets: Mapping[str, Shaped[np.ndarray, "..."]]) -> None:
    """Copy columns out of mapped files: one copy is all there is.

    `numpy.empty` behind the targets asks for huge pages; with small ones, page faults would take
    most of the time.
    """
    start = 0
    for file in files:
        rows = 0
        for name, target in targets.items():
            column = file.view(name)
            rows = len(column)
            target[start : start + rows] = column.reshape(rows, *target.shape[1:])
        file.check_length()
        start += rows
