"""The table of architectures, and how a named one is built."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from zoo.architectures.asymmetric import ASYMMETRIES
from zoo.architectures.base import Architecture
from zoo.architectures.cnn import build_cnn
from zoo.architectures.gin import build_gin
from zoo.architectures.mlp import build_mlp
from zoo.architectures.resnet import build_resnet
from zoo.architectures.siren import build_siren
from zoo.architectures.transformer import build_transformer
from zoo.options import check_options, checked

_LARGEST = torch.finfo(torch.float32).max
MOST_PARAMS = 2**28
"""Of a network; 1 GiB."""

# name -> builder(input_shape, num_classes, **options); add your own here or from your own code
ARCHITECTURES: dict[str, Callable[..., Architecture]] = {
    "mlp": build_mlp,
    "cnn": build_cnn,
    "resnet": build_resnet,
    "transformer": build_transformer,
    "gin": build_gin,
    "siren": build_siren,
}


@checked
def build_architecture(
    name: str, options: Mapping[str, Any], input_shape: Sequence[int], num_classes: int
) -> Architecture:
    """Build a standard architecture.

    Args:
        name: Its name in `ARCHITECTURES`.
        options: Options of its builder.
        input_shape: Shape of one input.
        num_classes: Number of classes.

    Returns:
        The architecture.

    Raises:
        ValueError: If the name or an option is unknown, an option does not fit, or a network would
            be larger than 1 GiB.
    """
    built = check_architecture(name, options)(input_shape, num_classes, **options)
    _check_size(f"architecture {name!r} with options {dict(options)!r:.200}", built)
    return replace(
        built,
        name=name,
        options=dict(options),
        input_shape=tuple(input_shape),
        num_outputs=num_classes,
    )


def _check_size(what: str, built: Architecture) -> None:
    if built.space.num_params > MOST_PARAMS:
        raise ValueError(
            f"{what}: expected at most {MOST_PARAMS} parameters, got {built.space.num_params}"
        )


@checked
def make_asymmetric(
    architecture: Architecture, kind: str, options: Mapping[str, Any], seed: int
) -> Architecture:
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
    return check_asymmetry(kind, options)(
        architecture, torch.Generator().manual_seed(seed), **options
    )


def check_architecture(name: str | None, options: Mapping[str, Any]) -> Callable[..., Architecture]:
    """Look an architecture up and check names and types of its options, without building it.

    Args:
        name: Its name in `ARCHITECTURES`.
        options: Options of its builder.

    Returns:
        The builder.

    Raises:
        ValueError: If the name or an option is unknown, or an option has the wrong type.
    """
    return look_up("architecture", name, ARCHITECTURES, options, ("input_shape", "num_classes"))


def check_asymmetry(kind: str | None, options: Mapping[str, Any]) -> Callable[..., Architecture]:
    """Look an asymmetry up and check names and types of its options, without building it.

    Args:
        kind: Name in `ASYMMETRIES`.
        options: Options of that kind.

    Returns:
        The wrapper.

    Raises:
        ValueError: If the kind or an option is unknown, or an option has the wrong type.
    """
    return look_up("asymmetry", kind, ASYMMETRIES, options, ("architecture", "generator"))


def look_up(
    what: str,
    name: str | None,
    table: Mapping[str, Callable[..., Any]],
    options: Mapping[str, Any],
    given: tuple[str, ...],
) -> Callable[..., Any]:
    """Look a function up in a table and check names and types of its options.

    Args:
        what: What the table holds, for errors.
        name: Name to look up.
        table: The functions by name.
        options: Options of the function.
        given: Names of its arguments that are not options.

    Returns:
        The function.

    Raises:
        ValueError: If there is none of that name, or an option is unknown or has the wrong type.
    """
    if name is None or name not in table:
        raise ValueError(f"unknown {what} {name!r}; known are {sorted(table)}")
    check_options(f"{what} {name!r}", table[name], options, given)
    for option, value in options.items():
        _check_finite(f"option {option!r} of {what} {name!r}", value)
    return table[name]


def is_storable(value: int | float) -> bool:
    """Whether a network can be made of a number: float32 holds it, or an integer of 64 bits."""
    return abs(value) < 2**63 if isinstance(value, int) else abs(value) <= _LARGEST


def _check_finite(what: str, value: Any) -> None:
    """Refuse finite numbers that float32, in which networks are stored, does not hold."""
    if isinstance(value, Mapping | list | tuple):
        for part in value.values() if isinstance(value, Mapping) else value:
            _check_finite(what, part)
    elif isinstance(value, int | float) and abs(value) < math.inf and not is_storable(value):
        raise ValueError(f"{what}: expected numbers that float32 holds, found {value!r:.50}")
