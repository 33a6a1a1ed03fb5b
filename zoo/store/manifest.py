"""`zoo.json`.

What a zoo holds, written last, so that a folder with a manifest is a complete zoo.
"""

import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

from pydantic import Field, ValidationError, field_validator, model_validator

from zoo.config import EntryError, StrictModel, first_error
from zoo.store.bounds import MANIFEST_NAME, checked_space, inside, read_json
from zoo.store.entries import (
    DEFAULT,
    SHA256,
    SHARD_NAME,
    SPLITS,
    ColumnEntry,
    Role,
    ShardEntry,
    SourceEntry,
    SplittingEntry,
    TaskEntry,
    check_complete,
    check_line,
)
from zoo.store.file_map import FORMAT_VERSION
from zoo.store.mapped import StoreError, escape
from zoo.weight_space import WeightSpace

CARD_NAME = "README.md"
_NAME = re.compile(r"[a-z][a-z0-9_]{0,99}")
_COLUMN = re.compile(r"[A-Za-z][A-Za-z0-9_.:-]{0,63}")
_MOST_COLUMNS = 256
_ID = "network_id"


class PopulationEntry(StrictModel):
    """One population: its architecture, its weight space, its splits and its files.

    Attributes:
        architecture: Name and options; None if only the weight space is known.
        asymmetry: Kind and options; None for standard networks.
        space: The weight space, as `WeightSpace.to_json` gives it.
        splittings: `default`, which the files follow, and one for each column of role `splitting`.
        constants: File of masks, fixed entries and the like, if there are any.
        shards: Files by path relative to the zoo.
        trajectory: Files of checkpoints likewise.
    """

    architecture: dict[str, Any] | None
    asymmetry: dict[str, Any] | None
    space: dict[str, Any]
    splittings: dict[str, SplittingEntry]
    constants: ShardEntry | None
    shards: dict[str, ShardEntry]
    trajectory: dict[str, ShardEntry] = Field(default_factory=dict)

    @field_validator("shards", "trajectory")
    @classmethod
    def _paths_stay_inside(cls, files: dict[str, ShardEntry]) -> dict[str, ShardEntry]:
        for path in files:
            if not SHARD_NAME.fullmatch(path):
                raise ValueError(f"{path!r} is not the name of a shard")
        return files

    @model_validator(mode="after")
    def _files_hold_the_parameters(self) -> "PopulationEntry":
        num_params = self.weight_space.num_params
        for path, file in (*self.shards.items(), *self.trajectory.items()):
            if 4 * num_params * file.rows > file.bytes:
                raise ValueError(
                    f"{path}: {file.rows} networks of {num_params} parameters do not fit in "
                    f"{file.bytes} bytes"
                )
        return self

    @property
    def sizes(self) -> dict[str, int]:
        """Networks of each split of the files."""
        return self.splittings[DEFAULT].sizes

    @property
    def count(self) -> int:
        """Number of networks."""
        return sum(self.sizes.values())

    def configurations(self, name: str) -> dict[str, dict[str, ShardEntry]]:
        """Shards by the configuration of the data set that has them.

        Args:
            name: Name of the population.

        Returns:
            Final networks under that name, checkpoints, if there are any, under another one.
        """
        folders = {name: self.shards, f"{name}.trajectory": self.trajectory}
        return {folder: files for folder, files in folders.items() if files}

    def entries(self, name: str) -> dict[str, ShardEntry]:
        """All files of the population of that name: what each must be, by its path."""
        constants = {f"constants/{name}.h5": self.constants} if self.constants else {}
        return self.shards | self.trajectory | constants

    @cached_property
    def weight_space(self) -> WeightSpace:
        """The weight space of the effective parameters."""
        return checked_space(self.space)

    def description(self, task: TaskEntry) -> dict[str, Any]:
        """What the architecture is built from, as `Architecture.description` gives it.

        Args:
            task: What the networks do.

        Returns:
            The description.

        Raises:
            StoreError: If it is not known.
        """
        outputs, inputs = task.output_shape or (), task.single_input
        if self.architecture is None or inputs is None or len(outputs) != 1:
            raise StoreError(
                "the zoo does not say what its networks compute, only their parameters and weight "
                "space"
            )
        return {
            "architecture": self.architecture,
            "input_shape": list(inputs),
            "num_classes": outputs[0],
        }


_Entry = TypeVar("_Entry")


def check_population_names(populations: dict[str, _Entry]) -> dict[str, _Entry]:
    """Populations by name, all named as their folders may be.

    Args:
        populations: The populations.

    Returns:
        The same.

    Raises:
        EntryError: If a name is not one.
    """
    for name in populations:
        if not _NAME.fullmatch(name) or name == "constants":
            raise EntryError(
                name,
                f"population name {name!r:.120}: expected up to 100 lower-case letters, digits and "
                "'_'",
            )
    return populations


