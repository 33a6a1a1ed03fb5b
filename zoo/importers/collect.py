"""Checkpoints in files become a zoo: which are taken, which are left out, and why."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from zoo.architectures.base import Architecture
from zoo.importers.checkpoint import Checkpoint
from zoo.importers.table import read_checkpoint
from zoo.options import Seed, checked
from zoo.params import Params
from zoo.state_dicts import counts_batches
from zoo.store.atomic import sha256
from zoo.store.entries import DroppedRows, SourceEntry, SourceFile
from zoo.store.mapped import StoreError, escape
from zoo.store.zoo import Zoo
from zoo.weight_space import WeightSpace
from zoo.writing.networks import Kind, kind_of
from zoo.writing.on_disk import write
from zoo.writing.splits import Split
from zoo.writing.tables import Roles

FILE = "file"
"""Column of the table that has the name of each file."""
_MOST_FILES = 1000
Shapes = tuple[tuple[str, tuple[int, ...]], ...]


@dataclass
class Collected:
    """What a look at the files has found.

    Attributes:
        taken: Files by the names and shapes of their tensors, or all under one if the model is
            known.
        left_out: Reason by file.
        notes: How many files each note of a reader was of.
    """

    taken: dict[Shapes, list[Path]] = field(default_factory=dict)
    left_out: dict[Path, str] = field(default_factory=dict)
    notes: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Files(Sequence[Any]):
    """State dicts in files, each read when it is asked for."""

    paths: Sequence[Path]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, at: Any) -> Any:
        return state_of(read_checkpoint(self.paths[at]))


def state_of(checkpoint: Checkpoint) -> Params:
    """The tensors of a checkpoint, without what counts batches."""
    return {
        name: torch.from_numpy(np.require(array, requirements="W"))
        for name, array in checkpoint.tensors.items()
        if not counts_batches(name)
    }


@checked
def import_checkpoints(
    files: str | Path | Sequence[str | Path],
    out: str | Path,
    model: Architecture | WeightSpace | None = None,
    table: str | Path | pd.DataFrame | None = None,
    key: str = "path",
    split: Split = (0.7, 0.15, 0.15),
    roles: Roles | None = None,
    strict: bool = False,
    seed: Seed = 0,
    report: Callable[[str], object] = lambda _: None,
) -> Zoo:
    """Make a zoo of checkpoints, one file a network.

    Each file is read twice: to see what it is, and to write it. Without a model, networks are told
    apart by names and shapes of their tensors, a population for each, and every axis is fixed.

    Args:
        files: A pattern such as `"runs/*/model.pt"`, or paths.
        out: Folder of the zoo, as `zoo.write` takes it.
        model: What the networks are; None if nothing but their tensors is known.
        table: A table, or a CSV file, with a row for each file; None for the names alone.
        key: Its column of paths: as given, from the folder of the table, or the name of the file.
        split: As for `zoo.write`.
        roles: Likewise.
        strict: Whether a file that cannot be taken is an error; it is left out otherwise, and the
            card says how many were, and why.
        seed: Of the draw of splits.
        report: Told what was recognized, and what was left out.

    Returns:
        The zoo.

    Raises:
        ValueError: If there is no file, none can be taken, or one cannot be and `strict` is set.
    """
    paths = _paths(files)
    rows, row_of = _rows_of(paths, table, key, report)
    found = look_at(row_of, None if model is None else kind_of(model))
    found.left_out |= {path: "no row of the table" for path in paths if path not in row_of}
    _tell(found, strict, report)
    populations = {}
    for number, (shapes, taken) in enumerate(found.taken.items(), start=1):
        name = "networks" if len(found.taken) == 1 else f"networks_{number}"
        of_taken = rows.iloc[[row_of[path] for path in taken]]
        populations[name] = (model or fixed_space(shapes), Files(taken), of_taken)
    source = _source(found, {"strict": strict})
    return write(out, populations, split, roles, source=source, seed=seed)


def fixed_space(shapes: Iterable[tuple[str, tuple[int, ...]]]) -> WeightSpace:
    """A weight space without symmetry, of tensors of which only the shapes are known.

    Args:
        shapes: Names and shapes.

    Returns:
        The space.

    >>> dict(fixed_space([("weight", (8, 4)), ("bias", (8,))]).tensors)
    {'weight': '8 <- 4', 'bias': '8'}
    """
    patterns = {}
    for name, shape in shapes:
        first, *rest = [str(size) for size in shape] or [""]
        patterns[name] = f"{first} <- {' '.join(rest)}" if rest else first
    return WeightSpace({}, patterns)


def look_at(paths: Iterable[Path], kind: Kind | None) -> Collected:
    """Read checkpoints to see what they are.

    Args:
        paths: The files.
        kind: What they should be, None if nothing is known.

    Returns:
        What was found.
    """
    found = Collected()
    for path in paths:
        try:
            checkpoint = read_checkpoint(path)
            shapes = _checked(checkpoint, kind)
        except ValueError as error:
            found.left_out[path] = escape(str(error).removeprefix(f"{path}: "))
            continue
        found.notes.update(checkpoint.notes)
        found.taken.setdefault(shapes, []).append(path)
    return found


def _checked(checkpoint: Checkpoint, kind: Kind | None) -> Shapes:
    """Names and shapes of the tensors of a network that can be taken; none if its kind is known."""
    state = state_of(checkpoint)
    if kind is None:
        whole = [name for name, tensor in state.items() if not tensor.is_floating_point()]
        if whole:
            raise ValueError(f"{whole[0]!r}: expected floating numbers, as no module was given")
        params, shapes = state, tuple((name, tuple(t.shape)) for name, t in state.items())
    else:
        params, shapes = kind.read(state, "the checkpoint"), ()
    if not params:
        raise ValueError("expected tensors, found none")
    for name, tensor in params.items():
        if not tensor.isfinite().all():
            raise ValueError(f"{name!r} has entries that are not finite")
    return shapes


def _paths(files: str | Path | Sequence[str | Path]) -> list[Path]:
    """The files that are meant, each once, in order."""
    patterns = [files] if isinstance(files, str | Path) else files
    paths: dict[Path, None] = {}
    for pattern in map(Path, patterns):
        root = Path(pattern.anchor)
        matches = [pattern] if pattern.is_file() else root.glob(str(pattern.relative_to(root)))
        of_pattern = sorted(path for path in matches if path.is_file())
        if not of_pattern:
            raise ValueError(f"{pattern}: no such file, and no file fits it as a pattern")
        paths |= dict.fromkeys(of_pattern)
    return list(paths)


def _rows_of(
    paths: list[Path],
    table: str | Path | pd.DataFrame | None,
    key: str,
    report: Callable[[str], object],
) -> tuple[pd.DataFrame, dict[Path, int]]:
    """The table of the files, and the row of each that has one."""
    if table is None:
        names = pd.DataFrame({FILE: [str(path) for path in paths]})
        return names, {path: at for at, path in enumerate(paths)}
    rows, folder = _table(table)
    row_of = _matched(paths, rows, key, folder)
    if surplus := len(rows) - len(set(row_of.values())):
        report(f"{surplus} rows of the table are of no file that was given")
    return rows, row_of


def _table(table: str | Path | pd.DataFrame) -> tuple[pd.DataFrame, Path]:
    """The table, and the folder that its paths may be relative to."""
    if isinstance(table, pd.DataFrame):
        return table, Path()
    try:
        return pd.read_csv(table), Path(table).parent
    except (OSError, ValueError) as error:
        raise ValueError(f"{table}: expected a table as CSV: {error}") from error


def _matched(paths: list[Path], rows: pd.DataFrame, key: str, folder: Path) -> dict[Path, int]:
    """The row of each file that has one."""
    if key not in rows:
        raise ValueError(f"table: no column {key!r}; columns are {list(rows)}")
    keys = rows[key].astype(str).tolist()
    if len(set(keys)) != len(keys):
        raise ValueError(f"table: {Counter(keys).most_common(1)[0][0]!r} stands in two rows")
    row_of = {name: at for at, name in enumerate(keys)}
    row_of |= {str((folder / name).resolve()): at for at, name in enumerate(keys)}
    times = Counter(path.name for path in paths)
    matched = {}
    for path in paths:
        forms = [str(path), str(path.resolve())]
        forms += [path.name] if times[path.name] == 1 else []
        if known := [row_of[form] for form in forms if form in row_of]:
            matched[path] = known[0]
    return matched


def _tell(found: Collected, strict: bool, report: Callable[[str], object]) -> None:
    """Say what was recognized and what is left out."""
    for note, count in found.notes.items():
        report(f"{count} file{'s' * (count > 1)}: {note}")
    for path, reason in found.left_out.items():
        if strict:
            raise StoreError(f"{path}: {reason}")
        report(f"left out {path}: {reason}")
    if not found.taken:
        raise ValueError(f"none of {len(found.left_out)} files can be taken")


def _source(found: Collected, options: Mapping[str, bool]) -> SourceEntry:
    """Where the networks come from, and what was left out."""
    paths = [path for taken in found.taken.values() for path in taken]
    reasons = Counter(f"{reason:.200}" for reason in found.left_out.values())
    return SourceEntry(
        importer="checkpoints",
        version=version("symzoo"),
        options=dict(options),
        files=tuple(_source_files(paths)),
        dropped=tuple(DroppedRows(rows=n, reason=reason) for reason, n in reasons.items()),
    )


def _source_files(paths: Sequence[Path]) -> Iterator[SourceFile]:
    """Each file, or all of them as one if they are many."""
    hashes = [sha256(path) for path in paths]
    sizes = [path.stat().st_size for path in paths]
    if len(paths) <= _MOST_FILES:
        for path, size, digest in zip(paths, sizes, hashes, strict=True):
            yield SourceFile(name=escape(str(path)), bytes=size, sha256=digest)
        return
    whole = hashlib.sha256("\n".join(hashes).encode()).hexdigest()
    name = f"{len(paths)} files, {escape(str(paths[0])):.200} first; sha256 is that of their hashes"
    yield SourceFile(name=name, bytes=sum(sizes), sha256=whole)
