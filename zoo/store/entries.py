"""What a manifest says of columns, splits, tasks, sources and files, each as a pydantic model."""

import hashlib
import math
import re
from collections.abc import Mapping
from typing import Annotated, Literal

import numpy as np
from jaxtyping import Int64, Shaped
from pydantic import AfterValidator, Field, field_validator, model_validator
from torch.utils._pytree import tree_leaves

from zoo.config import StrictModel

SPLITS = ("train", "validation", "test")
SHA256 = r"^[0-9a-f]{64}$"
DEFAULT = "default"
"""Name of the splitting that the files of a population follow."""
LARGEST_INPUT = 2**24
SHARD_NAME = re.compile(
    r"[a-z][a-z0-9_]*(\.trajectory)?/(train|validation|test)-[0-9]{5}-of-[0-9]{5}\.h5"
)
_LONGEST_LINE = 1000
_LONGEST_TEXT = 10000

Role = Literal["id", "hyperparameter", "metric", "target", "group", "splitting", "info"]
ColumnType = Literal["int64", "float64", "bool", "text"]


def check_line(text: str) -> str:
    """One line of printable text.

    Args:
        text: The text.

    Returns:
        The same.

    Raises:
        ValueError: If it is longer, or a terminal cannot show it.
    """
    if not text.isprintable() or len(text) > _LONGEST_LINE:
        raise ValueError(f"expected at most {_LONGEST_LINE} printable characters")
    return text


def _check_text(text: str) -> str:
    if not text.replace("\n", "").isprintable() or len(text) > _LONGEST_TEXT:
        raise ValueError(f"expected at most {_LONGEST_TEXT} printable characters and line ends")
    return text


Line = Annotated[str, AfterValidator(check_line)]
Text = Annotated[str, AfterValidator(_check_text)]
Shape = Annotated[
    tuple[Annotated[int, Field(ge=1, le=LARGEST_INPUT)], ...], Field(min_length=1, max_length=6)
]


class ShardEntry(StrictModel):
    """One file: how many networks it holds, how long it is, and the hash of its bytes."""

    rows: int = Field(ge=1, le=2**40)
    bytes: int = Field(ge=1, le=2**50)
    sha256: str = Field(pattern=SHA256)


def check_complete(folder: str, files: Mapping[str, ShardEntry], split: Mapping[str, int]) -> None:
    """Check that the files of a folder are all shards of all splits, with all their networks.

    Args:
        folder: Name of the folder.
        files: By path relative to the zoo, each the name of a shard.
        split: Networks of each split.

    Raises:
        ValueError: If a shard is missing, is of another folder, or has other networks.
    """
    for path in files:
        if not path.startswith(f"{folder}/"):
            raise ValueError(f"populations: {path!r} is not a file of {folder!r}")
    for name, networks in split.items():
        shards = sorted(path for path in files if f"/{name}-" in path)
        of = len(shards)
        whole = [f"{folder}/{name}-{number:05d}-of-{of:05d}.h5" for number in range(of)]
        rows = sum(files[path].rows for path in shards)
        if shards != whole or rows != networks:
            raise ValueError(
                f"populations: {folder!r} has shards {shards[:5]} of {rows} {name} networks; "
                f"expected all shards of a row, of {networks} networks"
            )


class ColumnEntry(StrictModel):
    """One column of the tables.

    Attributes:
        role: `id` names a network; `hyperparameter` was chosen before training; `metric` was
            measured of the network; `target` is a label that nobody measured, such as the class of
            the signal that it holds; networks of one `group` stay on one side of every split;
            `splitting` says in which split another splitting puts it, or nothing; `info` is all
            else.
        dtype: Type of its values.
        unit: Unit, None for plain numbers and text.
        range: Least and largest value that are possible, None where there is no bound.
        direction: Whether `higher` or `lower` values are better, None if neither is.
        nullable: Whether a network may have no value: NaN, or empty text.
    """

    role: Role
    dtype: ColumnType
    unit: Line | None = None
    range: tuple[float | None, float | None] = (None, None)
    direction: Literal["higher", "lower"] | None = None
    nullable: bool = False

    @model_validator(mode="after")
    def _type_fits_role(self) -> "ColumnEntry":
        allowed = {
            "id": ("int64",),
            "splitting": ("text",),
            "metric": ("float64", "int64"),
            "group": ("int64", "text"),
        }
        if self.dtype not in allowed.get(self.role, (self.dtype,)):
            raise ValueError(
                f"a column of role {self.role!r}: expected a type of {allowed[self.role]}, found "
                f"{self.dtype!r}"
            )
        can_be_empty = self.dtype in ("float64", "text") and self.role not in ("group", "id")
        if self.nullable and not can_be_empty:
            raise ValueError(
                f"a column of type {self.dtype!r} and role {self.role!r} has no way to hold nothing"
            )
        low, high = self.bounds
        if self.dtype in ("text", "bool") and (low, high) != (-math.inf, math.inf):
            raise ValueError(f"a column of type {self.dtype!r} has no range")
        if not low <= high:
            raise ValueError(f"range: expected least <= largest, found {low} and {high}")
        return self

    @property
    def bounds(self) -> tuple[float, float]:
        """The range with infinities where it is open."""
        low, high = self.range
        return -math.inf if low is None else low, math.inf if high is None else high

    def fault_of(self, values: Shaped[np.ndarray, " N"]) -> str | None:
        """What is wrong with values of the column, None if nothing is."""
        if self.dtype == "text":
            may_be_empty = self.nullable or self.role == "splitting"
            return "empty texts" if not may_be_empty and (values == "").any() else None
        if self.nullable:
            values = values[~np.isnan(values)]
        low, high = self.bounds
        if (np.isfinite(values) & (values >= low) & (values <= high)).all():
            return None
        return f"values that are not finite, or not from {low:g} to {high:g}"


