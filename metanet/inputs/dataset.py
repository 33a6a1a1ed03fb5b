"""The networks of one split with their targets.

They are checked, in network order, without diverged networks that have no target.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from metanet.contract import Reads
from metanet.inputs.batches import JoinedNetworks, NetworkSet, ParamsInMemory, TableInMemory
from metanet.inputs.conversion import params_of
from metanet.inputs.memory import free_memory
from zoo.params import Params
from zoo.store.columns import has_diverged
from zoo.store.entries import ColumnEntry
from zoo.views import PopulationLike

NUMBERS = "holds numbers"
_OF_LABELS = ("id", "group", "splitting", "target")
"""Roles of columns whose whole numbers name something."""


@dataclass(frozen=True)
class Examples:
    """Networks of one or more populations, and their targets.

    Attributes:
        networks: What the metanet reads, population by population.
        y: Targets ``[N]``, finite, float64.
        network_id: Identity of each network ``[N]``.
        num_dropped: Networks that were left out because their target is not finite.
    """

    networks: JoinedNetworks
    y: Float[Tensor, "N"]
    network_id: np.ndarray
    num_dropped: int

    def __len__(self) -> int:
        return len(self.y)


def join(examples: Sequence[Examples]) -> Examples:
    """Examples of several populations, one after the other.

    Args:
        examples: Of each population.

    Returns:
        The examples.
    """
    networks = JoinedNetworks(
        tuple(part for some in examples for part in some.networks.parts),
        any(some.networks.are_stored for some in examples),
    )
    return Examples(
        networks,
        torch.cat([some.y for some in examples]),
        np.concatenate([some.network_id for some in examples]),
        sum(some.num_dropped for some in examples),
    )


def read_examples(
    population: PopulationLike,
    split: str,
    target: str,
    reads: Reads,
    count: int | None = None,
    stream: bool = False,
    dtype: torch.dtype = torch.float32,
) -> Examples:
    """Read the networks of a split, in the order of their ids, and one target.

    Args:
        population: Where from.
        split: Name of the split.
        target: A column of numbers of the population's table; not of classes, see `ColumnEntry`.
        reads: What the metanet reads of each network.
        count: Keep the first `count` networks by id (all of them if None), so that subsets are
            nested, and the same networks in every population of a zoo. Diverged networks are
            dropped after that.
        stream: Leave params on disk, see `streams`.
        dtype: Floating type of params that are in memory.

    Returns:
        The examples. Warns if networks were dropped.

    Raises:
        ValueError: If the target column is missing or not numeric, a network that did not diverge
            has no finite target, `count` is out of range, or no network is left.
    """
    where = f"population {population.name!r}, split {split!r}"
    table = population.table(split)
    y = _target_column(where, table, target, population.columns)
    ids = table["network_id"].to_numpy()
    wanted = _first(where, ids, count)
    is_nullable = target in population.columns and population.columns[target].nullable
    _check_dropped(where, table.iloc[wanted], target, y[wanted], is_nullable)
    kept = wanted[np.isfinite(y[wanted])]
    dropped = len(wanted) - len(kept)
    if dropped:
        why = "" if is_nullable else "diverged and "
        lost = f"dropped {dropped} of {len(wanted)} networks that {why}have no finite {target!r}"
        warnings.warn(f"{where}: {lost}", stacklevel=2)
    networks = JoinedNetworks((_networks(population, split, reads, stream, dtype, kept),), stream)
    return Examples(networks, torch.from_numpy(y[kept]), ids[kept], dropped)


def read_networks(
    population: PopulationLike,
    split: str,
    reads: Reads,
    stream: bool,
    dtype: torch.dtype = torch.float32,
) -> JoinedNetworks:
    """The networks of a split, diverged ones among them, in the order of the population's table.

    Args:
        population: Where from.
        split: Name of the split.
        reads: What the metanet reads of each network.
        stream: Leave params on disk, see `streams`.
        dtype: Floating type of params that are in memory.

    Returns:
        The networks.
    """
    return JoinedNetworks((_networks(population, split, reads, stream, dtype, None),), stream)


def _networks(
    population: PopulationLike,
    split: str,
    reads: Reads,
    stream: bool,
    dtype: torch.dtype,
    kept: np.ndarray | None,
) -> NetworkSet:
    """Networks of a split, those of some rows or all."""
    if reads == "hyperparameters":
        table = population.table(split)
        if kept is not None:
            columns = list(population.hyperparameters)
            table = table[columns].iloc[kept].reset_index(drop=True)
        return TableInMemory(table)
    if not stream:
        params = params_of(population.params(split), (), dtype)
        return ParamsInMemory(params if kept is None else _take(params, kept))
    stored = population.stored(split)
    if stored is None:
        raise ValueError(
            f"population {population.name!r} is in memory: "
            "expected stream=False or 'auto', got True"
        )
    return stored if kept is None else stored.select(kept)


def streams(
    option: bool | str, populations: Sequence[PopulationLike], splits: Sequence[str], reads: Reads
) -> bool:
    """Whether networks should stay on disk and be read batch by batch.

    Args:
        option: True, False, or `"auto"`: if their params would take more than a third of the memory
            that is free.
        populations: Where from.
        splits: Splits that are needed at the same time.
        reads: What the metanet reads; tables are always in memory.

    Returns:
        Whether to stream.
    """
    if reads != "params" or option is False:
        return False
    if option is True:
        return True
    needed = 0
    for population, split in product(populations, splits):
        stored = population.stored(split)
        if stored is None:
            return False
        needed += 4 * len(stored) * stored.num_params
    return needed > free_memory() / 3


def _take(params: Params, rows: np.ndarray) -> Params:
    """Rows of params; a view of the first rows where these are wanted in order."""
    if np.array_equal(rows, np.arange(len(rows))):
        return {name: tensor[: len(rows)] for name, tensor in params.items()}
    index = torch.from_numpy(rows)
    return {name: tensor[index] for name, tensor in params.items()}


def _first(where: str, ids: np.ndarray, count: int | None) -> np.ndarray:
    """Rows of the first networks by id, of all if the count is None."""
    if count is not None and not 1 <= count <= len(ids):
        raise ValueError(
            f"{where}: expected a number of networks from 1 to {len(ids)}, got {count}"
        )
    return np.argsort(ids, kind="stable")[:count]


def _target_column(
    where: str, table: pd.DataFrame, target: str, columns: Mapping[str, ColumnEntry]
) -> np.ndarray:
    known = {name: _kind(table[name], columns.get(name)) for name in map(str, table.columns)}
    if known.get(target) != NUMBERS:
        numeric = [name for name, kind in known.items() if kind == NUMBERS]
        why = known.get(target, "does not exist")
        raise ValueError(f"{where}: target column {target!r} {why}; numeric columns are {numeric}")
    return table[target].to_numpy(dtype="float64")


def _kind(column: Any, entry: ColumnEntry | None) -> str:
    """Whether a column holds numbers, rather than text or classes, which metanets do not learn."""
    if not pd.api.types.is_numeric_dtype(column):
        return "is not numeric"
    if pd.api.types.is_float_dtype(column):
        return NUMBERS
    if pd.api.types.is_bool_dtype(column):
        return "holds classes, true and false; expected numbers"
    return _kind_of_whole_numbers(entry)


def _kind_of_whole_numbers(entry: ColumnEntry | None) -> str:
    if entry is None:
        return (
            "holds whole numbers, which may be classes; expected floating numbers, or a column "
            "that `columns` of the population declares as a metric or a hyperparameter"
        )
    if entry.role in _OF_LABELS:
        return (
            f"holds labels (role {entry.role!r}), of which one is not more than another; "
            "expected numbers: if it holds such, convert it to float or declare it as a metric"
        )
    return NUMBERS


def _check_dropped(
    where: str, table: pd.DataFrame, target: str, y: np.ndarray, is_nullable: bool
) -> None:
    """Only networks that diverged may have no target, if not every network may."""
    unexplained = ~np.isfinite(y) & ~has_diverged(table) & (not is_nullable)
    if count := int(unexplained.sum()):
        ids = table["network_id"].to_numpy()[unexplained][:5].tolist()
        raise ValueError(
            f"{where}: target {target!r} is not finite in {count} of {len(y)} networks "
            f"that did not diverge (network_id {ids}{', ...' if count > 5 else ''})"
        )
    if not np.isfinite(y).any():
        raise ValueError(f"{where}: no network has a finite {target!r}")
