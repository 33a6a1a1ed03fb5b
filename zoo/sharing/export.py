"""A zoo in the formats of others: Parquet and safetensors.

Nothing is converted: every number keeps its bits.

    OUT/<population>/<split>.parquet               one row a network; a tensor is a list
    OUT/<population>/train-00000-of-00002.safetensors   one file a shard, tensors [N, *shape]
    OUT/constants/<population>.safetensors         masks, fixed entries, mixing matrices, offsets

Every file carries a JSON record under the key `symzoo`: population, split, weight space,
architecture, hyperparameters and shapes; in safetensors also the columns of text, for which it has
no type.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import save_file

from zoo.store.atomic import atomic_write, check_new
from zoo.store.entries import SPLITS
from zoo.store.population import Population
from zoo.store.zoo import Zoo

KEY = "symzoo"
FORMATS = ("parquet", "safetensors")
Format = Literal["parquet", "safetensors"]
Table = dict[str, np.ndarray]


def export_zoo(
    zoo: Zoo,
    out: str | Path,
    format: Format,
    populations: Sequence[str] | None = None,
    splits: Sequence[str] | None = None,
) -> Path:
    """Write final parameters, hyperparameters and metrics of a zoo in another format.

    Memory holds some networks at a time.

    Args:
        zoo: The zoo.
        out: Folder for the files; new or empty. It appears when all of them are complete.
        format: `"parquet"` or `"safetensors"`.
        populations: Which ones, all if None.
        splits: Which ones, all that have networks if None.

    Returns:
        The folder.

    Raises:
        ValueError: If a name is unknown or the folder holds something.
    """
    out = Path(out)
    check_new(out)
    if format not in FORMATS:
        raise ValueError(f"format: expected one of {list(FORMATS)}, got {format!r}")
    chosen = zoo.choose(populations)
    if splits and (wrong := [split for split in splits if split not in SPLITS]):
        raise ValueError(f"no splits {wrong}; splits are {list(SPLITS)}")
    write = _write_parquet if format == "parquet" else _write_safetensors
    with atomic_write(out) as temporary:
        for name, population in chosen.items():
            for split in population.splits if splits is None else splits:
                (temporary / name).mkdir(parents=True, exist_ok=True)
                write(population, split, temporary / name)
            if population.constants:
                (temporary / "constants").mkdir(parents=True, exist_ok=True)
                path = temporary / "constants" / f"{name}.safetensors"
                save_file(population.constants, path, {KEY: _record(population, None)})
    return out


def _record(population: Population, split: str | None, **more: Any) -> str:
    """What a reader of one file should know besides its columns."""
    entry = population.manifest.populations[population.name]
    record = {
        "population": population.name,
        "split": split,
        "architecture": entry.architecture,
        "asymmetry": entry.asymmetry,
        "space": entry.space,
        "hyperparameters": list(population.hyperparameters),
        "shapes": {name: list(shape) for name, shape in population.space.shapes.items()},
        "config_sha256": population.manifest.config_sha256,
    }
    return json.dumps(record | more)


def _columns(population: Population, split: str) -> Table:
    """The table of a split; text as objects."""
    return {str(name): column.to_numpy() for name, column in population.table(split).items()}


def _write_parquet(population: Population, split: str, folder: Path) -> None:
    table = _columns(population, split)
    shapes = population.space.shapes
    record = {KEY: _record(population, split)}
    schema = pa.schema([*_scalars(table), *_tensors(shapes)], metadata=record)
    stored = population.stored(split)
    texts: Any = [name for name in table if _is_text(table[name])]
    scalars: Any = list(table)
    path = folder / f"{split}.parquet"
    with pq.ParquetWriter(path, schema, use_dictionary=texts, write_statistics=scalars) as writer:
        parts = torch.arange(len(stored)).split(stored.most_together)
        for part, params in zip(parts, stored.stream(parts), strict=True):
            columns = {name: pa.array(array[part.numpy()]) for name, array in table.items()}
            columns |= {name: _lists(params[name]) for name in shapes}
            writer.write_table(pa.Table.from_pydict(columns, schema))


def _scalars(table: Table) -> Iterator[pa.Field]:
    for name, array in table.items():
        yield pa.field(name, pa.string() if _is_text(array) else pa.from_numpy_dtype(array.dtype))


def _tensors(shapes: Mapping[str, tuple[int, ...]]) -> Iterator[pa.Field]:
    """Tensors as lists of fixed length; Parquet keeps their shapes beside."""
    for name, shape in shapes.items():
        of = pa.list_(pa.float32(), int(np.prod(shape)))
        yield pa.field(name, of, metadata={"shape": json.dumps(list(shape))})


def _lists(tensor: torch.Tensor) -> pa.Array:
    flat = tensor.reshape(len(tensor), int(np.prod(tensor.shape[1:])))
    return pa.FixedSizeListArray.from_arrays(pa.array(flat.flatten().numpy()), flat.shape[1])


def _write_safetensors(population: Population, split: str, folder: Path) -> None:
    table, stored = _columns(population, split), population.stored(split)
    start = 0
    for file in stored.files:
        stop = start + file.rows
        part = {name: array[start:stop] for name, array in table.items()}
        texts = {name: part.pop(name).tolist() for name in table if _is_text(table[name])}
        numbers = {name: torch.tensor(array) for name, array in part.items()}
        params = stored.read(torch.arange(start, stop))
        path = folder / f"{file.path.stem}.safetensors"
        save_file(numbers | params, path, {KEY: _record(population, split, text=texts)})
        start = stop


def _is_text(array: np.ndarray) -> bool:
    return array.dtype.kind in "OU"
