"""Cells of a study: each is measured once, its rows kept in a file named by all they depend on."""

import dataclasses
import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn, Protocol, TypeVar, runtime_checkable

import pandas as pd
import torch
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from data_gen.executors.executor import Executor, InThisProcess
from data_gen.executors.failures import Failure
from zoo.imports import Trust, trust
from zoo.store.atomic import atomic_write
from zoo.store.population import Population
from zoo.store.zoo import load

FORMAT = 3  # raise it when the meaning of a stored cell changes
PACKAGES = ("zoo", "data_gen")
PLACE = {"is_place": True}
"""Metadata of a field that says where something lies; such fields are no part of the identity."""


@runtime_checkable
class Cell(Protocol):
    """What one measurement is about: a frozen dataclass of names, numbers, tuples and paths.

    A path to a zoo is marked as a `PLACE`. What depends on a zoo has its `fingerprint` too.
    """

    @property
    def name(self) -> str:
        """A few words that tell it from the other cells of the study, for messages."""
        ...


CellOf = TypeVar("CellOf", bound=Cell)


@dataclass(frozen=True)
class Measurement:
    """A cell, how it is measured, and where its rows are kept.

    Attributes:
        measure: `measure(cell, *rows of needs) -> rows`; at the top of a module, as processes
            import it.
        cell: What is measured.
        out: Directory of the study.
        code: What `code_fingerprint` was when the study was planned.
        needs: Measurements whose rows it works on; they are done before it.
        cost: The most expensive ones come first, so that processes end at about the same time.
        only_here: Why other processes cannot do it; empty if they can.
    """

    measure: Callable[..., pd.DataFrame]
    cell: Any
    out: Path
    code: str
    needs: tuple["Measurement", ...] = ()
    cost: int = 0
    only_here: str = ""

    @cached_property
    def key(self) -> str:
        """SHA-256 of all that the rows depend on, hexadecimal."""
        function = [self.measure.__module__, self.measure.__qualname__]
        needs = [need.key for need in self.needs]
        identity = [FORMAT, self.code, *function, self.cell, needs]
        text = json.dumps(identity, sort_keys=True, default=_plain)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def path(self) -> Path:
        """File of the rows."""
        return cell_path(self.out, self.key)

    @property
    def is_done(self) -> bool:
        """Whether its rows are there, and those that it needs."""
        return self.path.is_file() and all(need.is_done for need in self.needs)

    def rows(self) -> pd.DataFrame:
        """The rows, once it is done."""
        return read_cell(self.path)


def plan_cells(
    measure: Callable[..., pd.DataFrame],
    cells: Iterable[Cell],
    out: Path,
    modules: Sequence[str] = (),
) -> list[Measurement]:
    """Plan to measure cells that need no others.

    Args:
        measure: Measures a cell, see `Measurement`.
        cells: The cells.
        out: Directory of the study.
        modules: Packages and modules that `measure` calls, besides `PACKAGES` and its module.

    Returns:
        One measurement for each cell.
    """
    code = code_fingerprint(*PACKAGES, measure.__module__, *modules)
    return [Measurement(measure, cell, out, code) for cell in cells]


def population_cells(
    config: Any, cells_of: Callable[[Any, Population], Iterable[CellOf]]
) -> list[CellOf]:
    """The cells of all populations that a study measures.

    Args:
        config: A config with `zoo` and `populations`, all if None.
        cells_of: `cells_of(config, population)`, the cells of one.

    Returns:
        The cells, population by population.
    """
    populations = load(config.zoo).choose(config.populations).values()
    return [cell for population in populations for cell in cells_of(config, population)]


def run_grid(
    planned: Sequence[Measurement], *, name: str, executor: Executor, quiet: bool = False
) -> pd.DataFrame:
    """Do every measurement that is not done. A study that was stopped goes on where it was.

    Args:
        planned: What to measure.
        name: Of the study, for the progress bar.
        executor: Where to measure.
        quiet: Whether to show no progress on stderr.

    Returns:
        All rows, in the order of the plan.

    Raises:
        ValueError: If a cell cannot be measured; the message names the cell.
    """
    waiting = [measurement for measurement in planned if not measurement.is_done]
    waiting.sort(key=lambda measurement: -measurement.cost)
    if not isinstance(executor, InThisProcess):
        check_workers(waiting)
    total, start = len(planned), len(planned) - len(waiting)
    with tqdm(total=total, initial=start, unit="cell", desc=name, disable=quiet) as bar:
        if waiting:
            executor.run(CellWorker(Path.cwd(), trust()), waiting, CellWatcher(bar))
    return pd.concat([measurement.rows() for measurement in planned], ignore_index=True)


