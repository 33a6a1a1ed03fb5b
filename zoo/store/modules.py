"""Stored networks that are torch modules: whoever runs them says what makes such a module."""

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch.utils._pytree import tree_map

from zoo.architectures import Architecture
from zoo.architectures.base import Inputs, constants_of
from zoo.params import Params
from zoo.store.entries import InputEntry, TaskEntry
from zoo.store.manifest import PopulationEntry
from zoo.store.mapped import StoreError
from zoo.tracing.builders import (
    Builder,
    Recipe,
    architecture_of,
    function_of,
    recipe_of,
    with_sigma,
)
from zoo.weight_space import WeightSpace


def restored(
    module: Builder | Architecture, entry: PopulationEntry, task: TaskEntry, constants: Params
) -> Architecture:
    """The architecture of stored networks, from the module that the reader names.

    Args:
        module: Makes the module, given the options that are stored; or its architecture.
        entry: What the manifest says of the population.
        task: What it says of the task.
        constants: Constants as stored.

    Returns:
        The architecture.

    Raises:
        StoreError: If the module is not that of the networks.
    """
    try:
        return _restored(module, entry, task, constants)
    except (ValueError, TypeError, RuntimeError) as error:
        raise StoreError(
            f"the networks are not those of the module that was given: {error}; stored is "
            f"{entry.architecture!r:.300}"
        ) from error


def _restored(
    module: Builder | Architecture, entry: PopulationEntry, task: TaskEntry, constants: Params
) -> Architecture:
    if isinstance(module, Architecture) and function_of(module).build is None:
        return _with_space(module, entry.weight_space, constants)  # it was traced as it is
    if isinstance(module, Architecture):
        recipe = recipe_of(module)
    else:
        stored: dict[str, Any] = entry.architecture or {}
        recipe = Recipe(partial(module, **stored.get("options", {})), example_inputs_of(task))
    options = dict(entry.asymmetry or {})
    if options.pop("kind", None) == "sigma":
        recipe = recipe._replace(change=with_sigma(recipe.example_inputs, options))
    ours = architecture_of(recipe._replace(buffers=constants_of(constants, "buffer")))
    return _with_space(ours, entry.weight_space, constants)


def _with_space(ours: Architecture, space: WeightSpace, constants: Params) -> Architecture:
    """An architecture with the stored space and constants, which must be those of its module."""
    statistics = tuple(constants_of(constants, "statistic"))
    if ours.space.tensors != space.tensors or ours.space.shapes != space.shapes:
        raise ValueError(_difference(ours.space, space))
    if ours.statistics != statistics:
        raise ValueError(
            f"the module has the statistics {list(ours.statistics)}, the stored networks "
            f"{list(statistics)}"
        )
    return replace(ours, space=space, constants=dict(constants))


def example_inputs_of(task: TaskEntry) -> Inputs:
    """Two inputs of the shapes and types that a manifest holds."""
    generator = torch.Generator().manual_seed(0)

    def draw(entry: InputEntry) -> torch.Tensor:
        if entry.below is None:
            return torch.randn((2, *entry.shape), generator=generator)
        return torch.randint(entry.below, (2, *entry.shape), generator=generator)

    if task.input_shape is None or task.single_input is not None:
        return torch.randn((2, *(task.single_input or ())), generator=generator)
    return tree_map(draw, task.input_shape, is_leaf=lambda at: isinstance(at, InputEntry))


def _difference(ours: WeightSpace, stored: WeightSpace) -> str:
    """The first tensor that is not the same in two weight spaces."""
    for name in {**stored.tensors, **ours.tensors}:
        pairs = [
            (space.tensors[name], space.shapes[name]) if name in space.tensors else None
            for space in (ours, stored)
        ]
        if pairs[0] != pairs[1]:
            return f"tensor {name!r}: the module has {pairs[0]}, the stored networks {pairs[1]}"
    return "the module has the tensors of the stored networks in another order"
