"""Are the files of a population what the manifest says, and do they agree with one another?"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from data_gen.config import Job
from data_gen.integrity.built import compare_with_architecture, compare_with_job
from zoo.store.bounds import MANIFEST_NAME, check_bytes
from zoo.store.columns import has_diverged, read_columns
from zoo.store.entries import DEFAULT, SPLITS, ShardEntry, splitting_digest
from zoo.store.manifest import Manifest, PlannedFile, PopulationEntry
from zoo.store.mapped import MappedFile, StoreError, escape
from zoo.store.schema import METRIC, QUANTITY, RESIDUAL, check_constants, check_shard

Columns = dict[str, Shaped[np.ndarray, "..."]]
_ROLES_KEPT = ("id", "hyperparameter", "group", "splitting")


@dataclass(frozen=True)
class Fault:
    """Something that is wrong with a zoo.

    Attributes:
        path: The file, relative to the zoo.
        reason: What was expected and what was found.
    """

    path: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


def fault_of(directory: Path, path: str, error: Exception) -> Fault:
    """An error as a fault, its text without the path that it begins with."""
    text = escape(str(error))
    return Fault(path, text.removeprefix(f"{directory / path}: ").removeprefix(f"{directory}: "))


@dataclass
class PopulationCheck:
    """A check of the files of one population.

    Attributes:
        directory: The zoo.
        manifest: Its manifest.
        name: The population.
        job: The job that made it, None if none did or it is not known.
        constants: Its constants, once they have been read.
        table: Columns that are compared across shards and populations, of all networks; empty if a
            shard is wrong.
    """

    directory: Path
    manifest: Manifest
    name: str
    job: Job | None
    constants: Columns = field(default_factory=dict)
    table: Columns = field(default_factory=dict)

    @property
    def entry(self) -> PopulationEntry:
        """What the manifest says of it."""
        return self.manifest.populations[self.name]

    def run(self) -> Iterator[Fault]:
        """Check all files.

        Yields:
            What is wrong.
        """
        yield from self._check_constants()
        finals: dict[str, MappedFile] = {}
        entry, files = self.entry, self.manifest.files
        shards = [*files(self.name), *files(self.name, trajectory=True)]
        for file in shards:
            trajectory = file.path in entry.trajectory
            checked, faults = self._check(file, trajectory)
            yield from faults
            name = Path(file.path).name
            if checked is not None and not trajectory:
                finals[name] = checked
            elif checked is not None and name in finals:
                reasons = self._check_ends(checked, finals[name])
                yield from (Fault(file.path, why) for why in reasons)
        if len(finals) == len(entry.shards):
            self.table = read_columns(finals.values(), self._kept_columns)
            yield from (Fault(MANIFEST_NAME, why) for why in self._check_splittings())

    @property
    def _kept_columns(self) -> list[str]:
        columns = self.manifest.columns.items()
        return [name for name, c in columns if c.role in _ROLES_KEPT or name == "seed"]

    def _check_constants(self) -> Iterator[Fault]:
        entry = self.entry
        if entry.constants is not None:
            path = f"constants/{self.name}.h5"
            try:
                self.constants = check_constants(self.directory, self.manifest, self.name)
                yield from self._check_hash(path, entry.constants)
            except StoreError as error:
                yield fault_of(self.directory, path, error)
                return
        differences = (
            compare_with_architecture(self.manifest, self.name, self.constants)
            if self.job is None
            else compare_with_job(self.manifest, self.name, self.job, self.constants)
        )
        try:
            yield from (Fault(*difference) for difference in differences)
        except ValueError as error:
            yield Fault(MANIFEST_NAME, f"population {self.name!r}: {escape(str(error))}")

    def _check(self, file: PlannedFile, trajectory: bool) -> tuple[MappedFile | None, list[Fault]]:
        """A shard, None if anything is wrong with it by itself, and what is."""
        faults = []
        try:
            checked = check_shard(self.directory, self.manifest, self.name, file, trajectory)
            faults += self._check_hash(file.path, file.entry)
            reasons = [*self._check_order(checked), *self._check_parameters(checked)]
            if not trajectory:
                reasons += self._check_table(checked)
        except StoreError as error:
            return None, [*faults, fault_of(self.directory, file.path, error)]
        faults += [Fault(file.path, reason) for reason in reasons]
        return None if faults else checked, faults

    def _check_hash(self, path: str, entry: ShardEntry) -> Iterator[Fault]:
        try:
            check_bytes(self.directory, path, entry)
        except StoreError as error:
            yield fault_of(self.directory, path, error)

    def _check_order(self, checked: MappedFile) -> Iterator[str]:
        """Columns of the table first, then parameters, then what was measured at checkpoints."""
        tensors, names = self.entry.space["tensors"], list(checked.columns)
        measured = [name for name in names if name.startswith((QUANTITY, RESIDUAL, METRIC))]
        table = [name for name in names if name not in tensors and name not in measured]
        if names != [*table, *tensors, *measured]:
            yield "columns are not in the order of the format"

    def _check_parameters(self, checked: MappedFile) -> Iterator[str]:
        """Parameters are finite; fixed entries are those of the constants, bit for bit."""
        for name in self.entry.space["tensors"]:
            values = checked.array(name)
            if not np.isfinite(values).all():
                yield f"{name!r} has parameters that are not finite"
            if f"free.{name}" in self.constants:
                fixed = ~self.constants[f"free.{name}"]
                expected = self.constants[f"fixed.{name}"].view(np.int32)[fixed]
                if (values.view(np.int32)[..., fixed] != expected).any():
                    yield f"{name!r} has fixed entries that are not those of the constants"

    def _check_table(self, checked: MappedFile) -> Iterator[str]:
        """Values are there and in their ranges, but metrics of networks that diverged."""
        columns = {name: checked.array(name) for name in self.manifest.columns}
        diverged = has_diverged(columns)
        if "diverged_at" in columns and (diverged != (columns["diverged_at"] >= 0)).any():
            yield "'diverged' and 'diverged_at' contradict each other"
        for name, column in self.manifest.columns.items():
            values = columns[name]
            if column.role == "metric":
                values = values[~diverged]
            if why := column.fault_of(values):
                yield f"{name!r} has {why}"

    def _check_ends(self, checked: MappedFile, last: MappedFile) -> Iterator[str]:
        """Checkpoints never go back, and end with what the final networks are."""
        steps = checked.array("checkpoint_steps")
        wrong = (np.diff(steps) < 0).any()
        if "steps" in self.manifest.columns:
            wrong |= (steps[:, 0] != 0).any() or (steps[:, -1] != last.array("steps")).any()
        if wrong:
            yield "'checkpoint_steps' do not go from 0 to the last step"
        for name in self.entry.space["tensors"]:
            if checked.array(name)[:, -1].tobytes() != last.array(name).tobytes():
                yield f"{name!r} does not end at the final parameters"
        for name in self.manifest.columns_of("metric"):
            if f"{METRIC}{name}" in checked.columns:
                end, final = checked.array(f"{METRIC}{name}")[:, -1], last.array(name)
                if not np.array_equal(end, final, equal_nan=True):
                    yield f"{METRIC + name!r} does not end at the final metric"

    def _check_splittings(self) -> Iterator[str]:
        """Splittings are those that the manifest describes; no group lies in two splits."""
        place = np.repeat(SPLITS, [self.entry.sizes[split] for split in SPLITS])
        for name, splitting in self.entry.splittings.items():
            split_of = place if name == DEFAULT else self.table[name]
            rows = {split: np.flatnonzero(split_of == split) for split in SPLITS}
            sizes = {split: len(ids) for split, ids in rows.items()}
            where = f"population {self.name!r}, splitting {name!r}"
            if (sizes, splitting_digest(rows)) != (splitting.sizes, splitting.sha256):
                yield f"{where}: its networks have other splits than the manifest says"
            if unknown := set(split_of.tolist()) - {*SPLITS, ""}:
                yield f"{where}: {min(unknown)!r:.100} is no split"
            for group in self.manifest.columns_of("group"):
                if torn := _groups_in_two(self.table[group], rows):
                    yield f"{where}: group {group!r} {torn!r:.100} lies in two splits"


def _groups_in_two(groups: np.ndarray, rows: dict[str, np.ndarray]) -> object:
    """A group with networks in more than one split, None if there is none."""
    groups_of_splits = [set(groups[ids].tolist()) for ids in rows.values()]
    torn = [min(a & b) for a, b in combinations(groups_of_splits, 2) if a & b]
    return torn[0] if torn else None
