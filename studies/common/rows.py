"""Rows of a study: their columns as numbers, and those that agree in something."""

from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float64


def where(rows: pd.DataFrame, **values: Any) -> pd.DataFrame:
    """The rows in which each named column has the given value, one for all or one for each."""
    for column, value in values.items():
        rows = rows.loc[rows[column] == value]
    return rows


def numbers(rows: pd.DataFrame, column: str) -> Float64[np.ndarray, " n"]:
    """A column as an array of floating numbers."""
    return rows[column].to_numpy(np.float64)


def span_text(values: Any) -> str:
    """Smallest and largest of some whole numbers, or the one that all are."""
    low, high = values.min(), values.max()
    return f"{low:.0f}" if low == high else f"{low:.0f} to {high:.0f}"


def split_by(rows: pd.DataFrame, columns: str | list[str]) -> list[tuple[Any, pd.DataFrame]]:
    """Rows that agree in a column or some columns, with what they agree in; as they appear."""
    return list(rows.groupby(columns, sort=False))
