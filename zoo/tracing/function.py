"""The function of a traced module: one module, run with the tensors of any network."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _NormBase

from zoo.architectures.base import Activate, Architecture, Inputs, arguments
from zoo.modules.recurrent import PlainRecurrence
from zoo.params import Params, batch_shape, cast, mapped
from zoo.symmetry.outputs import tensors_in
from zoo.weight_space import WeightSpace


class RunningStatistics(nn.Module):
    """A module that moves its running statistics and returns them beside its result.

    Only what owns a statistic is in training mode: dropout stays off.
    """

    def __init__(self, module: nn.Module, names: Sequence[str]):
        """Wrap a module in evaluation mode; its mode is changed.

        Args:
            module: The module.
            names: Buffers of it that are running statistics.
        """
        super().__init__()
        self.module = module
        self.names = tuple(names)
        for owner in self._owners():
            owner.training = True

    def _owners(self) -> list[nn.Module]:
        return [self.module.get_submodule(name.rpartition(".")[0]) for name in self.names]

    def forward(self, *inputs: Any, **named: Any) -> tuple[Any, Params]:
        """Run the module.

        Returns:
            What it returns, and its running statistics after that.

        Raises:
            ValueError: If a norm averages all batches, and so has to count them.
        """
        if any(isinstance(owner, _NormBase) and owner.momentum is None for owner in self._owners()):
            raise ValueError(
                "a traced batch norm cannot train with momentum None, expected a number"
            )
        result = self.module(*inputs, **named)
        return result, {name: self.module.get_buffer(name) for name in self.names}


@dataclass(frozen=True, eq=False)
class ModuleFunction:
    """What an `Architecture` calls when it is a traced module.

    Buffers that are not in the space are constants. As `nn.Module.to` does, they follow the params
    to a device and, if params have another precision than the module has, to their precision.

    Attributes:
        space: Weight space of the module.
        module: The module, in evaluation mode.
        dtype: Precision of the module.
        moving: The module with its running statistics in training mode; None if it has none.
        output: Picks the outputs from what the module returns; None for the only tensor in it.
        build: Makes the module with new initial parameters, if that is known.
    """

    space: WeightSpace
    module: nn.Module
    dtype: torch.dtype
    moving: RunningStatistics | None = None
    output: Callable[[Any], Any] | None = None
    build: Callable[[], nn.Module] | None = None

    def draw(self, generator: torch.Generator) -> Params:
        """Initial parameters: those of a new module that draws from the generator.

        Args:
            generator: On the CPU; it stands in for the global one while the module is built.

        Returns:
            Parameters of one network, float32 and on the CPU.

        Raises:
            ValueError: If it is not known how to build the module.
        """
        if self.build is None:
            raise ValueError(
                "this traced module has no initialization: expected trace(module, inputs, "
                "build=...), with a function of no arguments that makes the module"
            )
        with torch.random.fork_rng(devices=()):
            torch.set_rng_state(generator.get_state())
            drawn = module_params(self.space, self.build())
            generator.set_state(torch.get_rng_state())
        return {n: p.to("cpu", torch.float32, copy=True) for n, p in drawn.items()}

    def forward(self, params: Params, x: Inputs, activate: Activate) -> Tensor:
        """Run one network in evaluation mode.

        Args:
            params: Its parameters.
            x: Inputs, in the form of the example inputs.
            activate: That of an `Architecture`, and never called: the module runs its own
                non-linearities.

        Returns:
            Its outputs.

        Raises:
            ValueError: If `activate` is another function, or the module returns several tensors.
        """
        _check_activate(activate)
        tensors = {**params, **self._buffers(params)}
        return self._picked(self._run(self.module, tensors, x))

    def forward_training(
        self, params: Params, x: Inputs, activate: Activate
    ) -> tuple[Tensor, Params]:
        """Run one network, and move its running statistics.

        Args:
            params: Its parameters.
            x: Inputs, as `forward` takes them.
            activate: As in `forward`.

        Returns:
            Outputs, and the running statistics after this batch.

        Raises:
            ValueError: If there are no statistics, or `forward` raises it.
        """
        if self.moving is None:
            raise ValueError("the module has no running statistics")
        _check_activate(activate)
        # Copies, since a norm writes its new statistics, and its count of batches, into the old.
        copies = mapped(Tensor.clone, self._buffers(params))
        tensors = {f"module.{name}": t for name, t in {**params, **copies}.items()}
        result, moved = self._run(self.moving, tensors, x)
        return self._picked(result), mapped(Tensor.detach, moved)

    def _buffers(self, params: Params) -> Params:
        """The buffers of the module, with the params' device and type and running statistics."""
        batch_shape(self.space, params)
        like = next(iter(params.values()))
        dtype = None if like.dtype == self.dtype else like.dtype
        buffers = self.module.named_buffers()
        constants = {name: buffer for name, buffer in buffers if name not in self.space.tensors}
        # Running statistics have no derivative: torch has none for norms that use them.
        running = self.moving.names if self.moving else ()
        statistics = {name: params[name].detach() for name in running}
        return {**cast(constants, like.device, dtype), **statistics}

    @cached_property
    def _has_recurrence(self) -> bool:
        return any(isinstance(part, nn.RNNBase | nn.RNNCellBase) for part in self.module.modules())

    def _run(self, module: nn.Module, tensors: Params, x: Inputs) -> Any:
        inputs, named = arguments(x)
        with PlainRecurrence() if self._has_recurrence else nullcontext():
            return functional_call(module, tensors, inputs, named)

    def _picked(self, result: Any) -> Tensor:
        outputs = list(tensors_in(result if self.output is None else self.output(result)))
        if len(outputs) != 1:
            raise ValueError(
                f"the module returns {len(outputs)} tensors, expected one: name it, as in "
                "trace(module, inputs, output=lambda out: out.logits)"
            )
        return outputs[0]


def module_params(space: WeightSpace, module: nn.Module) -> Params:
    """The parameters and running statistics of a module, as a weight space of it names them.

    Args:
        space: Weight space, such as `trace(module, inputs).space`.
        module: A module with the tensors of the space; it may have other buffers.

    Returns:
        Its tensors in the order of the space, detached; they share memory with the module.

    Raises:
        ValueError: If the module lacks a tensor of the space, or has one of another shape.
    """
    tensors = {
        **dict(module.named_buffers(remove_duplicate=False)),
        **dict(module.named_parameters(remove_duplicate=False)),
    }
    params = {name: tensors[name].detach() for name in space.tensors if name in tensors}
    batch_shape(space, params)
    return params


def _check_activate(activate: Activate) -> None:
    """Refuse to replace or record non-linearities, since doing nothing would go unnoticed."""
    if not isinstance(activate, MethodType) or activate.__func__ is not Architecture.activate:
        raise ValueError(
            "a traced module runs its own non-linearities, which cannot be replaced or recorded; "
            "expected a named architecture"
        )
