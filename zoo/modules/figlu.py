"""Sigma-asymmetric torch modules: non-linearities become FiGLU.

The module is run once, to find the neurons of each non-linearity.
"""

import copy
import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.utils._python_dispatch import TorchDispatchMode

from zoo.architectures.base import arguments, figlu
from zoo.architectures.masks import draw_mixing
from zoo.modules.tensors import (
    check_open,
    check_patterns,
    fit_any,
    is_conv1d,
    skipped_modules,
)

# Sigmoid and softmax are left: they are gates and weights more often than non-linearities.
_ACTIVATIONS = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.RReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU),
    *(nn.SiLU, nn.Mish, nn.Hardswish, nn.Hardtanh, nn.Tanh, nn.Softplus, nn.Softsign),
)
# What the functions behind them are called; in-place variants end with an underscore.
_OPERATORS = {
    *("relu", "relu6", "leaky_relu", "_prelu_kernel", "rrelu_with_noise", "elu", "gelu", "silu"),
    *("mish", "hardswish", "hardtanh", "tanh", "softplus"),
}


class FiGLU(nn.Module):
    """Fixed-gate linear unit `sigmoid(F x) * x` on one axis of neurons.

    `F` is fixed, one for each width of that axis.
    """

    def __init__(self, mixings: Sequence[Float[Tensor, "_ _"]], axis: int):
        """Keep the mixing matrices as buffers `mixing_<width>`.

        Args:
            mixings: `F` of each width.
            axis: Axis of the neurons.
        """
        super().__init__()
        self.axis = axis
        for mixing in mixings:
            self.register_buffer(f"mixing_{len(mixing)}", mixing)

    def forward(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Apply the unit.

        Args:
            x: Pre-activations.

        Returns:
            Activations of the same shape.

        References:
            Lim et al. 2024, arXiv 2405.20231, section 3.2.
        """
        mixing = getattr(self, f"mixing_{x.shape[self.axis]}")
        if x.dim() == 1:
            return figlu(x[None], mixing)[0]
        return figlu(x.movedim(self.axis, 1), mixing).movedim(1, self.axis)

    def extra_repr(self) -> str:
        """Widths and axis, for `print(module)`."""
        return f"{', '.join(str(len(mixing)) for mixing in self.buffers())}, axis={self.axis}"


def sigma_asymmetric_(
    module: nn.Module,
    generator: torch.Generator,
    example_inputs: Any = None,
    std: int | float | None = None,
    activations: Sequence[str] = (),
    skip: Sequence[str] = (),
) -> None:
    """Replace every activation module by FiGLU in place: `sigmoid(F x) * x`, `F` fixed, Gaussian.

    The module is run once, in evaluation mode, to see how many neurons each activation has and
    along which axis: the last one after a linear, attention or embedding layer, that of the
    channels after a convolution. An activation that is called several times has one `F` for each
    width. Gates (`nn.Sigmoid`, softmax) and what no activation follows stay as they are.

    Args:
        module: The module.
        generator: Source of `F`, in the order of `named_modules`.
        example_inputs: Inputs of the module: a tensor, a sequence of positional ones, or a mapping
            of named ones.
        std: Standard deviation of the entries of `F`, `1 / sqrt(d)` for `d` neurons if None.
        activations: Names of modules of your own that are activations too.
        skip: Names of activations, or of modules in which all stay as they are.

    Raises:
        ValueError: If an activation is a function call, which cannot be replaced, is never called,
            or has no clear axis.

    References:
        Lim et al. 2024, arXiv 2405.20231, section 3.2.
    """
    if std is not None and not 0 < std < math.inf:
        raise ValueError(f"sigma: expected std > 0, got {std}")
    if example_inputs is None:
        raise ValueError(
            "sigma: example_inputs are needed to see how many neurons each activation has, "
            "such as a batch of data"
        )
    check_open(module, skip)
    names = [name for name, _ in module.named_modules(remove_duplicate=False)]
    check_patterns("activations", activations, names)
    called = {n: m for n, m in module.named_modules() if n and _is_activation(n, m, activations)}
    recorded = _record(module, set(called), skip, example_inputs)
    _refuse_functional(recorded.functional)
    skipped = skipped_modules(module, skip)
    units = {
        m: _unit(name, recorded.calls.get(name, []), std, generator)
        for name, m in called.items()
        if m not in skipped
    }
    if not units:
        kinds = ", ".join(f"nn.{kind.__name__}" for kind in _ACTIVATIONS)
        raise ValueError(
            f"sigma: no activation modules found; looked for {kinds} and those of "
            "transformers.activations; name your own with activations=[...]"
        )
    _replace(module, units)


def _refuse_functional(functional: Mapping[tuple[str, str], str]) -> None:
    if functional:
        calls = ", ".join(
            f"{operator} in {name or 'the module itself'} ({kind})"
            for (name, kind), operator in functional.items()
        )
        raise ValueError(
            f"sigma: activations that are function calls cannot be replaced: {calls}; "
            "call modules such as nn.ReLU() there, or leave those modules as they are with "
            "skip=[...]"
        )


def _is_activation(name: str, module: nn.Module, named: Sequence[str]) -> bool:
    kind = type(module)
    is_theirs = kind.__module__ == "transformers.activations"
    return (
        isinstance(module, _ACTIVATIONS)
        or (is_theirs and kind.__name__ != "LinearActivation")
        or fit_any(named, [name])
    )


def _unit(
    name: str,
    calls: Sequence[tuple[Tensor, int | None]],
    std: float | None,
    generator: torch.Generator,
) -> FiGLU:
    if not calls:
        raise ValueError(
            f"sigma: activation {name!r} is not called with these example inputs; "
            f"leave it out with skip=[{name!r}]"
        )
    axes = {axis for _, axis in calls}
    if None in axes or len(axes) > 1:
        shapes = [list(x.shape) for x, _ in calls]
        raise ValueError(
            f"sigma: cannot tell which axis of {shapes} holds the neurons of {name!r}; "
            "put FiGLU(mixings, axis) of "
            f"zoo.modules.figlu there by hand, or leave it as it is with skip=[{name!r}]"
        )
    axis = axes.pop() or -1
    mixings = []
    for width in dict.fromkeys(x.shape[axis] for x, _ in calls):
        mixings.append(draw_mixing(width, std, generator).to(calls[0][0]))
    return FiGLU(mixings, axis)


def _replace(module: nn.Module, units: Mapping[nn.Module, nn.Module]) -> None:
    for parent in list(module.modules()):
        # Not named_children: it lists a module that has several names once.
        for attribute, child in list(parent._modules.items()):
            if child is not None and child in units:
                setattr(parent, attribute, units[child])
                if isinstance(parent, nn.TransformerEncoderLayer):
                    # Its fused kernel, used in evaluation, would still compute the activation that
                    # it was built with.
                    parent.activation_relu_or_gelu = 0
    for encoder in module.modules():
        if isinstance(encoder, nn.TransformerEncoder):
            encoder.use_nested_tensor = False


class _Recorder(TorchDispatchMode):
    """Sees every operator and, by hooks, which module runs it.

    Attributes:
        calls: Activation -> its inputs, and the axis of neurons where it is clear.
        functional: Name and class of a module -> an operator that it called and no activation
            module did.
        running: Name and class of the modules that are running, the outermost first.
        written: Axis of neurons and rank of the outputs of the last layer that mixes neurons.
    """

    calls: dict[str, list[tuple[Tensor, int | None]]]
    functional: dict[tuple[str, str], str]
    running: list[tuple[str, str]]
    written: tuple[int, int] | None

    def __init__(self, module: nn.Module, activations: set[str], skip: Sequence[str]):
        super().__init__()
        self.calls, self.functional, self.running, self.written = {}, {}, [], None
        self.activations, self.skip = activations, skip
        for name, child in module.named_modules():
            child.register_forward_pre_hook(partial(self._enter, name), with_kwargs=True)
            child.register_forward_hook(self._leave)

    def _enter(self, name: str, module: nn.Module, args: Any, kwargs: Any) -> None:
        if name in self.activations:
            x = (*args, *kwargs.values())[0]
            axis = -1 if x.dim() <= 2 else None
            if axis is None and self.written is not None and self.written[1] == x.dim():
                axis = self.written[0]
            self.calls.setdefault(name, []).append((x.detach(), axis))
        self.running.append((name, type(module).__name__))

    def _leave(self, module: nn.Module, _args: Any, output: Any) -> None:
        self.running.pop()
        axis = _neuron_axis(module)
        if axis is not None:
            self.written = axis, (output[0] if isinstance(output, tuple) else output).dim()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        operator = func.overloadpacket.__name__.rstrip("_")
        if operator in _OPERATORS and self.running:
            inside = [name for name, _ in self.running]
            if not self.activations.intersection(inside) and not fit_any(self.skip, inside[-1:]):
                self.functional.setdefault(self.running[-1], operator)
        return func(*args, **(kwargs or {}))


def _neuron_axis(layer: nn.Module) -> int | None:
    """Axis along which a layer writes neurons, None if it is not one that mixes them."""
    if isinstance(layer, _ConvNd):
        return -1 - len(layer.kernel_size)
    mixes = isinstance(layer, nn.Linear | nn.Embedding | nn.MultiheadAttention) or is_conv1d(layer)
    return -1 if mixes else None


def _record(
    module: nn.Module, activations: set[str], skip: Sequence[str], example_inputs: Any
) -> _Recorder:
    # A copy, so that hooks, modes and gradients leave no trace; with gradients attention layers do
    # not use fused kernels.
    probe = copy.deepcopy(module).eval().requires_grad_(True)
    recorder = _Recorder(probe, activations, skip)
    args, named = arguments(example_inputs)
    with torch.enable_grad(), recorder:
        probe(*args, **named)
    return recorder
