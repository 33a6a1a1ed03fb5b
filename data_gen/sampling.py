"""Hyperparameters: distributions, valid ranges, and one row of draws for each network."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int64, Shaped
from pydantic import model_validator
from torch import Tensor

from data_gen.rng import key, uniform
from zoo.architectures.table import is_storable
from zoo.config import Number, StrictModel, Whole, whole

Value = bool | int | float | str


class Distribution(StrictModel):
    """How a hyperparameter is drawn; exactly one of the fields is given.

    A plain value in a job means `fixed`.

    Attributes:
        fixed: The same value for every network.
        choice: One of the values, each as likely.
        uniform: `(low, high)`, from U(low, high).
        log_uniform: `(low, high)`, the logarithm uniform; low > 0.
        int_range: `(low, high)`, integers, both ends included.
    """

    fixed: Value | None = None
    choice: tuple[Value, ...] | None = None
    uniform: tuple[Number, Number] | None = None
    log_uniform: tuple[Number, Number] | None = None
    int_range: tuple[Whole, Whole] | None = None

    @model_validator(mode="before")
    @classmethod
    def _plain_value_is_fixed(cls, data: Any) -> Any:
        return data if isinstance(data, (dict, Distribution)) else {"fixed": data}

    @model_validator(mode="after")
    def _check(self) -> "Distribution":
        given = self.model_dump(exclude_none=True)
        if len(given) != 1:
            raise ValueError(
                f"expected a value or exactly one of {list(type(self).model_fields)}, "
                f"found {sorted(given) or 'none'}"
            )
        ((name, value),) = given.items()
        if name == "choice" and not value:
            raise ValueError("choice: expected at least one value")
        if name in ("uniform", "log_uniform", "int_range"):
            low, high = value
            if not low <= high:
                raise ValueError(f"{name}: expected low <= high, found low = {low}, high = {high}")
            if name == "log_uniform" and low <= 0:
                raise ValueError(f"log_uniform: expected low > 0, found {low}")
        return self

    @property
    def _given(self) -> tuple[str, Any]:
        """Name and value of the field that is given."""
        ((name, value),) = self.model_dump(exclude_none=True).items()
        return name, value

    @property
    def extremes(self) -> tuple[Value, ...]:
        """Values that bound all draws; for a choice, all of them."""
        name, value = self._given
        return (value,) if name == "fixed" else value

    def sample(self, u: Tensor) -> Shaped[np.ndarray, " N"]:
        """Map uniform numbers to draws.

        Args:
            u: `[N]`, in [0, 1), float64.

        Returns:
            One value a network: float64, int64 or text.
        """
        draws = u.numpy()
        name, value = self._given
        if name in ("fixed", "choice"):
            values = np.array(self.extremes)
            return values[np.floor(draws * len(values)).astype(np.int64)]
        low, high = np.log(value) if name == "log_uniform" else value
        if name == "int_range":
            return low + np.floor(draws * (high - low + 1)).astype(np.int64)
        between = low + draws * (high - low)
        return np.exp(between) if name == "log_uniform" else between


@dataclass(frozen=True)
class Hyperparameter:
    """What a hyperparameter may be.

    Attributes:
        default: Value where a job is silent, None if it must or may be left out.
        low: Smallest valid value.
        high: Largest valid value.
        open_low: Whether `low` itself is invalid.
        open_high: Whether `high` itself is invalid.
        integer: Whether only integers are valid.
        options: The valid names, for a categorical one; a table counts as its names, rows added
            later included.
    """

    default: Value | None = None
    low: int | float = -math.inf
    high: int | float = math.inf
    open_low: bool = False
    open_high: bool = False
    integer: bool = False
    options: Collection[str] = ()

    @property
    def range(self) -> tuple[float | None, float | None]:
        """Smallest and largest valid value, None where there is no bound."""
        low, high = (float(b) if math.isfinite(b) else None for b in (self.low, self.high))
        return low, high

    def whole(self, distribution: Distribution) -> Distribution:
        """The distribution, `1e3` as the integer 1,000 if only integers are valid."""
        if not self.integer:
            return distribution
        fixed, choice = whole(distribution.fixed), distribution.choice
        update = {"fixed": fixed, "choice": choice and tuple(map(whole, choice))}
        return distribution.model_copy(update=update)

    def check(self, distribution: Distribution) -> None:
        """Refuse a distribution that can draw an invalid value.

        Args:
            distribution: Its distribution.

        Raises:
            ValueError: If it can.
        """
        for value in distribution.extremes:
            if self.options:
                if value not in self.options:
                    raise ValueError(f"expected one of {list(self.options)}, found {value!r}")
                continue
            # the bounds of a continuous distribution are never of type int
            if isinstance(value, (bool, str)) or (self.integer and not isinstance(value, int)):
                raise ValueError(
                    f"expected {'integers' if self.integer else 'numbers'}, found {value!r}"
                )
            if not is_storable(value):
                raise ValueError(f"expected numbers that float32 holds, found {value!r:.50}")
            bounds = ((self.low, self.open_low), (self.high, self.open_high))
            if not self.low <= value <= self.high or (value, True) in bounds:
                left, right = "(" if self.open_low else "[", ")" if self.open_high else "]"
                raise ValueError(
                    f"expected values in {left}{self.low:g}, {self.high:g}{right}, found {value}"
                )


def sample_table(
    distributions: dict[str, Distribution], seed: int, network_ids: Int64[Tensor, " N"]
) -> dict[str, Shaped[np.ndarray, " N"]]:
    """Draw the hyperparameters of networks; a network's row depends on the seed and its id only.

    Args:
        distributions: Distribution by name.
        seed: Seed of the job.
        network_ids: Ids of the networks.

    Returns:
        One array by name.
    """
    return {
        name: distribution.sample(uniform(key(seed, "hyperparameter", name), network_ids))
        for name, distribution in distributions.items()
    }


def group_rows(
    table: dict[str, Shaped[np.ndarray, " N"]], names: Sequence[str]
) -> dict[tuple[Any, ...], list[int]]:
    """Rows that agree in some columns, such as those that must share a compiled step.

    Args:
        table: Columns by name.
        names: Columns to group by.

    Returns:
        Row numbers by the values of the columns, in order of the values.
    """
    groups: dict[tuple[Any, ...], list[int]] = {}
    for row, values in enumerate(zip(*(table[name].tolist() for name in names), strict=True)):
        groups.setdefault(values, []).append(row)
    return dict(sorted(groups.items()))
