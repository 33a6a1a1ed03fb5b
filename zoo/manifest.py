"""`zoo.json`: what a zoo holds, written last, so that a folder with a manifest is a complete zoo."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator

from zoo.architectures import Architecture, build_architecture
from zoo.config import StrictModel
from zoo.params import Params
from zoo.store import StoreError
from zoo.weight_space import WeightSpace

MANIFEST_NAME = "zoo.json"
SPLITS = ("train", "validation", "test")
POPULATION_NAME = re.compile(r"[a-z][a-z0-9_]*")
_FILE = re.compile(r"[a-z][a-z0-9_]*(\.trajectory)?/[a-z0-9_]+(-\d{5}-of-\d{5})?\.h5")


class ShardEntry(StrictModel):
    """One file: how many networks it holds, how long it is, and the hash of its bytes."""

    rows: int
    bytes: int
    sha256: str


class PopulationEntry(StrictModel):
    """One population: its architecture, its weight space and its files (paths relative to the zoo)."""

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

    def weight_space(self) -> WeightSpace:
        """The weight space of the effective parameters."""
        return WeightSpace.from_json(json.dumps(self.space))

    def build(self, input_shape: Sequence[int], num_classes: int, constants: Params) -> Architecture:
        """The architecture with its stored constants.

        Args:
            input_shape: Shape of one input of the task.
            num_classes: Number of classes of the task.
            constants: Constants as stored.

        Returns:
            The architecture.
        """
        return rebuild(self.architecture, self.weight_space(), input_shape, num_classes, constants)


def rebuild(
    architecture: Mapping[str, Any], space: WeightSpace, input_shape: Sequence[int], num_classes: int, constants: Params
) -> Architecture:
    """Build an architecture again from what was stored of it; what was asymmetric is so by its space and constants.

    Args:
        architecture: `name` and options of its builder.
        space: Weight space as stored.
        input_shape: Shape of one input of the task.
        num_classes: Number of classes of the task.
        constants: Constants as stored.

    Returns:
        The architecture.

    Raises:
        StoreError: If the stored weight space is not that of the named architecture.
    """
    options = {name: value for name, value in architecture.items() if name != "name"}
    standard = build_architecture(architecture["name"], options, input_shape, num_classes)
    if space.shapes != standard.space.shapes:
        raise StoreError(f"the stored weight space is not that of architecture {dict(architecture)}")
    return replace(standard, space=space, constants=constants)


class Manifest(StrictModel):
    """The whole of `zoo.json`."""

    format: Literal["symzoo"] = "symzoo"
    version: Literal[1] = 1
    config: dict[str, Any]
    config_sha256: str
    input_shape: tuple[int, ...]
    num_classes: int
    split: dict[str, int]
    environment: dict[str, str]
    populations: dict[str, PopulationEntry]

    @field_validator("split")
    @classmethod
    def _splits(cls, split: dict[str, int]) -> dict[str, int]:
        if set(split) != set(SPLITS) or min(split.values()) < 0:
            raise ValueError(f"expected a number of networks for each of {SPLITS}")
        return split

    @field_validator("populations")
    @classmethod
    def _names(cls, populations: dict[str, PopulationEntry]) -> dict[str, PopulationEntry]:
        for name in populations:
            if not POPULATION_NAME.fullmatch(name):
                raise ValueError(f"population name {name!r}: expected lower-case letters, digits and '_'")
        return populations


def read_manifest(directory: Path) -> Manifest:
    """Read and check the manifest of a zoo.

    Args:
        directory: The zoo.

    Returns:
        The manifest.

    Raises:
        StoreError: If the folder is not a complete zoo.
    """
    path = directory / MANIFEST_NAME
    if not directory.is_dir():
        raise StoreError(f"{directory}: no such folder")
    if not path.is_file():
        raise StoreError(f"{directory}: not a complete zoo, {MANIFEST_NAME} is missing; generate-zoo writes it last")
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise StoreError(f"{path}: {key}: {first['msg']}, found {first['input']!r:.200}") from error
