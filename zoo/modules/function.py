"""The function of a traced module: one module, run with the tensors of any network."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _NormBase

from zoo.architectures.base import Activate, Architecture, Inputs, arguments
from zoo.modules.recurrent import PlainRecurrence
from zoo.params import Params, batch_shape, cast, mapped
from zoo.symmetry.outputs import tensors_in
from zoo.weight_space import WeightSpace


class InTraining(nn.Module):
    """A module that returns, beside its result, buffers that running it may have changed."""

    def __init__(self, module: nn.Module, names: Sequence[str]):
        """Wrap a module.

        Args:
            module: The module.
            names: Buffers of it that are running statistics.
        """
        super().__init__()
        self.module = module
        self.names = tuple(names)

    def forward(self, *inputs: Any, **named: Any) -> tuple[Any, Params]:
        """Run the module.

        Returns:
            What it returns, and its running statistics after that.

        Raises:
            ValueError: If a norm averages all batches, and so has to count them.
        """
        owners = [self.module.get_submodule(name.rpartition(".")[0]) for name in self.names]
        if any(isinstance(owner, _NormBase) and owner.momentum is None for owner in owners):
            raise ValueError("a batch norm cannot train with momentum None, expected a number")
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
        training: The module as training runs it.
        dtype: Precision of the module.
        frozen: Parameters that nothing changes in training.
        output: Picks the outputs from what the module returns; None for the only tensor in it.
        example_inputs: Inputs that the module takes.
        build: Makes the module with new initial parameters, if that is known.
    """

    space: WeightSpace
    module: nn.Module
    training: InTraining
    dtype: torch.dtype
    frozen: tuple[str, ...] = ()
    output: Callable[[Any], Any] | None = None
    example_inputs: Inputs = ()
    build: Callable[[], nn.Module] | None = None
    _has_recurrence: bool = field(init=False, default=False)

    def __post_init__(self):
        """Look for recurrent layers once, where no compiler looks on."""
        recurrent = (nn.RNNBase, nn.RNNCellBase)
        has = any(isinstance(part, recurrent) for part in self.module.modules())
        object.__setattr__(self, "_has_recurrence", has)

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
                "this traced module has no initialization: expected zoo.from_module(builder, "
                "example_inputs), with a function of no arguments that makes the module"
            )
        drawn = module_params(self.space, built(self.build, generator))
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
            ValueError: If `forward` raises it.
        """
        _check_activate(activate)
        # Copies, since a norm writes its new statistics, and its count of batches, into the old.
        copies = mapped(Tensor.clone, self._buffers(params))
        tensors = {f"module.{name}": t for name, t in {**params, **copies}.items()}
        result, moved = self._run(self.training, tensors, x)
        kept = {name: params[name] for name in self.frozen}
        return self._picked(result), mapped(Tensor.detach, {**moved, **kept})

    def _buffers(self, params: Params) -> Params:
        """The buffers of the module, with the params' device and type and running statistics."""
        batch_shape(self.space, params)
        like = next(iter(params.values()))
        dtype = None if like.dtype == self.dtype else like.dtype
        buffers = self.module.named_buffers()
        constants = {name: buffer for name, buffer in buffers if name not in self.space.tensors}
        # Running statistics have no derivative: torch has none for norms that use them.
        statistics = {name: params[name].detach() for name in self.training.names}
        return {**cast(constants, like.device, dtype), **statistics}

    def _run(self, module: nn.Module, tensors: Params, x: Inputs) -> Any:
        inputs, named = arguments(x)
        recurrence = PlainRecurrence() if self._has_recurrence else nullcontext()
        # The fused kernels of attention know no batch of networks.
        with recurrence, sdpa_kernel(SDPBackend.MATH):
            return functional_call(module, tensors, inputs, named)

    def _picked(self, result: Any) -> Tensor:
        outputs = list(tensors_in(result if self.output is None else self.output(result)))
        if len(outputs) != 1:
            raise ValueError(
                f"the module returns {len(outputs)} tensors, expected one: name it, as in "
                "trace(module, inputs, output=lambda out: out.logits)"
            )
        return outputs[0]


def in_evaluation_mode(module: nn.Module) -> nn.Module:
    """Put a module into evaluation mode, in place.

    Args:
        module: The module.

    Returns:
        The same; its attention layers do not take torch's fused way through evaluation, which knows
        no batch of networks.
    """
    for layer in module.eval().modules():
        if isinstance(layer, nn.MultiheadAttention):
            layer.dropout, layer.training = 0.0, True
        elif isinstance(layer, nn.TransformerEncoderLayer):
            layer.activation_relu_or_gelu = 0
        elif isinstance(layer, nn.TransformerEncoder):
            layer.use_nested_tensor = False
    return module


def in_training_mode(module: nn.Module) -> nn.Module:
    """Put a module into the mode in which it is trained, in place.

    Args:
        module: The module. If the whole of it is in evaluation mode, it gets into training mode;
            else each part stays in its own.

    Returns:
        The same.
    """
    return module if module.training else module.train()


def built(build: Callable[[], nn.Module], generator: torch.Generator) -> nn.Module:
    """Make a module that draws its initial parameters from a generator.

    Args:
        build: Makes it, with draws from torch's global state.
        generator: On the CPU; it stands in for the global one meanwhile.

    Returns:
        The module.

    Raises:
        ValueError: If what is made is no module.
    """
    with torch.random.fork_rng(devices=()):
        torch.set_rng_state(generator.get_state())
        module = build()
        generator.set_state(torch.get_rng_state())
    if not isinstance(module, nn.Module):
        function = build.func if isinstance(build, partial) else build
        raise ValueError(
            f"{function!r:.200} returns {type(module).__name__}, expected a torch.nn.Module"
        )
    return module


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
