"""`zoo.json`.

What a zoo holds, written last, so that a folder with a manifest is a complete zoo.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

import torch
from pydantic import Field, ValidationError, field_validator, model_validator

from zoo.architectures import ARCHITECTURES, Architecture, build_architecture
from zoo.architectures.base import MODULE
from zoo.config import StrictModel
from zoo.params import Params
from zoo.store.bounds import (
    MANIFEST_NAME,
    check_options_fit,
    check_space,
    inside,
    read_json,
)
from zoo.store.file_map import FORMAT_VERSION
from zoo.store.mapped import StoreError, escape
from zoo.weight_space import WeightSpace

CARD_NAME = "README.md"
SPLITS = ("train", "validation", "test")
_POPULATION_NAME = re.compile(r"[a-z][a-z0-9_]*")
_FILE = re.compile(
    r"(?P<folder>[a-z][a-z0-9_]*(\.trajectory)?)/(?P<split>train|validation|test)-(?P<number>[0-9]{5})-of-(?P<of>[0-9]{5})\.h5"
)
_HYPERPARAMETER = re.compile(r"[a-z][a-z0-9_]{0,63}")
_MOST_HYPERPARAMETERS = 256
_SHA256 = r"^[0-9a-f]{64}$"
_LARGEST_INPUT = 2**24
_LONGEST_TEXT = 1000


class ShardEntry(StrictModel):
    """One file: how many networks it holds, how long it is, and the hash of its bytes."""

    rows: int = Field(ge=1, le=2**40)
    bytes: int = Field(ge=1, le=2**50)
    sha256: str = Field(pattern=_SHA256)


class PopulationEntry(StrictModel):
    """One population.

    Its architecture, its weight space and its files (paths relative to the zoo).
    """

    architecture: dict[str, Any]
    asymmetry: dict[str, Any] | None
    space: dict[str, Any]
    hyperparameters: tuple[str, ...]
    constants: ShardEntry | None
    shards: dict[str, ShardEntry]
    trajectory: dict[str, ShardEntry] = Field(default_factory=dict)

    @field_validator("shards", "trajectory")
    @classmethod
    def _paths_stay_inside(cls, files: dict[str, ShardEntry]) -> dict[str, ShardEntry]:
        for path in files:
            if not _FILE.fullmatch(path):
                raise ValueError(f"{path!r} is not the name of a shard")
        return files

    @field_validator("hyperparameters")
    @classmethod
    def _columns(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if (
                not _HYPERPARAMETER.fullmatch(name)
                or names.count(name) > 1
                or len(names) > _MOST_HYPERPARAMETERS
            ):
                raise ValueError(
                    f"hyperparameter {name!r}: expected lower-case letters, digits and '_', each "
                    "name once"
                )
        return names

    @model_validator(mode="after")
    def _files_hold_the_parameters(self) -> "PopulationEntry":
        check_space(self.space)
        num_params = self.weight_space().num_params
        for path, file in (*self.shards.items(), *self.trajectory.items()):
            if 4 * num_params * file.rows > file.bytes:
                raise ValueError(
                    f"{path}: {file.rows} networks of {num_params} parameters do not fit in "
                    f"{file.bytes} bytes"
                )
        return self

    def configurations(self, name: str) -> dict[str, dict[str, ShardEntry]]:
        """Shards by the configuration of the data set that has them.

        Args:
            name: Name of the population.

        Returns:
            Final networks under that name, checkpoints, if there are any, under another one.
        """
        found = {name: self.shards, f"{name}.trajectory": self.trajectory}
        return {folder: files for folder, files in found.items() if files}

    def weight_space(self) -> WeightSpace:
        """The weight space of the effective parameters."""
        return WeightSpace.from_json(json.dumps(self.space))

    def build(
        self, input_shape: Sequence[int], num_classes: int, constants: Params
    ) -> Architecture:
        """The architecture with its stored constants.

        Args:
            input_shape: Shape of one input of the task.
            num_classes: Number of classes of the task.
            constants: Constants as stored.

        Returns:
            The architecture.
        """
        described = {
            "architecture": self.architecture,
            "input_shape": list(input_shape),
            "num_classes": num_classes,
        }
        return rebuild(described, self.weight_space(), constants)


def rebuild(description: Mapping[str, Any], space: WeightSpace, constants: Params) -> Architecture:
    """Build an architecture again from what was stored of it.

    What was asymmetric is so by its space and constants.

    Args:
        description: As `Architecture.description` gives it.
        space: Weight space as stored.
        constants: Constants as stored.

    Returns:
        The architecture.

    Raises:
        StoreError: If it was a module, or the stored weight space is not that of the named
            architecture.
    """
    architecture, input_shape = description["architecture"], description["input_shape"]
    num_classes = description["num_classes"]
    options = {name: value for name, value in architecture.items() if name != "name"}
    check_options_fit(architecture, input_shape, space)
    name = architecture.get("name")
    if name == MODULE:
        raise StoreError(
            f"the networks are torch modules, {options!r:.300}, which no description can build: "
            "trace such a module again and use what that gives"
        )
    builder = ARCHITECTURES.get(name) if isinstance(name, str) else None
    ours = builder is not None and builder.__module__.startswith("zoo.")
    try:
        if ours:  # without memory first: what does not fit the stored space is never allocated
            with torch.device("meta"):
                _same_shapes(
                    build_architecture(str(name), options, input_shape, num_classes),
                    space,
                    architecture,
                )
        standard = build_architecture(str(name), options, input_shape, num_classes)
        _same_shapes(standard, space, architecture)
        return replace(standard, space=space, constants=constants)
    except StoreError:
        raise
    except (ValueError, ArithmeticError, LookupError, TypeError, RuntimeError) as error:
        raise StoreError(
            f"architecture {dict(architecture)!r:.300} cannot be built: {escape(str(error)):.300}"
        ) from error


def _same_shapes(
    standard: Architecture, space: WeightSpace, architecture: Mapping[str, Any]
) -> None:
    if space.shapes != standard.space.shapes:
        raise StoreError(
            f"the stored weight space is not that of architecture {dict(architecture)!r:.300}"
        )


_Entry = TypeVar("_Entry")


def check_population_names(populations: dict[str, _Entry]) -> dict[str, _Entry]:
    """Populations by name, all named as their folders may be.

    Args:
        populations: The populations.

    Returns:
        The same.

    Raises:
        ValueError: If a name is not one.
    """
    for name in populations:
        if not _POPULATION_NAME.fullmatch(name) or name == "constants":
            raise ValueError(
                f"population name {name!r}: expected lower-case letters, digits and '_'"
            )
    return populations


class Manifest(StrictModel):
    """The whole of `zoo.json`."""

    format: Literal["symzoo"] = "symzoo"
    version: Literal[2] = FORMAT_VERSION
    config: dict[str, Any]
    config_sha256: str = Field(pattern=_SHA256)
    input_shape: tuple[Annotated[int, Field(ge=1)], ...] = Field(min_length=1, max_length=6)
    num_classes: int = Field(ge=1, le=2**20)
    split: dict[str, int]
    environment: dict[str, str]
    populations: dict[str, PopulationEntry] = Field(min_length=1)

    @field_validator("input_shape")
    @classmethod
    def _inputs_are_small(cls, shape: tuple[int, ...]) -> tuple[int, ...]:
        if math.prod(shape) > _LARGEST_INPUT:
            raise ValueError(f"expected an input of at most {_LARGEST_INPUT} numbers")
        return shape

    @field_validator("split")
    @classmethod
    def _splits(cls, split: dict[str, int]) -> dict[str, int]:
        if set(split) != set(SPLITS) or min(split.values()) < 0 or sum(split.values()) < 1:
            raise ValueError(f"expected a number of networks for each of {SPLITS}")
        return split

    @field_validator("environment")
    @classmethod
    def _printable(cls, environment: dict[str, str]) -> dict[str, str]:
        for name, text in environment.items():
            if not (name + text).isprintable() or len(name + text) > _LONGEST_TEXT:
                raise ValueError(
                    f"{name!r:.80}: expected at most {_LONGEST_TEXT} printable characters"
                )
        return environment

    _names = field_validator("populations")(check_population_names)

    @model_validator(mode="after")
    def _files_are_those_of_the_split(self) -> "Manifest":
        for name, population in self.populations.items():
            _check_files(name, population.shards, self.split)
            if population.trajectory:
                _check_files(f"{name}.trajectory", population.trajectory, self.split)
        return self

    def entries(self) -> dict[str, ShardEntry]:
        """All files of the zoo besides manifest and card: what each must be, by its path."""
        files: dict[str, ShardEntry] = {}
        for name, population in self.populations.items():
            files |= {**population.shards, **population.trajectory}
            if population.constants is not None:
                files[f"constants/{name}.h5"] = population.constants
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
        first = 0
        for split in SPLITS:
            for path, file in sorted((entry.trajectory if trajectory else entry.shards).items()):
                if path.split("/")[1].startswith(f"{split}-"):
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


def _check_files(folder: str, files: Mapping[str, ShardEntry], split: Mapping[str, int]) -> None:
    """Check that the files of a folder are all shards of all splits, with all their networks."""
    found: dict[str, list[tuple[int, int]]] = {name: [] for name in split}
    rows = dict.fromkeys(split, 0)
    for path, file in files.items():
        parts = _FILE.fullmatch(path)
        if parts is None or parts["folder"] != folder:
            raise ValueError(f"populations: {path!r} is not a file of {folder!r}")
        found[parts["split"]].append((int(parts["number"]), int(parts["of"])))
        rows[parts["split"]] += file.rows
    for name, shards in found.items():
        if (
            sorted(shards) != [(number, len(shards)) for number in range(len(shards))]
            or rows[name] != split[name]
        ):
            raise ValueError(
                f"populations: {folder!r} has shards {sorted(shards)[:5]} of {rows[name]} {name} "
                "networks; "
                f"expected all shards of a row, of {split[name]} networks"
            )


def read_manifest(directory: Path) -> Manifest:
    """Read and check the manifest of a zoo.

    Args:
        directory: The zoo.

    Returns:
        The manifest.

    Raises:
        StoreError: If the folder is not a complete zoo.
    """
    if not directory.is_dir():
        raise StoreError(f"{directory}: no such folder")
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
        first = error.errors(include_url=False)[0]
        key = "".join(f"{part}." for part in first["loc"])[:-1] + ": " if first["loc"] else ""
        found = "" if first["type"] == "value_error" else f", found {first['input']!r:.200}"
        why = first["msg"].removeprefix("Value error, ")
        raise StoreError(f"{path}: {escape(key):.300}{escape(why):.1000}{found}") from error
