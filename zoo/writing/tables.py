"""Tables of networks that anyone brings: what each column holds, and the values as stored."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, get_args

import numpy as np
import pandas as pd
from jaxtyping import Shaped
from pandas.api import types
from pydantic import ValidationError

from zoo.config import first_error
from zoo.store.entries import ColumnEntry, ColumnType, Role

Table = pd.DataFrame | Iterable[Mapping[str, Any]]
Columns = dict[str, Shaped[np.ndarray, " N"]]
Roles = Mapping[str, Role | ColumnEntry]
ID = "network_id"
_METRIC = re.compile(r"(train|validation|test)_.+")


def table_of(given: Table, what: str) -> pd.DataFrame:
    """A table of networks.

    Args:
        given: A data frame, or one mapping a network.
        what: Whose table it is, for errors.

    Returns:
        One row a network, numbered from 0.

    Raises:
        ValueError: If it is something else, has no row, or a column of ids.
    """
    if not isinstance(given, pd.DataFrame):
        given = pd.DataFrame(list(given))
    if not len(given):
        raise ValueError(f"{what}: expected a table with one row a network, got none")
    if ID in given:
        raise ValueError(
            f"{what}: a column {ID!r}, which symzoo counts itself; leave it out or rename it"
        )
    if repeated := given.columns[given.columns.duplicated()].tolist():
        raise ValueError(f"{what}: two columns are named {repeated[0]!r}")
    return given.reset_index(drop=True)


def typed(
    tables: Mapping[str, pd.DataFrame], roles: Roles
) -> tuple[dict[str, ColumnEntry], dict[str, Columns]]:
    """Types, roles and values of the columns of all populations.

    A column that a population lacks has no values there. Whole numbers of which some are missing
    become floating ones. A column named as a metric of ours, such as `test_accuracy`, is one; every
    other is `info` unless roles say otherwise.

    Args:
        tables: By population.
        roles: By column: a role, or all that is to be said of it.

    Returns:
        Entries of the manifest by column, and values by population and column.

    Raises:
        ValueError: If a role is of no column, or values do not fit.
    """
    whole = pd.concat(tables.values(), ignore_index=True)
    if unknown := [name for name in roles if name not in whole]:
        raise ValueError(f"roles: no columns {unknown}; columns are {list(whole)}")
    entries = {ID: ColumnEntry(role="id", dtype="int64", range=(0, None))}
    values = {}
    for name in map(str, whole):
        column = pd.Series(whole[name])
        entries[name], values[name] = _column(name, column, roles.get(name))
    ends = np.cumsum([len(table) for table in tables.values()])[:-1]
    parts = {name: np.split(column, ends) for name, column in values.items()}
    return entries, {
        population: {name: pieces[at] for name, pieces in parts.items()}
        for at, population in enumerate(tables)
    }


def _column(
    name: str, column: pd.Series, role: Role | ColumnEntry | None
) -> tuple[ColumnEntry, Shaped[np.ndarray, " N"]]:
    """What a column holds, and its values."""
    entry = role if isinstance(role, ColumnEntry) else _entry(name, column, role)
    empty = column.isna().to_numpy()
    if entry.dtype == "text":
        values = column.astype(object).where(~empty, "").map(str).to_numpy(object)
    else:
        values = _numbers(name, column, entry.dtype)
    if fault := entry.fault_of(values):
        raise ValueError(f"column {name!r}: {fault}; expected a value, or none, in each row")
    return entry, values


def _entry(name: str, column: pd.Series, role: Role | None) -> ColumnEntry:
    """What a column holds, by its values."""
    if role is not None and role not in get_args(Role):
        raise ValueError(f"roles: {name!r}: expected one of {get_args(Role)}, got {role!r}")
    dtype = _type_of(name, column)
    is_number = dtype in ("float64", "int64")
    role = role or ("metric" if is_number and _METRIC.fullmatch(name) else "info")
    missing = column.isna() | (column.map(str) == "") if dtype == "text" else column.isna()
    try:
        return ColumnEntry(role=role, dtype=dtype, nullable=bool(missing.any()))
    except ValidationError as error:
        raise ValueError(f"column {name!r}: {first_error(error)}") from error


def _type_of(name: str, column: pd.Series) -> ColumnType:
    present = column.dropna().infer_objects()
    is_full = len(present) == len(column)
    if types.is_bool_dtype(present) and is_full:
        return "bool"
    if types.is_integer_dtype(present) and is_full:
        return "int64"
    if types.is_numeric_dtype(present):
        return "float64"
    for row, value in present.items():
        if not isinstance(value, str):
            raise ValueError(
                f"column {name!r}, row {row}: expected numbers, texts or booleans in all rows, "
                f"found {value!r:.100}"
            )
    return "text"


def _numbers(name: str, column: pd.Series, dtype: str) -> Shaped[np.ndarray, " N"]:
    """Numbers or booleans; what is missing is NaN."""
    try:
        return column.astype(dtype).to_numpy(dtype)
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError(f"column {name!r}: expected values of type {dtype}: {error}") from error
