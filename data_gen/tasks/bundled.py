"""Data sets that come with scikit-learn."""

from functools import cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Shaped
from torch import Tensor

TABLES = {"iris": 100, "wine": 120, "breast_cancer": 400, "diabetes": 300}
"""Tables, and how many rows are for training by default."""


@cache
def load_digits() -> tuple[Shaped[Tensor, "X 1 8 8"], Shaped[Tensor, " X"]]:
    """Images and labels as scikit-learn has them: a text file, so it is read once."""
    from sklearn import datasets  # a second of import that other tasks need not pay

    digits: Any = datasets.load_digits()
    images = torch.from_numpy(digits.images.astype(np.uint8))[:, None]
    return images, torch.from_numpy(digits.target.astype(np.int64))


def load_table(name: str) -> tuple[Shaped[Tensor, "X F"], Shaped[Tensor, " X"], int | None]:
    """A table.

    Args:
        name: Name in `TABLES`.

    Returns:
        Its columns, targets, and the number of classes, None if targets are numbers.
    """
    from sklearn import datasets

    rows: Any = getattr(datasets, f"load_{name}")()
    x, y = torch.from_numpy(rows.data).float(), torch.from_numpy(rows.target)
    if "target_names" not in rows:
        return x, y.float(), None
    return x, y.long(), len(rows.target_names)
