"""What the files of a zoo must hold.

Columns, types, shapes, rows and network ids, checked when a file is first read.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from zoo.architectures.base import written_axis
from zoo.store.bounds import check_file
from zoo.store.columns import check_columns, type_name
from zoo.store.entries import ShardEntry
from zoo.store.file_map import TEXT
from zoo.store.manifest import Manifest, PlannedFile
from zoo.store.mapped import MappedFile, StoreError, open_mapped
from zoo.weight_space import WeightSpace

QUANTITY, RESIDUAL = "quantity.", "residual."
"""What names of columns of conserved quantities, and of the residuals of their laws, begin with."""
METRIC = "metric."
"""What names of columns of metrics at checkpoints begin with."""
STORED = {"int64": "<i8", "float64": "<f8", "bool": "|b1", "text": TEXT}
"""How columns of the tables are stored."""
_CONSTANTS = {"free": "|b1", "fixed": "<f4", "mixing": "<f4", "offset": "<f4", "statistic": "|b1"}
_BUFFERS = ("|b1", "<i8", "<f4")


def check_shard(
    directory: Path,
    manifest: Manifest,
    population: str,
    file: PlannedFile,
    trajectory: bool = False,
) -> MappedFile:
    """Open a shard and check it: place, length, map and schema.

    Args:
        directory: The zoo.
        manifest: Its manifest.
        population: Name of the population.
        file: Which file, and what it should hold.
        trajectory: Whether it is one of trajectories.

    Returns:
        The file.

    Raises:
        StoreError: If it is not what the manifest says.
    """
    number, count = map(int, re.findall(r"\d{5}", Path(file.path).name))
    whose = {"population": population, "split": file.split, "shard": number, "shards": count}
    checked = _open(directory, manifest, file.path, file.entry, whose)
    path, rows = checked.path, file.entry.rows
    space = manifest.populations[population].weight_space
    if trajectory:
        expected = _of_trajectory(checked, space, rows, manifest.columns_of("metric"))
    else:
        expected = _of_final(manifest, space, rows)
    check_columns(checked, expected)
    if unknown := [name for name in checked.columns if name not in expected]:
        raise StoreError(
            f"{path}: column {unknown[0]!r} is none of the format; expected {list(expected)}"
        )
    if (checked.array("network_id") != np.arange(file.first, file.first + rows)).any():
        raise StoreError(
            f"{path}: 'network_id': expected {file.first} to {file.first + rows - 1} in order"
        )
    return checked


def _open(
    directory: Path,
    manifest: Manifest,
    relative: str,
    entry: ShardEntry,
    whose: Mapping[str, str | int],
) -> MappedFile:
    """A file that says it is this one: that of another population may have the same columns."""
    checked = open_mapped(check_file(directory, relative, entry.bytes))
    for key, value in {**whose, "config_sha256": manifest.config_sha256}.items():
        stored = checked.map.attributes.get(key)
        if value not in (None, stored):
            raise StoreError(
                f"{checked.path}: attribute {key!r}: expected {value!r}, found {stored!r:.200}"
            )
    return checked


def _of_final(
    manifest: Manifest, space: WeightSpace, rows: int
) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Types and shapes of columns of a shard of final parameters."""
    table = {name: (STORED[c.dtype], (rows,)) for name, c in manifest.columns.items()}
    return table | {name: ("<f4", (rows, *shape)) for name, shape in space.shapes.items()}


def _of_trajectory(
    checked: MappedFile, space: WeightSpace, rows: int, metrics: tuple[str, ...]
) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Columns that a file of trajectories must have, and those of its own that it may have."""
    shape = checked.column("checkpoint_steps").shape
    if len(shape) != 2 or shape[0] != rows:
        raise StoreError(
            f"{checked.path}: 'checkpoint_steps': expected shape [{rows}, T], found {list(shape)}"
        )
    expected = {"network_id": ("<i8", (rows,)), "checkpoint_steps": ("<i8", shape)}
    expected |= {name: ("<f4", (*shape, *of_one)) for name, of_one in space.shapes.items()}
    measured = {f"{METRIC}{name}" for name in metrics}
    optional = {name: c for name, c in checked.columns.items() if name not in expected}
    for name, column in optional.items():
        if name.startswith((QUANTITY, RESIDUAL)):
            expected[name] = ("<f4", (*shape, *column.shape[2:]))
        elif name in measured:
            expected[name] = ("<f8", shape)
    return expected


def check_constants(directory: Path, manifest: Manifest, population: str) -> dict[str, np.ndarray]:
    """Check and read the constants of a population.

    Args:
        directory: The zoo.
        manifest: Its manifest.
        population: Name of the population.

    Returns:
        Constants by name; empty if it has none.

    Raises:
        StoreError: If the file is not what the manifest says, or its columns do not fit the weight
            space.
    """
    described = manifest.populations[population]
    entry, space = described.constants, described.weight_space
    if entry is None:
        return {}
    path = f"constants/{population}.h5"
    checked = _open(directory, manifest, path, entry, {"population": population})
    _check_constant_columns(checked, entry.rows, space)
    arrays = {}
    for name in checked.columns:
        is_scalar = space.shapes.get(name.partition(".")[2]) == ()
        arrays[name] = checked.array(name).reshape(()) if is_scalar else checked.array(name)
    return arrays


def _check_constant_columns(checked: MappedFile, count: int, space: WeightSpace) -> None:
    path = checked.path
    if len(checked.columns) != count:
        raise StoreError(f"{path}: expected {count} columns, found {len(checked.columns)}")
    for name, column in checked.columns.items():
        if not is_constant(name, column.dtype, column.shape, space):
            raise StoreError(
                f"{path}: {name!r} of shape {list(column.shape)} {type_name(column.dtype)} is no "
                "constant"
            )
    free, fixed = (
        {name.removeprefix(kind) for name in checked.columns if name.startswith(kind)}
        for kind in ("free.", "fixed.")
    )
    if free != fixed:
        raise StoreError(f"{path}: 'free' and 'fixed' must be of the same tensors")


def is_constant(name: str, dtype: str, shape: tuple[int, ...], space: WeightSpace) -> bool:
    """Whether an array may be a constant of networks of a weight space.

    Args:
        name: Its name.
        dtype: Type of its values, as files name it.
        shape: Its shape; of a scalar, one number.
        space: The weight space.

    Returns:
        Whether name, type and shape are those of a constant.
    """
    kind, _, of = name.partition(".")
    if kind == "buffer":
        return bool(of) and dtype in _BUFFERS
    if _CONSTANTS.get(kind) != dtype:
        return False
    if kind == "mixing":
        return of in space.groups and shape == (space.size(written_axis(space, of)),) * 2
    return of in space.shapes and (space.shapes[of] or (1,)) == (shape or (1,))
