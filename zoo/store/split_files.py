"""The networks of one split: the files that have them, and which rows of these files they are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int64, Shaped
from torch import Tensor

from zoo.params import Params, select
from zoo.store.columns import read_columns, read_flat, read_tensors
from zoo.store.entries import SPLITS, SplittingEntry, splitting_digest
from zoo.store.mapped import MappedFile, StoreError
from zoo.store.streaming import StoredParams, open_stored


@dataclass(frozen=True)
class SplitFiles:
    """Where the networks of a split are.

    Attributes:
        files: Checked files; rows of one after those of the one before it.
        rows: Row of each network, counted over all files, or a slice of all rows.
    """

    files: Sequence[MappedFile]
    rows: Int64[np.ndarray, " N"] | slice

    def columns(self, names: Sequence[str]) -> dict[str, Shaped[np.ndarray, "N ..."]]:
        """Read columns.

        Args:
            names: Their names.

        Returns:
            Arrays by name; text has object dtype.
        """
        columns = read_columns(self.files, names)
        return {name: array[self.rows] for name, array in columns.items()}

    def tensors(self, shapes: Mapping[str, tuple[int, ...]]) -> Params:
        """Read float32 columns.

        Args:
            shapes: Shape of each column without its rows.

        Returns:
            Tensors `[N, *shape]`.
        """
        return select(read_tensors(self.files, shapes), self.rows)

    def flat(self, shapes: Mapping[str, tuple[int, ...]]) -> Float[Tensor, "N P"]:
        """Read float32 columns into one tensor.

        Args:
            shapes: Shape of each column without its rows.

        Returns:
            All columns of a network in turn.
        """
        return read_flat(self.files, shapes)[self.rows]

    def stored(
        self, shapes: Mapping[str, tuple[int, ...]], free: Mapping[str, Tensor]
    ) -> StoredParams:
        """The networks without reading them.

        Args:
            shapes: Shape of each tensor of one network.
            free: Masks of tensors of which only the free entries are wanted.

        Returns:
            What reads any of them.
        """
        return open_stored(self.files, shapes, free).select(self.rows)


def rows_of_splitting(
    split_of: Shaped[np.ndarray, " N"], name: str, described: SplittingEntry
) -> dict[str, Int64[np.ndarray, "_"]]:
    """Rows of each split of a splitting that files do not follow.

    Args:
        split_of: Name of the split of each network, as its column has it.
        name: Name of the splitting.
        described: What the manifest says of it.

    Returns:
        Rows, counted over all files.

    Raises:
        StoreError: If the column is another splitting.
    """
    rows = {split: np.flatnonzero(split_of == split) for split in SPLITS}
    if splitting_digest(rows) != described.sha256:
        raise StoreError(f"column {name!r} is not the splitting that the manifest describes")
    return rows
