"""The boundary: what people hold of networks becomes what metanets read, or is refused.

| held | read as |
|---|---|
| a population, or a zoo that has one | the population |
| stacked tensors or arrays `{tensor: [N, *shape]}` | the networks |
| a state dict `{tensor: [*shape]}` | one network |
| a list of state dicts | the networks, in order |

Tensors and numpy arrays may be of any floating type, float16 to float64, and are converted to the
type of the metanet, float32. Whole numbers are not: rounded weights are another network.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import torch

from metanet.inputs.checks import shape_difference
from zoo.params import Params, mapped, stack
from zoo.state_dicts import tensors_of
from zoo.store.zoo import Zoo
from zoo.views import PopulationLike

Shapes = Mapping[str, tuple[int, ...]]
Given = Mapping[str, Any] | Sequence[Mapping[str, Any]] | pd.DataFrame | PopulationLike


def populations_of(given: object) -> list[PopulationLike]:
    """The populations to fit.

    Args:
        given: A population, a zoo that has one, or a sequence of populations.

    Returns:
        The populations.

    Raises:
        ValueError: If it is something else.
    """
    if not isinstance(given, list | tuple):
        return [population_of(given)]
    if not given:
        raise ValueError("expected at least one population, got none")
    return [population_of(each) for each in given]


def population_of(given: object) -> PopulationLike:
    """One population.

    Args:
        given: A population, or a zoo that has one.

    Returns:
        The population.

    Raises:
        ValueError: If it is something else.
    """
    if isinstance(given, Zoo):
        return _only_population(given)
    if not isinstance(given, PopulationLike):
        raise ValueError(f"expected a population, or {_ZOO}; got {type(given).__name__}")
    return given


def _only_population(zoo: Zoo) -> PopulationLike:
    if len(zoo) != 1:
        raise ValueError(f"expected a population, got a zoo that has several: choose of {[*zoo]}")
    return next(iter(zoo.values()))


def networks_of(given: object, spaces: Sequence[Shapes], dtype: torch.dtype) -> Any:
    """Networks to predict, in one of the forms that metanets read.

    Args:
        given: What is in the table above, or a table of hyperparameters.
        spaces: Shapes of the tensors of one network, of each weight space that it may be of.
        dtype: Floating type of params.

    Returns:
        Params `[N, *shape]`, a table or a population.

    Raises:
        ValueError: If it is something else, or holds no network.
    """
    if isinstance(given, pd.DataFrame):
        _check_count(len(given))
        return given
    if isinstance(given, Zoo | PopulationLike):
        return population_of(given)
    return params_of(given, spaces, dtype)


def params_of(given: object, spaces: Sequence[Shapes], dtype: torch.dtype) -> Params:
    """Params of networks, from tensors, arrays or state dicts.

    Args:
        given: Stacked tensors, a state dict, or a list of state dicts.
        spaces: Shapes of the tensors of one network, of each weight space that it may be of.
        dtype: Floating type of what is returned.

    Returns:
        Params `[N, *shape]`; tensors of that type as they are, not copied.

    Raises:
        ValueError: If it is something else, holds no network, or networks differ in their tensors.
    """
    if isinstance(given, list | tuple):
        return _stacked(
            [tensors_of(each, dtype, f"network {at}", _HELD) for at, each in enumerate(given)]
        )
    params = tensors_of(given, dtype, "networks", _HELD)
    if {name: tuple(tensor.shape) for name, tensor in params.items()} in list(map(dict, spaces)):
        return mapped(lambda tensor: tensor[None], params)
    _check_count(*(len(tensor) for tensor in params.values() if tensor.dim()))
    return params


def _stacked(networks: list[Params]) -> Params:
    """Networks that all have the tensors of the first one."""
    _check_count(len(networks))
    first, *others = (
        {name: tuple(tensor.shape) for name, tensor in network.items()} for network in networks
    )
    for at, shapes in enumerate(others, start=1):
        if shapes != first:
            raise ValueError(
                f"network {at}: expected the tensors of network 0: "
                f"{shape_difference(first, shapes)}"
            )
    return stack(networks)


def _check_count(*counts: int) -> None:
    if 0 in counts or not counts:
        raise ValueError("networks: expected at least one, got none")


_ZOO = "a zoo that has one population"
_HELD = f"a dict of tensors by name, a list of such, a population or {_ZOO}"
