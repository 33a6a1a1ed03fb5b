"""Networks wherever they are, in memory or on disk, and their features batch by batch: what one training loop goes over."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import pandas as pd
import torch
from jaxtyping import Int64
from torch import Tensor

from metanet.contract import Features, Networks, concatenate, count_rows, rows, to_device
from zoo.store.streaming import StoredParams, blocks_of

BLOCK_ENTRIES = 2**23
"""Scalars of networks that are read and treated together."""


@runtime_checkable
class NetworkSet(Protocol):
    """Networks that can be read by rows."""

    def __len__(self) -> int:
        """Number of networks."""
        ...

    def stream(self, parts: Sequence[Tensor], workers: int = 0) -> Iterator[Any]:
        """Networks of each group of rows, one group after the other; `workers` threads read ahead."""
        ...


@dataclass(frozen=True)
class InMemory:
    """Networks in memory.

    Attributes:
        networks: Params `[N, *shape]` or a table of N rows.
    """

    networks: Networks

    def __len__(self) -> int:
        if isinstance(self.networks, pd.DataFrame):
            return len(self.networks)
        return len(next(iter(self.networks.values())))

    def stream(self, parts: Sequence[Int64[Tensor, "_"]], workers: int = 0) -> Iterator[Networks]:
        """Networks of each group of rows; see `NetworkSet`."""
        del workers  # there is nothing to read
        for part in parts:
            if isinstance(self.networks, pd.DataFrame):
                yield self.networks.iloc[part.numpy()]
            else:
                yield {
                    name: tensor[part.to(tensor.device)] for name, tensor in self.networks.items()
                }


def as_set(networks: Networks | StoredParams) -> NetworkSet:
    """Networks as something that is read by rows."""
    return networks if isinstance(networks, StoredParams) else InMemory(networks)


@dataclass(frozen=True)
class Drawn:
    """Features that are made when they are needed: drawn anew for each pass, or of networks that do not fit into memory.

    Networks are read and treated in blocks of several batches, which depend on nothing but the
    batches, so that random treatments draw the same wherever the networks are.

    Attributes:
        networks: Where from.
        compute: What makes features of networks.
        most: Networks in a block, at most.
        workers: Threads that read ahead.
        device: Where features go.
    """

    networks: NetworkSet
    compute: Callable[[Any], Features]
    most: int
    workers: int = 0
    device: torch.device | str = "cpu"

    def __len__(self) -> int:
        return len(self.networks)

    def batches(self, parts: Sequence[Int64[Tensor, "_"]]) -> Iterator[Features]:
        """Features of each batch.

        Args:
            parts: Index of each batch.

        Yields:
            Features, on the device.
        """
        blocks = blocks_of([part.cpu() for part in parts], self.most)
        read = self.networks.stream([torch.cat(block) for block in blocks], self.workers)
        for block, networks in zip(blocks, read, strict=True):
            features, start = to_device(self.compute(networks), self.device), 0
            for batch in block:
                yield rows(features, slice(start, start + len(batch)))
                start += len(batch)

    def all(self) -> Iterator[Features]:
        """Features of all networks, in order, in large pieces."""
        return self.batches(torch.arange(len(self)).split(self.most))

    def kept(self) -> Features:
        """Features of all networks at once."""
        return concatenate(list(self.all()))


def block_size(num_params: int) -> int:
    """Networks that are read and treated together.

    Args:
        num_params: Scalars of one network.

    Returns:
        At least one.
    """
    return max(1, BLOCK_ENTRIES // num_params)


def in_pieces(features: Features, most: int) -> Iterable[Features]:
    """Features that are in memory, some networks at a time, without a copy."""
    return (
        rows(features, slice(start, start + most)) for start in range(0, count_rows(features), most)
    )
