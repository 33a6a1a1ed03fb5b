"""Populations that are to be made: networks of a kind, their table, and how they are divided."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from zoo.architectures.base import Inputs
from zoo.params import Params, batch_shape, select, stack
from zoo.state_dicts import tensors_of
from zoo.store.entries import ColumnEntry, Role
from zoo.writing.networks import Kind, Model, kind_of
from zoo.writing.splits import Rows, Split, rows_of_splits
from zoo.writing.tables import Columns, Roles, Table, table_of, typed

Networks = Mapping[str, Any] | Sequence[Any] | Iterable[Any]
Given = tuple[Model, Networks, Table]
_STACKED = "tensors [N, *shape] by name, or one state dict a network"


@dataclass(frozen=True, eq=False)
class Content:
    """A population that is to be made.

    Attributes:
        name: Its name.
        kind: What its networks are.
        networks: Stacked tensors, or one state dict a row of the table.
        table: Its columns, in the order in which networks are given.
        rows: Rows of each split.
    """

    name: str
    kind: Kind
    networks: Networks
    table: Columns
    rows: Rows

    @property
    def sizes(self) -> dict[str, int]:
        """Networks of each split."""
        return {split: len(rows) for split, rows in self.rows.items()}

    @property
    def order(self) -> np.ndarray:
        """Row of each network by its id."""
        return np.concatenate(list(self.rows.values()))

    def columns(self, rows: np.ndarray) -> Columns:
        """The columns of some networks."""
        return {name: values[rows] for name, values in self.table.items()}

    def blocks(self, wanted: Sequence[np.ndarray]) -> Iterator[tuple[int, Params]]:
        """Networks, block after block; memory holds one block, or one a split if they only stream.

        Args:
            wanted: Rows of each block.

        Yields:
            Number of a block, and its params `[B, *shape]`, float32.

        Raises:
            ValueError: If there are not as many networks as rows, or one is not of the kind.
        """
        count = sum(map(len, self.rows.values()))
        if isinstance(self.networks, Mapping):
            stacked = self._stacked(self.networks, count)
            parts = (select(stacked, torch.from_numpy(rows)) for rows in wanted)
        elif isinstance(self.networks, Sequence):
            _check_count(self.name, len(self.networks), count)
            at = self.networks
            parts = (stack([self._read(at[row], row) for row in rows.tolist()]) for rows in wanted)
        else:
            yield from self._streamed(self.networks, wanted, count)
            return
        for number, params in enumerate(parts):
            self._check(params, wanted[number])
            yield number, params

    def _streamed(
        self, networks: Iterable[Any], wanted: Sequence[np.ndarray], count: int
    ) -> Iterator[tuple[int, Params]]:
        """Blocks of networks that come one after the other, each as soon as it is full."""
        block_of = {row: number for number, rows in enumerate(wanted) for row in rows.tolist()}
        begun: dict[int, list[Params]] = {}
        row = -1
        for row, network in enumerate(networks):
            _check_count(self.name, max(row + 1, count), count)
            number = block_of.get(row)
            if number is None:
                continue
            block = begun.setdefault(number, [])
            block.append(self._read(network, row))
            if len(block) == len(wanted[number]):
                params = stack(begun.pop(number))
                self._check(params, wanted[number])
                yield number, params
        _check_count(self.name, row + 1, count)

    def _read(self, network: object, row: int) -> Params:
        return self.kind.read(network, f"population {self.name!r}, network {row}")

    def _stacked(self, networks: Mapping[Any, Any], count: int) -> Params:
        """Networks that are stacked already."""
        what = f"population {self.name!r}"
        tensors = tensors_of(networks, torch.float32, what, _STACKED)
        batch = batch_shape(self.kind.space, tensors)
        if len(batch) != 1:
            raise ValueError(f"{what}: expected {_STACKED}, got tensors of one network")
        _check_count(self.name, batch[0], count)
        return {name: tensors[name] for name in self.kind.space.tensors}

    def _check(self, params: Params, rows: np.ndarray) -> None:
        """Refuse networks that no file may hold."""
        for name, tensor in params.items():
            finite = tensor.flatten(1).isfinite().all(1)
            if not finite.all():
                row = rows[int((~finite).nonzero()[0])]
                raise ValueError(
                    f"population {self.name!r}, network {row}, {name!r}: expected finite entries; "
                    "leave such networks out, of the networks and of the table"
                )


def _check_count(name: str, count: int, expected: int) -> None:
    if count != expected:
        more = " or more" if count > expected else ""
        raise ValueError(
            f"population {name!r}: expected {expected} networks, as many as rows of the table, "
            f"got {count}{more}"
        )


def content_of(
    populations: Mapping[str, Given], split: Split, roles: Roles, inputs: Inputs | None, seed: int
) -> tuple[dict[str, ColumnEntry], list[Content]]:
    """What is to be made of what was given.

    Args:
        populations: Model, networks and table by population.
        split: How rows are divided; a column that says so is left out of the table.
        roles: Roles of columns.
        inputs: Example inputs of modules.
        seed: Of the draw of splits.

    Returns:
        Columns of the zoo, and each population.

    Raises:
        ValueError: If something does not fit.
    """
    tables, rows = {}, {}
    groups = [name for name, role in roles.items() if _role(role) == "group"]
    for name, (_, _, given) in populations.items():
        table = table_of(given, f"population {name!r}")
        rows[name] = rows_of_splits(split, table, groups, seed, f"population {name!r}")
        tables[name] = table.drop(columns=split) if isinstance(split, str) else table
    columns, values = typed(tables, roles)
    contents = [
        Content(name, kind_of(model, inputs), networks, values[name], rows[name])
        for name, (model, networks, _) in populations.items()
    ]
    return columns, contents


def _role(role: Role | ColumnEntry) -> Role:
    return role.role if isinstance(role, ColumnEntry) else role
