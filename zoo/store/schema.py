"""What the files of a zoo must hold.

Columns, types, shapes, rows and network ids, checked when a file is first read.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from zoo.store.bounds import check_file
from zoo.store.manifest import Manifest, PlannedFile, ShardEntry
from zoo.store.mapped import MappedFile, StoreError, open_mapped
from zoo.weight_space import WeightSpace

QUANTITY, RESIDUAL = "quantity.", "residual."
"""What names of columns of conserved quantities, and of the residuals of their laws, begin with."""
ID_COLUMNS = ("network_id", "seed")
METRIC_COLUMNS = (
    "train_loss",
    "train_accuracy",
    "test_loss",
    "test_accuracy",
    "generalization_gap",
    "steps",
    "train_size",
    "diverged",
    "diverged_at",
)
_TYPES = {
    **dict.fromkeys((*ID_COLUMNS, "steps", "train_size", "diverged_at"), ("<i8",)),
    **dict.fromkeys(METRIC_COLUMNS[:5], ("<f8",)),
    "diverged": ("|b1",),
}
_HYPERPARAMETER_TYPES = ("<f8", "<i8", "text")
_CONSTANTS = {"free": "|b1", "fixed": "<f4", "mixing": "<f4", "offset": "<f4", "statistic": "|b1"}


def scalar_columns(hyperparameters: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """The columns of a shard that are one number or text for each network.

    Args:
        hyperparameters: Names of the hyperparameters.

    Returns:
        Allowed types by name, in the order in which a table shows them.
    """
    names = dict.fromkeys([*ID_COLUMNS, *hyperparameters, *METRIC_COLUMNS])
    return {name: _TYPES.get(name, _HYPERPARAMETER_TYPES) for name in names}


def open_shards(
    directory: Path, manifest: Manifest, population: str, split: str, trajectory: bool = False
) -> Iterator[MappedFile]:
    """Open the files of a split, each checked: place, length, map and schema.

    Args:
        directory: The zoo.
        manifest: Its manifest.
        population: Name of the population.
        split: Name of the split.
        trajectory: Whether the files of trajectories are wanted.

    Yields:
        Open files, in the order of their networks.
    """
    for file in manifest.files(population, trajectory):
        if file.split == split:
            yield check_shard(directory, manifest, population, file, trajectory)


def check_shard(
    directory: Path,
    manifest: Manifest,
    population: str,
    file: PlannedFile,
    trajectory: bool = False,
) -> MappedFile:
    """Check a shard.

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
    path = check_file(directory, file.path, file.entry.bytes)
    checked = open_mapped(path)
    entry, rows = manifest.populations[population], file.entry.rows
    space = entry.weight_space()
    if trajectory:
        _check_trajectory(checked, space, rows)
    else:
        _check_final(checked, space, rows, entry.hyperparameters)
    if (checked.array("network_id") != np.arange(file.first, file.first + rows)).any():
        raise StoreError(
            f"{path}: 'network_id': expected {file.first} to {file.first + rows - 1} in order"
        )
    return checked


def _check_final(
    checked: MappedFile, space: WeightSpace, rows: int, hyperparameters: tuple[str, ...]
) -> None:
    expected = {name: (types, (rows,)) for name, types in scalar_columns(hyperparameters).items()}
    expected |= {name: (("<f4",), (rows, *shape)) for name, shape in space.shapes.items()}
    _check_columns(checked, expected)


def _check_trajectory(checked: MappedFile, space: WeightSpace, rows: int) -> None:
    shape = checked.column("checkpoint_steps").shape
    if len(shape) != 2 or shape[0] != rows:
        raise StoreError(
            f"{checked.path}: 'checkpoint_steps': expected shape [{rows}, T], found {list(shape)}"
        )
    expected = {"network_id": (("<i8",), (rows,)), "checkpoint_steps": (("<i8",), shape)}
    expected |= {name: (("<f4",), (*shape, *own)) for name, own in space.shapes.items()}
    laws = [
        name
        for name in checked.columns
        if name.startswith((QUANTITY, RESIDUAL)) and name not in expected
    ]
    expected |= {name: (("<f4",), (*shape, *checked.columns[name].shape[2:])) for name in laws}
    _check_columns(checked, expected)


def _check_columns(
    checked: MappedFile, expected: Mapping[str, tuple[tuple[str, ...], tuple[int, ...]]]
) -> None:
    for name, (types, shape) in expected.items():
        column = checked.column(name)
        if column.dtype not in types or column.shape != shape:
            wanted, found = " or ".join(map(_type_name, types)), _type_name(column.dtype)
            raise StoreError(
                f"{checked.path}: {name!r}: expected shape {list(shape)} {wanted}, found "
                f"{list(column.shape)} {found}"
            )
    unknown = [name for name in checked.columns if name not in expected]
    if unknown:
        raise StoreError(
            f"{checked.path}: column {unknown[0]!r} is none of the format; expected "
            f"{list(expected)}"
        )


def _type_name(code: str) -> str:
    return code if code == "text" else np.dtype(code).name


def check_constants(
    directory: Path, population: str, entry: ShardEntry, space: WeightSpace
) -> dict[str, np.ndarray]:
    """Check and read the constants of a population.

    Args:
        directory: The zoo.
        population: Name of the population.
        entry: What the manifest says of the file.
        space: Weight space of the population.

    Returns:
        Constants by name.

    Raises:
        StoreError: If the file is not what the manifest says, or its columns do not fit the weight
            space.
    """
    path = check_file(directory, f"constants/{population}.h5", entry.bytes)
    checked = open_mapped(path)
    if len(checked.columns) != entry.rows:
        raise StoreError(f"{path}: expected {entry.rows} columns, found {len(checked.columns)}")
    for name, column in checked.columns.items():
        kind, _, of = name.partition(".")
        square = column.shape[0] == column.shape[-1] and len(column.shape) == 2
        fits = (
            square and of in space.groups
            if kind == "mixing"
            else space.shapes.get(of) == column.shape
        )
        if _CONSTANTS.get(kind) != column.dtype or not fits:
            raise StoreError(
                f"{path}: {name!r} of shape {list(column.shape)} {_type_name(column.dtype)} is no "
                "constant"
            )
    if {_tensor(name) for name in _of("free", checked)} != {
        _tensor(name) for name in _of("fixed", checked)
    }:
        raise StoreError(f"{path}: 'free' and 'fixed' must be of the same tensors")
    return {name: checked.array(name) for name in checked.columns}


def _of(kind: str, checked: MappedFile) -> Iterator[str]:
    return (name for name in checked.columns if name.startswith(f"{kind}."))


def _tensor(name: str) -> str:
    return name.partition(".")[2]
