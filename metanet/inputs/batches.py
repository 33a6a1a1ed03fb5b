"""Networks wherever they are, and their features batch by batch: what one training loop reads."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any, NamedTuple, Protocol, runtime_checkable

import pandas as pd
import torch
from jaxtyping import Int64
from torch import Tensor

from metanet.contract import Networks
from metanet.feature_rows import Features, concatenate, count_rows, rows, to_device
from zoo.params import Params
from zoo.store.streaming import group_batches

BLOCK_ENTRIES = 2**23
"""Scalars of networks that are read and treated together."""


@runtime_checkable
class NetworkSet(Protocol):
    """Networks of one population that can be read by rows."""

    def __len__(self) -> int:
        """Number of networks."""
        ...

    def stream(self, parts: Sequence[Tensor], workers: int = 0) -> Iterator[Any]:
        """Networks of each group of rows, in turn; `workers` threads read ahead."""
        ...


@dataclass(frozen=True)
class ParamsInMemory:
    """Params in memory, a `NetworkSet`.

    Attributes:
        networks: Tensors `[N, *shape]`.
    """

    networks: Params

    def __len__(self) -> int:
        return count_rows(self.networks)

    def stream(self, parts: Sequence[Int64[Tensor, "_"]], workers: int = 0) -> Iterator[Params]:
        """Networks of each group of rows; see `NetworkSet`."""
        del workers  # there is nothing to read
        for part in parts:
            yield {name: tensor[part.to(tensor.device)] for name, tensor in self.networks.items()}


@dataclass(frozen=True)
class TableInMemory:
    """Hyperparameters, a `NetworkSet`.

    Attributes:
        networks: A row for each network.
    """

    networks: pd.DataFrame

    def __len__(self) -> int:
        return len(self.networks)

    def stream(
        self, parts: Sequence[Int64[Tensor, "_"]], workers: int = 0
    ) -> Iterator[pd.DataFrame]:
        """Networks of each group of rows; see `NetworkSet`."""
        del workers  # there is nothing to read
        for part in parts:
            yield self.networks.iloc[part.numpy()]


class Chosen(NamedTuple):
    """Some networks of one or more populations.

    Attributes:
        networks: Those of each population, None where there are none.
        order: For each network, its place when the populations are laid one after the other; None
            if they are in order.
    """

    networks: tuple[Networks | None, ...]
    order: Tensor | None = None


@dataclass(frozen=True)
class JoinedNetworks:
    """Networks of one or more populations.

    Attributes:
        parts: Of each population.
        are_stored: Whether some of them are on disk.
    """

    parts: tuple[Any, ...]
    are_stored: bool = False

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    @property
    def whole(self) -> Chosen | None:
        """All networks as they are, without a copy, where they are in memory side by side."""
        if self.are_stored or len(self.parts) != 1:
            return None
        return Chosen((self.parts[0].networks,))

    def stream(self, parts: Sequence[Int64[Tensor, "_"]], workers: int = 0) -> Iterator[Chosen]:
        """Networks of each group of rows, counted over all populations; see `NetworkSet`."""
        if len(self.parts) == 1:
            for networks in self.parts[0].stream(parts, workers):
                yield Chosen((networks,))
            return
        groups = [self._by_population(index) for index in parts]
        streams = [
            population.stream([group[at] for group in groups if len(group[at])], workers)
            for at, population in enumerate(self.parts)
        ]
        for index, group in zip(parts, groups, strict=True):
            networks = tuple(
                next(stream) if len(rows) else None
                for rows, stream in zip(group, streams, strict=True)
            )
            yield Chosen(networks, index.argsort().argsort())

    def _by_population(self, index: Tensor) -> list[Tensor]:
        """The rows of each population, sorted, that are among those of all."""
        starts = torch.tensor([0, *accumulate(map(len, self.parts[:-1]))])
        ordered = index.sort().values
        pieces = ordered.tensor_split(torch.searchsorted(ordered, starts[1:]))
        return [rows - start for rows, start in zip(pieces, starts, strict=True)]


@runtime_checkable
class FeatureSet(Protocol):
    """Features of networks that are given in batches."""

    def __len__(self) -> int:
        """Number of networks."""
        ...

    def batches(self, parts: Sequence[Tensor]) -> Iterator[Features]:
        """Features of each group of rows, in turn."""
        ...

    def pieces(self, most: int) -> Iterator[Features]:
        """Features of all networks in order, at most so many at a time."""
        ...

    def to(self, device: torch.device | str) -> "FeatureSet":
        """The same on a device."""
        ...


@dataclass(frozen=True)
class Kept:
    """Features of all networks in memory, a `FeatureSet`.

    Attributes:
        features: The features.
    """

    features: Features

    def __len__(self) -> int:
        return count_rows(self.features)

    def batches(self, parts: Sequence[Int64[Tensor, "_"]]) -> Iterator[Features]:
        """Features of each group of rows."""
        return (rows(self.features, part) for part in parts)

    def pieces(self, most: int) -> Iterator[Features]:
        """Features of all networks in order, without a copy."""
        starts = range(0, len(self), most)
        return (rows(self.features, slice(start, start + most)) for start in starts)

    def to(self, device: torch.device | str) -> "Kept":
        """The same on a device."""
        return Kept(to_device(self.features, device))


@dataclass(frozen=True)
class Drawn:
    """Features that are made when they are needed, a `FeatureSet`.

    They are drawn anew for each pass, or are those of networks that do not fit into memory.
    Networks are read and treated in blocks of several batches, which depend on nothing but the
    batches, so that random treatments draw the same wherever the networks are.

    Attributes:
        networks: Where from.
        compute: What makes features of networks.
        most: Networks in a block, at most.
        workers: Threads that read ahead.
        device: Where features go.
    """

    networks: JoinedNetworks
    compute: Callable[[Chosen], Features]
    most: int
    workers: int = 0
    device: torch.device | str = "cpu"

    def __len__(self) -> int:
        return len(self.networks)

    def batches(self, parts: Sequence[Int64[Tensor, "_"]]) -> Iterator[Features]:
        """Features of each group of rows."""
        blocks = group_batches([part.cpu() for part in parts], self.most)
        read = self.networks.stream([torch.cat(block) for block in blocks], self.workers)
        for block, networks in zip(blocks, read, strict=True):
            features, start = to_device(self.compute(networks), self.device), 0
            for batch in block:
                yield rows(features, slice(start, start + len(batch)))
                start += len(batch)

    def pieces(self, most: int) -> Iterator[Features]:
        """Features of all networks in order."""
        return self.batches(torch.arange(len(self)).split(most))

    def to(self, device: torch.device | str) -> "Drawn":
        """The same on a device."""
        return replace(self, device=device)

    def kept(self) -> Kept:
        """Features of all networks at once."""
        return Kept(concatenate(list(self.pieces(self.most))))


def networks_in_memory(num_params: int) -> int:
    """Networks that are read and treated together.

    Args:
        num_params: Scalars of one network.

    Returns:
        At least one.
    """
    return max(1, BLOCK_ENTRIES // num_params)
