"""Cells of a study: rows in a file named by all that they depend on, measured in parallel, kept as soon as they are there."""

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from data_gen.executors.processes import num_cores
from studies.common.parallel import run_here, run_in_processes
from zoo.store.atomic import atomic_write

FORMAT = 1  # raise it when the meaning of a stored cell changes
PACKAGES = ("zoo", "data_gen")
PLACES = ("zoo", "folder")
Measure = Callable[[Any], pd.DataFrame]


@dataclass(frozen=True)
class Cell:
    """Something to measure.

    Attributes:
        measure: Measures it: `measure(asked) -> rows`; at the top of a module, as processes import
            it.
        asked: What it is told, a frozen dataclass of names, numbers, tuples and paths; attributes
            named `zoo` and `folder` say where things lie and are not part of a cell's identity, so
            that what depends on a zoo carries its `fingerprint` too.
        out: Directory of the study.
        code: What `code_fingerprint` was when the study was planned.
    """

    measure: Measure
    asked: Any
    out: Path
    code: str

    @property
    def path(self) -> Path:
        """File of its rows."""
        asked = {name: value for name, value in vars(self.asked).items() if name not in PLACES}
        identity = [FORMAT, self.code, self.measure.__module__, self.measure.__qualname__, asked]
        key = hashlib.sha256(
            json.dumps(identity, sort_keys=True, default=_plain).encode()
        ).hexdigest()
        return self.out / "cells" / f"{key}.parquet"


def run_grid(
    measure: Measure,
    asked: Sequence[Any],
    out: Path,
    *,
    name: str,
    modules: Sequence[str] = (),
    workers: int | None = None,
    quiet: bool = False,
) -> pd.DataFrame:
    """Measure every cell that is not there yet. A study that was stopped goes on where it was.

    Args:
        measure: Measures a cell, see `Cell`.
        asked: What to measure, a frozen dataclass a cell.
        out: Directory of the study, made if it is missing.
        name: Of the study, for the progress bar.
        modules: Names of the modules of `studies` that `measure` calls; their source is part of the
            cells' identity.
        workers: Number of processes of one thread each; as many as there are cores if None. One
            means this process.
        quiet: Whether to show no progress on stderr.

    Returns:
        The rows of all cells, in their order.
    """
    code = code_fingerprint(*PACKAGES, measure.__module__, *modules)
    cells = [Cell(measure, part, out, code) for part in asked]
    waiting = [cell for cell in cells if not cell.path.is_file()]
    workers = min(workers or num_cores(), max(len(waiting), 1))
    done = (
        run_here(complete, waiting)
        if workers == 1
        else run_in_processes(complete, waiting, workers)
    )
    bar = tqdm(
        total=len(cells), initial=len(cells) - len(waiting), unit="cell", desc=name, disable=quiet
    )
    with bar, closing(done):
        for _ in done:
            bar.update()
    return pd.concat([pd.read_parquet(cell.path) for cell in cells], ignore_index=True)


def complete(cell: Cell) -> None:
    """Measure a cell and keep its rows; the file is there completely or not at all.

    Args:
        cell: The cell.

    Raises:
        ValueError: If it cannot be measured; the message names the cell.
    """
    try:
        rows = cell.measure(cell.asked)
    except ValueError as error:
        raise ValueError(f"{cell.asked}: {error}") from error
    with atomic_write(cell.path) as temporary:
        rows.to_parquet(temporary)


def code_fingerprint(*names: str) -> str:
    """SHA-256 of the source that results come from: those of another version are never taken for this one's.

    Args:
        *names: Names of packages, all of whose modules count, and of modules.

    Returns:
        Hexadecimal digest.
    """
    digest = hashlib.sha256()
    for name in names:
        module = import_module(name)
        files = (
            sorted(Path(module.__path__[0]).rglob("*.py"))
            if hasattr(module, "__path__")
            else [Path(module.__file__ or "")]
        )
        for path in files:
            digest.update(f"{name}/{path.name}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def _plain(value: Any) -> Any:
    """JSON of what is no plain value: a path is its text, a dataclass or an object its attributes."""
    return str(value) if isinstance(value, Path) else vars(value)