class SplittingEntry(StrictModel):
    """One way to divide the networks of a population into splits.

    Attributes:
        origin: Who decided it: `published file` and `published procedure` are those of the authors
            of the networks, `symzoo` is ours.
        sizes: Networks of each split; a splitting that files do not follow may leave networks out.
        sha256: Of the ids of each split, see `splitting_digest`.
    """

    origin: Literal["symzoo", "published file", "published procedure"]
    sizes: dict[str, Annotated[int, Field(ge=0, le=2**40)]]
    sha256: str = Field(pattern=SHA256)

    @field_validator("sizes")
    @classmethod
    def _all_parts(cls, sizes: dict[str, int]) -> dict[str, int]:
        if tuple(sizes) != SPLITS or sum(sizes.values()) < 1:
            raise ValueError(f"expected numbers of networks of {SPLITS}, in this order")
        return sizes


def splitting_digest(ids: Mapping[str, Int64[np.ndarray, "_"]]) -> str:
    """What tells a splitting from others: SHA-256 of lines `<split> <id> <id> ...`.

    Args:
        ids: Network ids of each split.

    Returns:
        Hexadecimal digits.
    """
    digest = hashlib.sha256()
    for split in SPLITS:
        line = " ".join([split, *map(str, ids[split].tolist())])
        digest.update(f"{line}\n".encode())
    return digest.hexdigest()


def default_splitting(sizes: Mapping[str, int]) -> SplittingEntry:
    """The splitting that files follow: ids count up through training, validation and test.

    Args:
        sizes: Networks of each split.

    Returns:
        The splitting.
    """
    ids, first = {}, 0
    for split in SPLITS:
        ids[split] = np.arange(first, first + sizes[split])
        first += sizes[split]
    return SplittingEntry(origin="symzoo", sizes=dict(sizes), sha256=splitting_digest(ids))


class InputEntry(StrictModel):
    """One of several inputs, or one of whole numbers, which are not scaled.

    Attributes:
        shape: Shape for one example.
        dtype: Type of the numbers.
        below: What whole numbers are below, from 0 on.
    """

    shape: Shape
    dtype: Literal["float32", "int64"]
    below: int | None = Field(default=None, ge=1, le=2**63 - 1)

    @model_validator(mode="after")
    def _bounded(self) -> "InputEntry":
        if (self.dtype == "int64") != (self.below is not None):
            raise ValueError("below: expected with dtype 'int64', and with no other")
        return self


_Several = (
    Annotated[tuple[InputEntry, ...], Field(min_length=1, max_length=100)]
    | Annotated[dict[Line, InputEntry], Field(min_length=1, max_length=100)]
)


class TaskEntry(StrictModel):
    """What networks do; how well they do it is in the columns of role `metric`.

    Attributes:
        kind: `signals` where each network was fitted to data of its own, `none` where nothing is
            known of it.
        input_shape: Shape of one input; of several, or of whole numbers, what each is, by place or
            name.
        output_shape: Shape of one output.
        loss: Name of the loss that training made small.
    """

    kind: Literal["classification", "regression", "signals", "none"]
    input_shape: Shape | InputEntry | _Several | None = None
    output_shape: Shape | None = None
    loss: Line | None = None

    @model_validator(mode="after")
    def _shapes(self) -> "TaskEntry":
        if self.kind != "none" and (self.input_shape is None or self.output_shape is None):
            raise ValueError(f"a task of kind {self.kind!r}: expected input_shape and output_shape")
        if sum(math.prod(shape) for shape in self._shapes_of_inputs()) > LARGEST_INPUT:
            raise ValueError(f"expected an input of at most {LARGEST_INPUT} numbers")
        return self

    @property
    def single_input(self) -> tuple[int, ...] | None:
        """Shape of the input, None if it is not one array of numbers of floating point."""
        shape = self.input_shape
        is_one = isinstance(shape, tuple) and all(isinstance(length, int) for length in shape)
        return self._shapes_of_inputs()[0] if is_one else None

    def _shapes_of_inputs(self) -> list[tuple[int, ...]]:
        """The shapes of all inputs."""
        leaves = tree_leaves(self.input_shape, is_leaf=lambda at: isinstance(at, InputEntry))
        entries = [leaf for leaf in leaves if isinstance(leaf, InputEntry)]
        lengths = tuple(leaf for leaf in leaves if isinstance(leaf, int))
        return [entry.shape for entry in entries] or [lengths]


class SourceFile(StrictModel):
    """A file that networks were taken from; where it was, and what it was."""

    name: Line
    bytes: int = Field(ge=0, le=2**60)
    sha256: str = Field(pattern=SHA256)


class DroppedRows(StrictModel):
    """Networks that were left out, and why."""

    rows: int = Field(ge=1, le=2**40)
    reason: Line


class SourceEntry(StrictModel):
    """Where networks come from that this zoo did not train.

    Attributes:
        importer: What read them.
        version: Its version.
        options: Its options.
        url: Where they were published.
        doi: Digital object identifier of the publication.
        license: Licence of the networks.
        citation: How to cite them.
        files: Files that were read.
        dropped: Networks that were left out.
    """

    importer: Line
    version: Line
    options: dict[Line, bool | int | float | Line | None] = Field(default_factory=dict)
    url: Line | None = None
    doi: Line | None = None
    license: Line | None = None
    citation: Text | None = None
    files: tuple[SourceFile, ...] = ()
    dropped: tuple[DroppedRows, ...] = ()
