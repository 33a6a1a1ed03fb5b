"""Populations as metanets see them: those of a zoo, others held in memory, views of either."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, Protocol, runtime_checkable

import pandas as pd
from torch import Tensor

from zoo.architectures import Architecture
from zoo.params import Params
from zoo.store.entries import ColumnEntry
from zoo.store.streaming import StoredParams
from zoo.weight_space import WeightSpace


@runtime_checkable
class PopulationLike(Protocol):
    """The part of `zoo.store.population.Population` that metanets use."""

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def space(self) -> WeightSpace: ...  # noqa: D102

    @property
    def free(self) -> Mapping[str, Tensor]: ...  # noqa: D102

    @property
    def hyperparameters(self) -> tuple[str, ...]: ...  # noqa: D102

    @property
    def splits(self) -> tuple[str, ...]: ...  # noqa: D102

    @property
    def known_architecture(self) -> Callable[[], Architecture | None]: ...  # noqa: D102

    @property
    def columns(self) -> Mapping[str, ColumnEntry]: ...  # noqa: D102

    @property
    def params(self) -> Callable[[str], Params]: ...  # noqa: D102

    @property
    def table(self) -> Callable[[str], pd.DataFrame]: ...  # noqa: D102

    @property
    def stored(self) -> Callable[[str], StoredParams | None]: ...  # noqa: D102


def not_stored(split: str) -> None:
    """Of a population that is in memory."""
    del split


@dataclass(frozen=True, eq=False)
class PopulationView:
    """A population by its parts; `view` shows another one with some parts replaced.

    Attributes:
        name: Its name.
        space: Weight space of what `params` gives.
        params: Full params ``[N, *shape]`` of a split.
        table: Hyperparameters and metrics of a split, one row a network.
        splits: Names of the splits.
        hyperparameters: Hyperparameter columns.
        free: Masks of the tensors with fixed entries.
        architecture: What the networks compute, None if it is not known.
        columns: What columns of `table` hold, as far as it is known.
        stored: Params of a split on disk, None if they are in memory.
    """

    name: str
    space: WeightSpace
    params: Callable[[str], Params]
    table: Callable[[str], pd.DataFrame]
    splits: tuple[str, ...]
    hyperparameters: tuple[str, ...] = ()
    free: Mapping[str, Tensor] = field(default_factory=dict)
    architecture: Architecture | None = None
    columns: Mapping[str, ColumnEntry] = field(default_factory=dict)
    stored: Callable[[str], StoredParams | None] = not_stored

    def known_architecture(self) -> Architecture | None:
        """What the networks compute, None if it is not known."""
        return self.architecture


def view(population: PopulationLike, **parts: Any) -> PopulationView:
    """Another population, some parts of it replaced; params that are replaced are in memory.

    Args:
        population: The population.
        **parts: Fields of `PopulationView`.

    Returns:
        The view.
    """
    whole: dict[str, Any] = {
        "name": population.name,
        "space": population.space,
        "params": population.params,
        "table": population.table,
        "splits": population.splits,
        "hyperparameters": population.hyperparameters,
        "free": population.free,
        "architecture": population.known_architecture(),
        "columns": population.columns,
        "stored": not_stored if "params" in parts else population.stored,
    }
    return PopulationView(**(whole | parts))


def in_memory(
    name: str,
    space: WeightSpace,
    params: Params,
    rows: pd.DataFrame,
    sizes: Mapping[str, int],
    **parts: Any,
) -> PopulationView:
    """A population held in memory.

    Args:
        name: Its name.
        space: Weight space.
        params: Full params of all networks ``[N, *shape]``, split after split.
        rows: One row a network, in the same order: `network_id`, hyperparameters, targets.
        sizes: Networks of each split.
        **parts: Other fields of `PopulationView`.

    Returns:
        The population.
    """
    ends = zip(sizes, accumulate(sizes.values()), strict=True)
    places = {split: slice(end - sizes[split], end) for split, end in ends}

    return PopulationView(
        name,
        space,
        params=lambda split: {tensor: params[tensor][places[split]] for tensor in params},
        table=lambda split: rows.iloc[places[split]].reset_index(drop=True),
        splits=tuple(sizes),
        **parts,
    )