def check_workers(waiting: Iterable[Measurement]) -> None:
    """Refuse measurements that other processes cannot do.

    Args:
        waiting: Measurements for other processes.

    Raises:
        ValueError: If there is one; the message says why, and what to do.
    """
    for measurement in waiting:
        if measurement.only_here:
            raise ValueError(measurement.only_here)


@dataclass(frozen=True)
class CellWorker:
    """Measures cells, in whatever process.

    Attributes:
        folder: Where the study was started, from which paths of cells may be relative.
        trust: Code that the study may import.
    """

    folder: Path
    trust: Trust
    needs_gpu = False

    def set_up(self, rank: int) -> None:
        """Go to the folder, where the machine has it, and import plugins."""
        del rank
        if self.folder.is_dir():
            os.chdir(self.folder)
        self.trust.take_over()

    def complete(self, measurement: Measurement, report: Callable[[int], object]) -> None:
        """Do a measurement; no thread pool has more threads than torch."""
        del report  # a cell is one unit
        with threadpool_limits(torch.get_num_threads()):
            complete(measurement)


@dataclass(frozen=True)
class CellWatcher:
    """Shows how many cells are done; the first that fails ends the study.

    Attributes:
        bar: Counts cells.
    """

    bar: "tqdm[NoReturn]"

    def advance(self, item: Measurement, count: int) -> None:
        """A part of a cell is no unit."""

    def complete(self, item: Measurement) -> None:
        """A cell is done."""
        del item
        self.bar.update()

    def retry(self, item: Measurement, reason: str) -> None:
        """The process of a cell has died."""
        if not self.bar.disable:
            self.bar.write(f"{item.cell.name}: {reason}; trying again", file=sys.stderr)

    def fail(self, item: Measurement, failure: Failure) -> None:
        """End with an error that names the cell.

        Args:
            item: Of the cell.
            failure: Why it could not be measured.

        Raises:
            ValueError: If a user can mend it.
            RuntimeError: If the code has an error; a note is where.
        """
        message = f"{item.cell.name}: {failure.reason}"
        if not failure.trace:
            raise ValueError(message)
        error = RuntimeError(message)
        error.add_note(failure.trace)
        raise error


def complete(measurement: Measurement) -> None:
    """Do what a measurement needs, then the measurement, unless that is done; keep the rows.

    Args:
        measurement: What to do.
    """
    for need in measurement.needs:
        complete(need)
    if measurement.path.is_file():
        return
    inputs = [need.rows() for need in measurement.needs]
    rows = measurement.measure(measurement.cell, *inputs)
    with atomic_write(measurement.path) as temporary:
        rows.to_parquet(temporary)


def cell_path(out: Path, key: str) -> Path:
    """File of the rows of a cell in the directory of a study, by the key of its measurement."""
    return out / "cells" / f"{key}.parquet"


def read_cell(path: Path) -> pd.DataFrame:
    """Read the rows of a cell.

    Args:
        path: Their file.

    Returns:
        The rows.

    Raises:
        ValueError: If the file is damaged.
    """
    try:
        return pd.read_parquet(path)
    except (ValueError, OSError) as error:
        raise ValueError(
            f"{path}: not the rows of a cell ({error}); delete the file and run again"
        ) from error


def code_fingerprint(*names: str) -> str:
    """SHA-256 of the source that results come from, so that no other version's are taken for them.

    Args:
        *names: Names of modules, and of packages, all of whose modules count.

    Returns:
        Hexadecimal digest.
    """
    digest = hashlib.sha256()
    for name in names:
        for path in _sources(name):
            digest.update(f"{name}/{path.name}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def _sources(name: str) -> list[Path]:
    """Files of a module, or of all modules of a package."""
    spec = find_spec(name)
    if spec is None:
        raise ModuleNotFoundError(f"no module {name!r}")
    folders = spec.submodule_search_locations
    if folders is not None:
        return sorted(path for folder in folders for path in Path(folder).rglob("*.py"))
    return [Path(spec.origin or "")]


def _plain(value: Any) -> Any:
    """JSON of what is no plain value."""
    # The text of a path, the attributes of an object but places.
    if isinstance(value, Path):
        return str(value)
    if dataclasses.is_dataclass(value):
        counted = [field.name for field in dataclasses.fields(value) if field.metadata != PLACE]
        return {name: vars(value)[name] for name in counted}
    return vars(value)
