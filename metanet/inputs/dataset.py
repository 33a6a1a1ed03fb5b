"""The networks of one split with their targets: checked, in network order, without diverged networks that have no target."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from metanet.contract import Networks, PopulationLike, Reads
from metanet.inputs.memory import free_memory
from zoo.params import Params
from zoo.store.streaming import StoredParams


@dataclass(frozen=True)
class Examples:
    """Networks and their targets.

    Attributes:
        networks: Full params ``[N, *shape]`` or a table of N rows, whichever the metanet reads;
            params may stay on disk.
        y: Targets ``[N]``, finite, float64.
        network_id: Identity of each network ``[N]``.
        num_dropped: Diverged networks that were left out because their target is not finite.
    """

    networks: Networks | StoredParams
    y: Float[Tensor, "N"]
    network_id: np.ndarray
    num_dropped: int

    def __len__(self) -> int:
        return len(self.y)


def read_examples(
    population: PopulationLike,
    split: str,
    target: str,
    reads: Reads,
    count: int | None = None,
    stream: bool = False,
) -> Examples:
    """Read the networks of a split, in the order of their ids, and one target.

    Args:
        population: Where from.
        split: Name of the split.
        target: A numeric column of the population's table.
        reads: What the metanet reads of each network.
        count: Keep the first `count` networks by id (all of them if None), so that subsets are
            nested, and the same networks in every population of a zoo. Diverged networks are
            dropped after that.
        stream: Leave params on disk, see `streams`.

    Returns:
        The examples. Warns if networks were dropped.

    Raises:
        ValueError: If the target column is missing or not numeric, a network that did not diverge
            has no finite target, `count` is out of range, or no network is left.
    """
    table = population.table(split)
    y = _target_column(population, split, table, target)
    order = np.argsort(table["network_id"].to_numpy(), kind="stable")
    if count is not None and not 1 <= count <= len(order):
        raise ValueError(
            f"population {population.name!r}, split {split!r}: expected a number of networks from 1 to {len(order)}, "
            f"got {count}"
        )
    kept = order[:count][np.isfinite(y[order[:count]])]
    dropped = len(order[:count]) - len(kept)
    _check_dropped(population, split, table.iloc[order[:count]], target, y[order[:count]])
    if dropped:
        warnings.warn(
            f"population {population.name!r}, split {split!r}: dropped {dropped} of {len(order[:count])} networks that "
            f"diverged and have no finite {target!r}",
            stacklevel=2,
        )
    if reads == "hyperparameters":
        networks = table[list(population.hyperparameters)].iloc[kept].reset_index(drop=True)
    elif stream:
        networks = _stored(population, split).select(kept)
    else:
        networks = _take(population.params(split), kept)
    return Examples(
        networks, torch.from_numpy(y[kept]), table["network_id"].to_numpy()[kept], dropped
    )


def read_networks(
    population: PopulationLike, split: str, reads: Reads, stream: bool
) -> Networks | StoredParams:
    """The networks of a split, diverged ones among them, in the order of the population's table.

    Args:
        population: Where from.
        split: Name of the split.
        reads: What the metanet reads of each network.
        stream: Leave params on disk, see `streams`.

    Returns:
        Params, in memory or on disk, or a table.
    """
    if reads == "hyperparameters":
        return population.table(split)
    return _stored(population, split) if stream else population.params(split)


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
    if not all(hasattr(population, "stored") for population in populations):
        return False
    found = [_stored(population, split) for population in populations for split in splits]
    return sum(4 * len(stored) * stored.num_params for stored in found) > free_memory() / 3


def check_loading(stream: bool | str, workers: int) -> None:
    """Refuse settings of loading that are not valid.

    Args:
        stream: Option of `streams`.
        workers: Threads that read ahead.

    Raises:
        ValueError: If one is not.
    """
    if stream not in (True, False, "auto"):
        raise ValueError(f"stream: expected True, False or 'auto', got {stream!r}")
    if workers < 0:
        raise ValueError(f"workers: expected at least 0, got {workers}")


def _stored(population: PopulationLike, split: str) -> StoredParams:
    if not hasattr(population, "stored"):
        raise ValueError(
            f"population {population.name!r} is in memory: expected stream=False or 'auto', got True"
        )
    return population.stored(split)  # type: ignore[attr-defined]


def _take(params: Params, rows: np.ndarray) -> Params:
    """Rows of params; a view where the rows are the first ones in order, as they are in a generated zoo."""
    if np.array_equal(rows, np.arange(len(rows))):
        return {name: tensor[: len(rows)] for name, tensor in params.items()}
    index = torch.from_numpy(rows)
    return {name: tensor[index] for name, tensor in params.items()}


def _target_column(
    population: PopulationLike, split: str, table: pd.DataFrame, target: str
) -> np.ndarray:
    numeric = [name for name in table.columns if pd.api.types.is_numeric_dtype(table[name])]
    if target not in numeric:
        why = "is not numeric" if target in table.columns else "does not exist"
        raise ValueError(
            f"population {population.name!r}, split {split!r}: target column {target!r} {why}; numeric columns are {numeric}"
        )
    return table[target].to_numpy(dtype="float64")


def _check_dropped(
    population: PopulationLike, split: str, table: pd.DataFrame, target: str, y: np.ndarray
) -> None:
    diverged = (
        table["diverged"].to_numpy(dtype=bool)
        if "diverged" in table.columns
        else np.zeros(len(y), dtype=bool)
    )
    unexplained = ~np.isfinite(y) & ~diverged
    if unexplained.any():
        ids = table["network_id"].to_numpy()[unexplained][:5].tolist()
        raise ValueError(
            f"population {population.name!r}, split {split!r}: target {target!r} is not finite in {int(unexplained.sum())} of "
            f"{len(y)} networks that did not diverge (network_id {ids}{', ...' if unexplained.sum() > 5 else ''})"
        )
    if not np.isfinite(y).any():
        raise ValueError(
            f"population {population.name!r}, split {split!r}: no network has a finite {target!r}"
        )
