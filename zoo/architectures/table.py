"""The table of architectures, and how a named one is built."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from types import UnionType
from typing import Any, Union, get_args, get_origin

import torch

from zoo.architectures.asymmetric import ASYMMETRIES
from zoo.architectures.base import Architecture
from zoo.architectures.cnn import cnn
from zoo.architectures.mlp import mlp

# name -> builder(input_shape, num_classes, **options); add your own here or from your own code
ARCHITECTURES: dict[str, Callable[..., Architecture]] = {"mlp": mlp, "cnn": cnn}


def build_architecture(name: str, options: Mapping[str, Any], input_shape: Sequence[int], num_classes: int) -> Architecture:
    """Build a standard architecture.

    Args:
        name: Its name in `ARCHITECTURES`.
        options: Options of its builder.
        input_shape: Shape of one input.
        num_classes: Number of classes.

    Returns:
        The architecture.

    Raises:
        ValueError: If the name or an option is unknown, or an option does not fit.
    """
    builder = _look_up("architecture", name, ARCHITECTURES)
    _check_options(f"architecture {name!r}", builder, options, given=("input_shape", "num_classes"))
    return builder(input_shape, num_classes, **options)


def make_asymmetric(architecture: Architecture, kind: str, options: Mapping[str, Any], seed: int) -> Architecture:
    """Build the asymmetric twin of an architecture.

    Args:
        architecture: The standard architecture.
        kind: Name in `ASYMMETRIES`.
        options: Options of that kind.
        seed: Seed of the constants (masks, fixed entries, mixing matrices, offsets).

    Returns:
        The asymmetric architecture.

    Raises:
        ValueError: If the kind or an option is unknown, or an option does not fit.
    """
    wrapper = _look_up("asymmetry", kind, ASYMMETRIES)
    _check_options(f"asymmetry {kind!r}", wrapper, options, given=("architecture", "generator"))
    return wrapper(architecture, torch.Generator().manual_seed(seed), **options)


def _look_up(what: str, name: str, table: Mapping[str, Callable[..., Architecture]]) -> Callable[..., Architecture]:
    if name not in table:
        raise ValueError(f"unknown {what} {name!r}; known are {sorted(table)}")
    return table[name]


def _check_options(
    what: str, function: Callable[..., Architecture], options: Mapping[str, Any], given: tuple[str, ...]
) -> None:
    valid = {name: p.annotation for name, p in inspect.signature(function).parameters.items() if name not in given}
    for name, value in options.items():
        if name not in valid:
            raise ValueError(f"unknown option {name!r} of {what}; options are {list(valid)}")
        if not _fits(value, valid[name]):
            expected = inspect.formatannotation(valid[name]).replace("collections.abc.", "")
            raise ValueError(f"option {name!r} of {what}: expected {expected}, found {value!r}")


def _fits(value: Any, annotation: Any) -> bool:
    """Whether a value from a configuration file has the annotated type; annotations not in the files we read always fit."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        return any(_fits(value, option) for option in inner)
    if origin is Sequence:
        return isinstance(value, (list, tuple)) and all(_fits(item, inner[0]) for item in value)
    if origin is Mapping:
        return isinstance(value, Mapping) and all(_fits(k, inner[0]) and _fits(v, inner[1]) for k, v in value.items())
    if annotation in (int, float):
        return isinstance(value, (int, annotation)) and not isinstance(value, bool)
    return isinstance(value, annotation) if annotation in (str, bool, type(None)) else True