class Manifest(StrictModel):
    """The whole of `zoo.json`.

    Attributes:
        format: What it is.
        version: Version of the format.
        config: The job that made the zoo, defaults filled in; None if none did.
        config_sha256: Its hash.
        task: What the networks do.
        columns: Columns of the tables of all populations, in order.
        paired: Whether network `i` has the same seed and hyperparameters in every population and is
            in the same split.
        environment: Versions and machine that wrote the manifest.
        source: Where networks come from that no job made.
        populations: By name.
        views: Names of several populations that are one set of networks, by the name of the set.
    """

    format: Literal["symzoo"] = "symzoo"
    version: Literal[2] = FORMAT_VERSION
    config: dict[str, Any] | None
    config_sha256: str | None = Field(pattern=SHA256)
    task: TaskEntry
    columns: dict[str, ColumnEntry] = Field(max_length=_MOST_COLUMNS)
    paired: bool
    environment: dict[str, str]
    source: SourceEntry | None = None
    populations: dict[str, PopulationEntry] = Field(min_length=1)
    views: dict[str, tuple[str, ...]] = Field(default_factory=dict)

    @field_validator("columns")
    @classmethod
    def _have_ids(cls, columns: dict[str, ColumnEntry]) -> dict[str, ColumnEntry]:
        if _ID not in columns or columns[_ID].role != "id":
            raise ValueError(f"expected a column {_ID!r} of role 'id'")
        if "diverged" in columns and columns["diverged"].dtype != "bool":
            raise ValueError("'diverged': expected the type 'bool'")
        for name, column in columns.items():
            if not _COLUMN.fullmatch(name) or (column.role == "splitting" and name == DEFAULT):
                raise ValueError(f"column {name!r:.100}: expected up to 64 of A-Z a-z 0-9 _ . : -")
        return columns

    @field_validator("environment")
    @classmethod
    def _printable(cls, environment: dict[str, str]) -> dict[str, str]:
        for name, text in environment.items():
            check_line(name + text)
        return environment

    _names = field_validator("populations", "views")(check_population_names)

    @model_validator(mode="after")
    def _parts_fit(self) -> "Manifest":
        if (self.config is None) != (self.config_sha256 is None):
            raise ValueError("config and config_sha256: expected both or neither")
        for name, population in self.populations.items():
            self._check_population(name, population)
        first = next(iter(self.populations.values()))
        if self.paired and any(p.sizes != first.sizes for p in self.populations.values()):
            raise ValueError("paired: expected populations of one size, split in one way")
        for name, members in self.views.items():
            if name in self.populations or not members or not set(members) <= set(self.populations):
                raise ValueError(
                    f"view {name!r}: expected a name of its own and names of populations, found "
                    f"{members!r:.200}"
                )
        return self

    def _check_population(self, name: str, population: PopulationEntry) -> None:
        splittings, names = [DEFAULT, *self.columns_of("splitting")], [*population.splittings]
        if names != splittings:
            raise ValueError(
                f"population {name!r}: expected splittings {splittings}, found {names!r:.200}"
            )
        if clash := sorted(set(self.columns) & set(population.space["tensors"])):
            raise ValueError(f"population {name!r}: {clash[0]!r:.100} is a column and a tensor")
        for folder, files in {name: population.shards, **population.configurations(name)}.items():
            check_complete(folder, files, population.sizes)

    def columns_of(self, role: Role) -> tuple[str, ...]:
        """Names of the columns of a role."""
        return tuple(name for name, column in self.columns.items() if column.role == role)

    @property
    def job(self) -> dict[str, Any]:
        """The job that made the zoo, defaults filled in.

        Raises:
            StoreError: If none did.
        """
        if self.config is None:
            raise StoreError("no job of generate-zoo made the zoo: its task cannot be loaded")
        return self.config

    def entries(self) -> dict[str, ShardEntry]:
        """All files of the zoo besides manifest and card: what each must be, by its path."""
        files: dict[str, ShardEntry] = {}
        for name, population in self.populations.items():
            files |= population.entries(name)
        return files

    def files(self, population: str, trajectory: bool = False) -> Iterator["PlannedFile"]:
        """The shards of a population in the order of their networks.

        Args:
            population: Its name.
            trajectory: Whether those of trajectories are wanted.

        Yields:
            What each holds.
        """
        entry = self.populations[population]
        shards = sorted((entry.trajectory if trajectory else entry.shards).items())
        first = 0
        for split in SPLITS:
            for path, file in shards:
                if f"/{split}-" in path:
                    yield PlannedFile(path, file, split, first)
                    first += file.rows


class PlannedFile(NamedTuple):
    """A shard.

    Its path in the zoo, its entry in the manifest, its split, and the id of its first network.
    """

    path: str
    entry: ShardEntry
    split: str
    first: int


def is_folder(path: Path) -> bool:
    """Whether a path is a folder; one that no file can have, as it is too long, is none."""
    try:
        return path.is_dir()
    except OSError:
        return False


def read_manifest(directory: Path) -> Manifest:
    """Read and check the manifest of a zoo.

    Args:
        directory: The zoo.

    Returns:
        The manifest.

    Raises:
        StoreError: If the folder is not a complete zoo.
    """
    if not is_folder(directory):
        raise StoreError(f"{directory!s:.1000}: no such folder")
    path = inside(directory, MANIFEST_NAME)
    if not path.is_file():
        raise StoreError(
            f"{directory}: not a complete zoo, {MANIFEST_NAME} is missing; generate-zoo writes it "
            "last"
        )
    raw = read_json(path)
    try:
        return Manifest.model_validate_json(raw, strict=True)
    except ValidationError as error:
        raise StoreError(f"{path}: {escape(first_error(error))}") from error
