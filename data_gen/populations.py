"""The architectures of a job's populations."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from data_gen.columns import COLUMNS
from data_gen.config import Job, PopulationConfig, named
from data_gen.rng import key
from data_gen.tasks.checks import input_form
from data_gen.tasks.data import Task
from zoo.architectures.base import Architecture, Inputs
from zoo.architectures.table import build_architecture, make_asymmetric
from zoo.imports import import_attribute
from zoo.tracing.builders import from_module, twin_of_module

_NUM_EXAMPLES = 2


def build_standard(config: PopulationConfig, task: Task) -> Architecture:
    """The architecture of a population without its asymmetry.

    Args:
        config: The population.
        task: The task.

    Returns:
        The architecture, on the CPU.

    Raises:
        ValueError: If the architecture does not fit the task.
    """
    if config.module is not None:
        some = torch.arange(_NUM_EXAMPLES, device=task.like.device) % len(task.train)
        return build_module(
            config.architecture, tree_map(_as_built, task.inputs(task.train.rows(some)))
        )
    name, options = named(config.architecture, "name")
    if not isinstance(task.train.x, torch.Tensor):
        inputs = input_form(task.train)
        raise ValueError(f"architecture {name!r} has one input; the task has {inputs}")
    if len(task.output_shape) != 1:
        raise ValueError(
            f"architecture {name!r} has outputs of one axis; the task needs {task.output_shape}"
        )
    return build_architecture(name, options, task.input_shape, task.output_shape[0])


def _as_built(inputs: Tensor) -> Tensor:
    """Inputs where modules are made, and in the precision in which they are."""
    return inputs.to("cpu", torch.float32 if inputs.is_floating_point() else None)


def build_module(architecture: dict[str, Any], example_inputs: Inputs) -> Architecture:
    """The architecture of a module of the user's own.

    Args:
        architecture: Its `module:attribute`, and its options.
        example_inputs: Its inputs.

    Returns:
        The architecture, on the CPU.

    Raises:
        ValueError: If the module cannot be imported, made or traced.
    """
    name, options = architecture["module"], architecture.get("options", {})
    make = import_attribute(name, "architecture.module")
    form = tuple((tuple(x.shape), x.dtype) for x in tree_leaves(example_inputs))
    try:
        return _traced(make, json.dumps(options), _Example(form, example_inputs))
    except (ValueError, TypeError, ArithmeticError, LookupError, RuntimeError) as error:
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        raise ValueError(f"architecture.module: {name!r}: {kind}{error}") from error


@dataclass(frozen=True)
class _Example:
    """Inputs of a module, told apart by their form: a module is traced once for each."""

    form: tuple[Any, ...]
    inputs: Inputs = field(compare=False)


@lru_cache(maxsize=32)
def _traced(make: Callable[..., Any], options: str, example: _Example) -> Architecture:
    return from_module(partial(make, **json.loads(options)), example.inputs)


def build_population(job: Job, name: str, task: Task) -> Architecture:
    """The architecture of a population, constants included.

    Args:
        job: The job.
        name: Name of the population.
        task: The task.

    Returns:
        The architecture, on the CPU. Constants depend on the job's seed and the kind of asymmetry,
        not on the name, so that populations that differ in `kappa` alone share their masks.

    Raises:
        ValueError: If the architecture does not fit the task, or an option does not fit it.
    """
    try:
        architecture = twin_of(job, name, build_standard(job.populations[name], task))
    except ValueError as error:
        raise ValueError(f"population {name!r}: {error}") from error
    columns = {"checkpoint_steps", *job.hyperparameters, *COLUMNS}
    clash = columns.intersection(architecture.space.tensors)
    if clash:
        raise ValueError(
            f"population {name!r}: tensors {sorted(clash)} are named like columns of the table; "
            "rename them"
        )
    return architecture


def twin_of(job: Job, name: str, standard: Architecture) -> Architecture:
    """The architecture of a population with its asymmetry.

    Args:
        job: The job.
        name: Name of the population.
        standard: Its architecture without the asymmetry.

    Returns:
        The architecture.

    Raises:
        ValueError: If an option does not fit the architecture.
    """
    asymmetry = job.populations[name].asymmetry
    if asymmetry is None:
        return standard
    kind, options = named(asymmetry, "kind")
    seed = key(job.seed, "constants", kind)
    if standard.is_module:
        return twin_of_module(standard, kind, options, seed)
    return make_asymmetric(standard, kind, options, seed)
