"""Params of networks that stay on disk.

Any rows of a split are read when they are needed, so a zoo may exceed the memory.

Columns are contiguous, so a network is one piece of the file for each tensor. Pieces are read into
buffers, not mapped: what is in memory is what was asked for, and a file that becomes shorter is an
error instead of a crash.
"""

import math
import os
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice, pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from zoo.params import Params, free_entries, select
from zoo.store.columns import check_rows
from zoo.store.mapped import Identity, MappedFile, StoreError, open_file

GAP = 2**15
"""Bytes between two wanted pieces that are read too, since one longer read is faster than two."""
READ_BYTES = 2**25
"""Bytes of consecutive batches that are read together, in the order of the file."""


class Batch(NamedTuple):
    """Some networks of a split.

    Attributes:
        params: Tensors `[B, *shape]`, float32.
        columns: Columns of the table by name: tensors `[B]`, or lists of texts.
    """

    params: Params
    columns: dict[str, Tensor | list[str]]


class _File(NamedTuple):
    """A file that was checked and closed again: it is opened when rows of it are wanted."""

    path: Path
    identity: Identity
    rows: int
    offsets: dict[str, int]


@dataclass(frozen=True, eq=False)
class StoredParams:
    """Params of N networks on disk.

    Attributes:
        files: Checked files; rows of one after those of the one before it.
        shapes: Shape of each tensor of one network.
        rows: Row of each network, counted over all files.
        free: Masks of tensors of which only the free entries are given; none for the full view.
    """

    files: tuple[_File, ...]
    shapes: Mapping[str, tuple[int, ...]]
    rows: Int64[np.ndarray, "N"]
    free: Mapping[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def num_params(self) -> int:
        """Scalars of one network on disk."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    @property
    def most_together(self) -> int:
        """Networks that are read together, at most."""
        return max(1, READ_BYTES // (4 * self.num_params))

    def select(self, index: Int64[np.ndarray, "M"] | slice) -> "StoredParams":
        """Some of the networks, in the order of the index; nothing is read."""
        return replace(self, rows=self.rows[index])

    def read(self, index: Int64[Tensor, "B"]) -> Params:
        """Read some of the networks.

        Args:
            index: Which, in any order, repeated or not.

        Returns:
            Tensors `[B, *shape]` in the order of the index.

        Raises:
            StoreError: If a file has become shorter since it was checked.
        """
        wanted = self.rows[index.numpy()]
        order = np.argsort(wanted, kind="stable")
        starts = np.cumsum([0, *(file.rows for file in self.files)])
        bounds = np.searchsorted(wanted[order], starts)
        shapes = self.shapes.items()
        targets = {name: np.empty((len(wanted), *shape), np.float32) for name, shape in shapes}
        for file, start, (low, high) in zip(self.files, starts[:-1], pairwise(bounds), strict=True):
            if low < high:
                _read_rows(file, wanted[order[low:high]] - start, order[low:high], targets)
        params = {name: torch.from_numpy(array) for name, array in targets.items()}
        return free_entries(params, self.free)

    def stream(self, parts: Sequence[Int64[Tensor, "_"]], workers: int = 0) -> Iterator[Params]:
        """Read one group of networks after the other.

        Args:
            parts: Index of each group, as `read` takes it.
            workers: Threads that read ahead, one group each and one more; 0 reads each group when
                it is asked for. What is given, and in which order, does not depend on it.

        Yields:
            Params of each group.
        """
        if not workers:
            yield from map(self.read, parts)
            return
        with ThreadPoolExecutor(workers, thread_name_prefix="zoo-reader") as pool:
            reads = (pool.submit(self.read, part) for part in parts)
            ahead = deque(islice(reads, workers + 1))
            try:
                while ahead:
                    params = ahead.popleft().result()
                    ahead.extend(islice(reads, 1))
                    yield params
            finally:
                for future in ahead:
                    future.cancel()


def open_stored(
    files: Iterable[MappedFile],
    shapes: Mapping[str, tuple[int, ...]],
    free: Mapping[str, Tensor],
) -> StoredParams:
    """Find columns in files without reading them; the files need not stay open.

    Args:
        files: Shards of a split in order.
        shapes: Shape of each tensor of one network.
        free: Masks of tensors of which only the free entries are wanted.

    Returns:
        The networks, all rows in order.
    """
    stored = []
    for file in files:
        rows = check_rows(file, shapes)
        offsets = {name: file.columns[name].offset for name in shapes}
        stored.append(_File(file.path, file.identity, rows, offsets))
    count = sum(file.rows for file in stored)
    return StoredParams(tuple(stored), shapes, np.arange(count), free)


def shuffled(count: int, seed: int, epoch: int = 0) -> Int64[Tensor, "N"]:
    """A uniformly random order.

    Args:
        count: Number of networks.
        seed: Of the order.
        epoch: Each has an order of its own.

    Returns:
        Each of `0 .. count - 1` once.
    """
    state = int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0])
    return torch.randperm(count, generator=torch.Generator().manual_seed(state))


def group_batches(batches: Sequence[Tensor], most: int) -> list[list[Tensor]]:
    """Group consecutive batches.

    Args:
        batches: Index of each batch.
        most: Networks in a group, at most; a longer batch is a group of its own.

    Returns:
        The groups.
    """
    blocks: list[list[Tensor]] = []
    size = most + 1
    for batch in batches:
        if size + len(batch) > most:
            blocks.append([])
            size = 0
        blocks[-1].append(batch)
        size += len(batch)
    return blocks


def in_batches(
    stored: StoredParams,
    columns: Mapping[str, np.ndarray],
    batches: Sequence[Int64[Tensor, "_"]],
    workers: int,
) -> Iterator[Batch]:
    """Networks with columns of their table, batch by batch.

    Args:
        stored: Networks on disk.
        columns: Columns of the table, of all networks.
        batches: Index of each batch.
        workers: Threads that read ahead, see `StoredParams.stream`.

    Yields:
        The batches, in order.
    """
    blocks = group_batches(batches, stored.most_together)
    for block, params in zip(
        blocks, stored.stream([torch.cat(block) for block in blocks], workers), strict=True
    ):
        start = 0
        for batch in block:
            stop = start + len(batch)
            chosen = {name: array[batch.numpy()] for name, array in columns.items()}
            values = {
                name: array.tolist() if array.dtype.kind in "OU" else torch.from_numpy(array)
                for name, array in chosen.items()
            }
            yield Batch(select(params, slice(start, stop)), values)
            start = stop


def _read_rows(
    file: _File,
    rows: Int64[np.ndarray, "R"],
    places: Int64[np.ndarray, "R"],
    targets: Mapping[str, np.ndarray],
) -> None:
    """Read ascending rows of one file into places of arrays."""
    with open_file(file.path) as descriptor:
        if Identity.of(descriptor) != file.identity:
            raise StoreError(f"{file.path}: the file changed since it was checked")
        for name, target in targets.items():
            size = 4 * math.prod(target.shape[1:])
            for piece, into in _pieces(rows, places, size):
                at = file.offsets[name] + int(piece[0]) * size
                if _is_range(piece) and _is_range(into):
                    _fill(file.path, descriptor, target[into[0] : into[-1] + 1], at)
                else:
                    read = np.empty((piece[-1] - piece[0] + 1, *target.shape[1:]), np.float32)
                    _fill(file.path, descriptor, read, at)
                    target[into] = read[piece - piece[0]]


def _pieces(
    rows: Int64[np.ndarray, "R"], places: Int64[np.ndarray, "R"], size: int
) -> Iterator[tuple[Int64[np.ndarray, "_"], Int64[np.ndarray, "_"]]]:
    """Rows that are read together, and where they go: no more than `GAP` bytes between two."""
    cuts = np.flatnonzero((np.diff(rows) - 1) * size > GAP) + 1
    return zip(np.split(rows, cuts), np.split(places, cuts), strict=True)


def _is_range(numbers: Int64[np.ndarray, "R"]) -> bool:
    """Whether each number is the one before it plus 1."""
    return bool((np.diff(numbers) == 1).all())


def _fill(path: Path, descriptor: int, array: Float32[np.ndarray, "R ..."], offset: int) -> None:
    """Read bytes of a file until an array in C order is full."""
    view = memoryview(array).cast("B")  # pyright: ignore[reportArgumentType]
    while view:
        count = os.preadv(descriptor, [view], offset)
        if not count:
            raise StoreError(
                f"{path}: expected {len(view)} more bytes at {offset}, found the end; it was cut "
                "meanwhile"
            )
        view, offset = view[count:], offset + count
