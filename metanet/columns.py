"""Columns of hyperparameters: what a metanet knows of them, and which values they may have."""

from dataclasses import dataclass
from math import inf

import numpy as np
import pandas as pd
from jaxtyping import Bool

from zoo.options import Finite, plain


@dataclass(frozen=True)
class HyperparameterColumn:
    """What a hyperparameter of networks may be.

    Attributes:
        values: The known values of a column of text; None for numbers.
        low: Smallest number, None where there is no bound.
        high: Largest number.
        nullable: Whether a network may have none (NaN).
    """

    values: tuple[str, ...] | None = None
    low: Finite | None = None
    high: Finite | None = None
    nullable: bool = False

    @property
    def bounds(self) -> tuple[float, float]:
        """The range with infinities where it is open."""
        return -inf if self.low is None else self.low, inf if self.high is None else self.high

    def __str__(self) -> str:
        if self.values is not None:
            return f"one of {list(self.values)}"
        low, high = self.bounds
        return f"finite numbers from {low:g} to {high:g}"

    def valid(self, column: pd.Series) -> Bool[np.ndarray, " N"]:
        """Which values of a column are such as this one may have.

        Args:
            column: One value a network.

        Returns:
            One truth a network.
        """
        if self.values is not None:
            return np.isin(column.astype(str).to_numpy(), self.values)
        return self._valid_numbers(column)

    def _valid_numbers(self, column: pd.Series) -> Bool[np.ndarray, " N"]:
        if not pd.api.types.is_numeric_dtype(column):
            return np.zeros(len(column), bool)
        numbers = column.to_numpy(dtype="float64", na_value=np.nan)
        low, high = self.bounds
        is_inside = np.isfinite(numbers) & (low <= numbers) & (numbers <= high)
        return is_inside | (np.isnan(numbers) & self.nullable)

    def check(self, name: str, column: pd.Series) -> None:
        """Refuse values that networks cannot have, or that are unknown.

        Args:
            name: Of the hyperparameter.
            column: One value a network.

        Raises:
            ValueError: If there is one.
        """
        bad = column.to_numpy()[~self.valid(column)]
        if len(bad):
            raise ValueError(
                f"hyperparameter {name!r}: expected {self}, "
                f"got {plain(bad[0])!r:.200} ({len(bad)} of {len(column)} networks)"
            )
