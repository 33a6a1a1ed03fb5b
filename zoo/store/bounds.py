"""Bounds on what a stranger's manifest may ask for.

Its length, its depth, and the memory of what it describes.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from zoo.architectures import ARCHITECTURES, Architecture, build_architecture
from zoo.architectures.base import MODULE
from zoo.params import Params
from zoo.store.atomic import sha256
from zoo.store.entries import ShardEntry
from zoo.store.file_map import MAX_JSON, bounded_json, check_name, check_version, refuse
from zoo.store.mapped import StoreError, escape, map_file, refusals
from zoo.weight_space import WeightSpace

MANIFEST_NAME = "zoo.json"
MAX_VALUES = 2**20
"""Numbers, texts, lists and objects in a manifest."""
MAX_TENSORS = 4000
_LONGEST_PATTERN = 512
_DEEPEST_PATTERN = 16
_MOST_NODES = 4096
_DEPTHS = ("depth", "layers")


def read_json(path: Path, what: str = "a manifest") -> bytes:
    """Read JSON of unknown origin, such as a manifest, which may be of another version.

    Args:
        path: The file.
        what: What it should be, for messages.

    Returns:
        Its bytes: JSON of bounded length, number of values and depth, of this version of the
            format.

    Raises:
        StoreError: If it is something else.
    """
    data = map_file(path)
    if len(data) > MAX_JSON:
        raise StoreError(f"{path}: {len(data)} bytes; expected at most {MAX_JSON} in {what}")
    raw = bytes(data)
    with refusals(path):
        content = bounded_json(raw, MAX_VALUES, what)
        _check_numbers(content, what)
        if isinstance(content, dict) and content.get("format") == "symzoo":
            version = content.get("version")
            if type(version) is int:
                check_version(version)
    return raw


def _check_numbers(content: object, what: str) -> None:
    """Refuse numbers that no column of a zoo could hold."""
    left = [content]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            left.extend(value.values())
        elif isinstance(value, list):
            left.extend(value)
        elif isinstance(value, float) and not math.isfinite(value):
            refuse(f"{what} holds a number that is not finite")
        elif isinstance(value, int) and not -(2**63) <= value < 2**63:
            refuse(f"{what} holds {value!s:.30}; expected integers of 64 bits")


def inside(directory: Path, relative: str) -> Path:
    """A file of a zoo, which may not be a link that leads out of it.

    Args:
        directory: The zoo.
        relative: Path of the file in it, already checked.

    Returns:
        The path.

    Raises:
        StoreError: If it leads out of the zoo.
    """
    path = directory / relative
    try:
        leads_out = not path.resolve().is_relative_to(directory.resolve())
    except (OSError, RuntimeError) as error:  # a loop of links
        raise StoreError(f"{path}: cannot be followed ({error})") from error
    if leads_out:
        raise StoreError(
            f"{path}: a link that leads out of the zoo; put a copy of the file in its place"
        )
    return path


def check_file(directory: Path, relative: str, size: int) -> Path:
    """Check place and length of a file before it is opened.

    Args:
        directory: The zoo.
        relative: Path of the file in it, already checked.
        size: Its length in the manifest.

    Returns:
        The path.

    Raises:
        StoreError: If it leads out of the zoo, is missing or has another length.
    """
    path = inside(directory, relative)
    length = path.stat().st_size if path.is_file() else None
    if length != size:
        state = "missing" if length is None else f"{length} bytes"
        raise StoreError(
            f"{path}: expected {size} bytes, found {state}; run symzoo repair on the zoo"
        )
    return path


def check_bytes(directory: Path, relative: str, entry: ShardEntry) -> None:
    """Check place, length and hash of a file.

    Args:
        directory: The zoo.
        relative: Path of the file in it, already checked.
        entry: What the manifest says of it.

    Raises:
        StoreError: If it is not what the manifest says.
    """
    path = check_file(directory, relative, entry.bytes)
    digest = sha256(path)
    if digest != entry.sha256:
        raise StoreError(f"{path}: expected sha256 {entry.sha256}, found {digest}")


def checked_space(space: Mapping[str, Any]) -> WeightSpace:
    """Read a weight space of unknown origin.

    Its patterns are short, and its groups are not larger than its tensors.

    Args:
        space: What the manifest holds, JSON as Python has it.

    Returns:
        The weight space.

    Raises:
        ValueError: If it is not a weight space, or too large.
    """
    groups, tensors = space.get("groups"), space.get("tensors")
    if len(space) != 2 or not isinstance(groups, dict) or not isinstance(tensors, dict):
        raise ValueError("a weight space: expected the keys 'groups' and 'tensors'")
    if not 1 <= len(tensors) <= MAX_TENSORS:
        raise ValueError(f"a weight space of {len(tensors)} tensors; expected 1 to {MAX_TENSORS}")
    for name, pattern in tensors.items():
        check_name(name, "tensor")
        if (
            not isinstance(pattern, str)
            or len(pattern) > _LONGEST_PATTERN
            or pattern.count("(") > _DEEPEST_PATTERN
        ):
            raise ValueError(
                f"tensor {name!r}: expected a pattern of at most {_LONGEST_PATTERN} characters"
            )
    described = WeightSpace.from_json(json.dumps(space))
    used = {label.group for name in tensors for label in described.pattern(name).labels}
    unused = [name for name in groups if name not in used]
    if unused:
        raise ValueError(f"neuron group {unused[0]!r:.100} is no axis of a tensor")
    return described


def rebuild(description: Mapping[str, Any], space: WeightSpace, constants: Params) -> Architecture:
    """Build an architecture again from what was stored of it.

    What was asymmetric is so by its space and constants.

    Args:
        description: As `Architecture.description` gives it.
        space: Weight space as stored.
        constants: Constants as stored.

    Returns:
        The architecture. One that cannot be built raises StoreError.
    """
    standard = rebuild_standard(description, space)
    with _told_of(description["architecture"]):
        return replace(standard, space=space, constants=constants)


def rebuild_standard(description: Mapping[str, Any], space: WeightSpace) -> Architecture:
    """Build an architecture without its asymmetry: with the space and constants of its builder.

    Args:
        description: As `Architecture.description` gives it.
        space: Weight space as stored; it bounds what is built.

    Returns:
        The standard architecture.

    Raises:
        StoreError: If it was a module, or the stored weight space is not that of the named
            architecture.
    """
    architecture, input_shape = description["architecture"], description["input_shape"]
    num_classes = description["num_classes"]
    options = {name: value for name, value in architecture.items() if name != "name"}
    _check_options_fit(architecture, input_shape, space)
    name = architecture.get("name")
    if name == MODULE or "module" in architecture:
        raise StoreError(
            f"the networks are torch modules, {options!r:.300}; a zoo is data and imports no code: "
            "give zoo.load(path, modules={population: builder}), with what makes such a module, or "
            "symzoo --plugin MODULE"
        )
    builder = ARCHITECTURES.get(name) if isinstance(name, str) else None
    ours = builder is not None and builder.__module__.startswith("zoo.")
    build = partial(build_architecture, str(name), options, input_shape, num_classes)
    with _told_of(architecture):
        if ours:  # without memory first: what does not fit the stored space is never allocated
            with torch.device("meta"):
                _same_shapes(build(), space, architecture)
        standard = build()
        _same_shapes(standard, space, architecture)
        return standard


@contextmanager
def _told_of(architecture: Mapping[str, Any]) -> Iterator[None]:
    """Errors of building say what was to be built."""
    try:
        yield
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


def _check_options_fit(
    architecture: Mapping[str, Any], input_shape: Sequence[int], space: WeightSpace
) -> None:
    """Check that options of an architecture do not ask for more than its stored space holds.

    Args:
        architecture: Its name and options.
        input_shape: Shape of one input.
        space: The stored weight space.

    Raises:
        StoreError: If it has more layers than the space has tensors, or a graph that is too large.
    """
    tensors = len(space.tensors)
    for name, value in architecture.items():
        layers = value if name in _DEPTHS else 0
        if isinstance(value, list | tuple) and name != "edges":
            layers = len(value)
        if isinstance(layers, int | float) and not layers <= tensors:
            raise StoreError(
                f"architecture: {name!r}: {layers!r:.50} is more than the {tensors} tensors of the "
                "weight space"
            )
    nodes = math.prod(input_shape[1:])
    draws_graph = architecture.get("name") == "gin" and architecture.get("edges") != "input"
    if draws_graph and nodes > _MOST_NODES:
        raise StoreError(f"architecture: a graph of {nodes} nodes; expected at most {_MOST_NODES}")
