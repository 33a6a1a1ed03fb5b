"""Which networks are for training, validation and test."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Int64

from zoo.store.entries import SPLITS

Split = Sequence[int | float] | Mapping[str, int | float] | str
Rows = dict[str, Int64[np.ndarray, "_"]]


def rows_of_splits(
    split: Split, table: pd.DataFrame, groups: Sequence[str], seed: int, what: str
) -> Rows:
    """Divide the rows of a table.

    Args:
        split: Shares of training, validation and test, drawn at random; or the name of a column
            that has `train`, `validation` or `test` in each row.
        table: One row a network.
        groups: Columns whose groups stay whole in a draw.
        seed: Of the draw.
        what: Whose table it is, for errors.

    Returns:
        Rows of each split, in order.

    Raises:
        ValueError: If the shares or the column are none.
    """
    if isinstance(split, str):
        return _by_column(split, table, what)
    shares = _shares(split)
    if len(groups) > 1:
        raise ValueError(
            f"{what}: a split is drawn for at most one column of role 'group', got {list(groups)}; "
            "name a column that has the split of each network"
        )
    number = pd.factorize(table[groups[0]])[0] if groups else np.arange(len(table))
    generator = torch.Generator().manual_seed(seed)
    place = torch.randperm(int(number.max()) + 1, generator=generator).numpy()[number]
    # A group belongs where its middle is, so that sizes are as near to the shares as groups allow.
    sizes = np.bincount(place)
    middle = np.cumsum(sizes) - sizes / 2
    ends = np.cumsum(shares)[:-1] * len(table)
    which = np.searchsorted(ends, middle[place])
    return {name: np.flatnonzero(which == at) for at, name in enumerate(SPLITS)}


def _by_column(column: str, table: pd.DataFrame, what: str) -> Rows:
    if column not in table:
        raise ValueError(f"{what}: split: no column {column!r}; columns are {list(table)}")
    values = table[column].to_numpy(object)
    rows = {name: np.flatnonzero(values == name) for name in SPLITS}
    if sum(map(len, rows.values())) != len(table):
        wrong = next(row for row, value in enumerate(values) if value not in SPLITS)
        raise ValueError(
            f"{what}: column {column!r}, row {wrong}: expected one of {SPLITS}, "
            f"found {values[wrong]!r:.100}"
        )
    return rows


def _shares(split: Sequence[int | float] | Mapping[str, int | float]) -> list[float]:
    """Shares of the three splits."""
    if isinstance(split, Mapping):
        if unknown := [name for name in split if name not in SPLITS]:
            raise ValueError(f"split: no splits {unknown}; splits are {SPLITS}")
        split = [split.get(name, 0) for name in SPLITS]
    shares = [float(share) for share in split]
    if len(shares) != len(SPLITS) or min(shares) < 0 or abs(sum(shares) - 1) > 1e-9:
        raise ValueError(
            f"split: expected three shares of {SPLITS} that sum to 1, or the name of a column; "
            f"got {split}"
        )
    return shares
