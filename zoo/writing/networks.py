"""What the networks of a population are, and how state dicts of them are read."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from zoo.architectures.base import Architecture, Inputs, constants_of
from zoo.params import Params
from zoo.state_dicts import counts_batches, tensors_of
from zoo.tracing.builders import constant_buffers, function_of
from zoo.tracing.tracer import trace
from zoo.weight_space import WeightSpace

Model = Architecture | WeightSpace | nn.Module
_EXPECTED = "a state dict: tensors by name"


@dataclass(frozen=True, eq=False)
class Kind:
    """What the networks of a population are.

    Attributes:
        space: Their weight space.
        architecture: What they compute, None if it is not known.
        aliases: Further names that tensors of the space have in state dicts, as tied ones do.
        buffers: What state dicts hold besides, the same in every network.
    """

    space: WeightSpace
    architecture: Architecture | None = None
    aliases: Mapping[str, str] = field(default_factory=dict)
    buffers: Params = field(default_factory=dict)

    @property
    def constants(self) -> Params:
        """Masks, fixed entries and the like."""
        return {} if self.architecture is None else self.architecture.constants

    @property
    def description(self) -> dict[str, Any] | None:
        """Name and options of the architecture, None if it is not known."""
        if self.architecture is None:
            return None
        described = self.architecture.description["architecture"]
        if "module" in described:  # a module that code names, as jobs describe it
            del described["name"]
        return described

    def read(self, network: object, what: str) -> Params:
        """Read one network.

        Args:
            network: Its state dict.
            what: What it is, for errors.

        Returns:
            Its tensors in the order of the space, float32.

        Raises:
            ValueError: If it is not one of this kind; names the tensor.
        """
        held = network if isinstance(network, Mapping) else {}
        rest = {n: v for n, v in held.items() if n not in self.buffers} if held else network
        given = tensors_of(rest, torch.float32, what, _EXPECTED)
        self._check_shapes(given, {*given, *held}, what)
        self._check_same({name: held[name] for name in self.buffers}, given, what)
        return {name: given[name] for name in self.space.tensors}

    def _check_shapes(self, given: Params, names: set[str], what: str) -> None:
        """Refuse networks that lack a tensor, have another, or one of another shape."""
        unknown = [name for name in given if name not in self._shapes]
        missing = [name for name in (*self.space.tensors, *self.buffers) if name not in names]
        if unknown or missing:
            raise ValueError(f"{what}: missing {missing[:5]}, unknown {unknown[:5]}")
        for name, tensor in given.items():
            if tensor.shape != self._shapes[name]:
                expected = list(self._shapes[name])
                raise ValueError(
                    f"{what}, {name!r}: expected shape {expected}, got {list(tensor.shape)}"
                )

    @cached_property
    def _shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of all tensors of floating numbers, by each of their names."""
        shapes = dict(self.space.shapes)
        return shapes | {alias: shapes[name] for alias, name in self.aliases.items()}

    def _check_same(self, buffers: Mapping[str, Any], given: Params, what: str) -> None:
        """Refuse tied tensors that differ, and what the module says otherwise."""
        for alias, name in self.aliases.items():
            if alias in given and not torch.equal(given[alias], given[name]):
                raise ValueError(f"{what}: {alias!r} and {name!r} are one tensor and differ")
        for name, buffer in self.buffers.items():
            value = torch.as_tensor(buffers[name])
            if value.shape != buffer.shape or not torch.equal(value.to(buffer.dtype), buffer):
                raise ValueError(
                    f"{what}: the buffer {name!r} is not that of the module; if each network has "
                    "its own, trace the module with statistics=[...]"
                )
        fixed = constants_of(self.constants, "fixed")
        for name, free in constants_of(self.constants, "free").items():
            if not torch.equal(_bits(given[name])[~free], _bits(fixed[name])[~free]):
                raise ValueError(
                    f"{what}, {name!r}: fixed entries are not those of the architecture"
                )


def _bits(tensor: Tensor) -> Tensor:
    """Floating numbers as they are stored, where 0 and -0 differ."""
    return tensor.float().contiguous().view(torch.int32)


def kind_of(model: Model, example_inputs: Inputs | None = None) -> Kind:
    """What networks of a model are.

    Args:
        model: An architecture; a weight space, if what they compute is not known; or a module,
            which is traced.
        example_inputs: Inputs of the module.

    Returns:
        The kind.

    Raises:
        ValueError: If there is a module without inputs, or it cannot be traced.
    """
    if isinstance(model, WeightSpace):
        return Kind(model)
    if isinstance(model, nn.Module):
        if example_inputs is None:
            raise ValueError("a module: expected example_inputs, which it is traced with")
        model = trace(model, example_inputs)
    return _kind_of_module(model) if model.is_module else Kind(model.space, model)


def _kind_of_module(traced: Architecture) -> Kind:
    """Names and buffers of state dicts of a module."""
    space, function = traced.space, function_of(traced)
    architecture = replace(traced, constants=traced.constants | constant_buffers(function))
    tensors = function.module.state_dict(keep_vars=True)
    names = {id(tensors[name]): name for name in space.tensors}
    aliases, buffers = {}, {}
    for name, tensor in tensors.items():
        if name in space.tensors or counts_batches(name):
            continue
        if id(tensor) in names:
            aliases[name] = names[id(tensor)]
        else:
            buffers[name] = tensor
    return Kind(space, architecture, aliases, buffers)
