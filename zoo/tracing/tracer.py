"""The weight space of any torch module, read from its exported graph and verified numerically.

traced = trace(module, example_inputs)                # an Architecture
params = module_params(traced.space, module)
outputs = traced.apply(params, inputs)
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

from zoo.architectures.base import MODULE, Architecture, Inputs, arguments, statistic_constants
from zoo.modules.function import (
    InTraining,
    ModuleFunction,
    in_evaluation_mode,
    in_training_mode,
    module_params,
)
from zoo.options import checked
from zoo.params import Params, mapped, perturb
from zoo.symmetry.residual import max_output_change
from zoo.tracing.program import Program, TraceError, copied, export
from zoo.tracing.propagate import TraceWarning, analyze
from zoo.tracing.spaces import build_space
from zoo.weight_space import WeightSpace

__all__ = ["TraceError", "TraceWarning", "module_params", "trace", "verify_space"]


@checked
def trace(
    module: nn.Module,
    example_inputs: Inputs,
    statistics: Sequence[str] = (),
    output: Callable[[Any], Any] | None = None,
) -> Architecture:
    """Find the weight space of a module and prove it.

    The module is exported in evaluation mode; rules for core operators say which neurons stand
    along which axis of every tensor, and which permutations and scales of them pass. The space is
    sound, not complete: see `docs/weight_space.md`. It is returned only if sampled elements of its
    group leave the function as it is, in float64 (see `verify`), at parameters near the module's
    own.

    Parameters that require no gradient count as parameters. Buffers are constants, the same for
    every network, but for the running statistics of batch norms.

    Args:
        module: The module; not changed.
        example_inputs: Its inputs: a tensor, a sequence of positional ones, or a mapping of named
            ones.
        statistics: Further buffers that belong to the parameters, such as those of a batch norm of
            your own.
        output: Picks what counts from what the module returns, such as `lambda out: out.logits`. If
            None all tensors in it, in tuples, lists and mappings; every neuron that is returned is
            fixed. Other objects, such as the key-value cache of a language model, do not count.

    Returns:
        The architecture. `apply(params, x)` runs the module in evaluation mode, with `x` in the
        form of `example_inputs`, and gives one tensor; `apply_training` runs it in training mode.
        It never calls `activate`, and does not know how to draw new parameters: see `from_module`.

    Raises:
        TraceError: If the module cannot be exported (names the call), or the space fails its proof.

    >>> module = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> traced = trace(module, torch.randn(2, 4))
    >>> dict(traced.space.tensors)
    {'0.weight': 'h1 <- x', '0.bias': 'h1', '2.weight': 'y <- h1', '2.bias': 'y'}
    >>> traced.space.groups["h1"].scaling
    'positive'
    """
    args, named = tree_map_only(Tensor, Tensor.cpu, arguments(example_inputs))
    program = export(module, args, named, statistics, output)
    space = build_space(analyze(program), program.statistics)
    _prove(space, program, [x for x in tree_leaves((args, named)) if isinstance(x, Tensor)])
    function = ModuleFunction(
        space,
        in_evaluation_mode(copied(module)),
        InTraining(in_training_mode(copied(module)), sorted(program.statistics)),
        program.params[next(iter(space.tensors))].dtype,
        output=output,
        example_inputs=example_inputs,
    )
    return _architecture(function, program)


def _architecture(function: ModuleFunction, program: Program) -> Architecture:
    input_shapes = [program.input_shapes().get(name, ()) for name in program.inputs]
    last_axes = [node.meta["val"].shape[-1:] for node in program.outputs]
    return Architecture(
        function.space,
        function.draw,
        function.forward,
        statistic_constants(function.space, sorted(program.statistics)),
        function.forward_training,
        is_random=True,
        name=MODULE,
        options={"class": type(function.module).__qualname__},
        input_shape=input_shapes[0][1:] if len(input_shapes) == 1 else (),
        num_outputs=next(iter(last_axes[0]), 0) if len(last_axes) == 1 else 0,
    )


def verify_space(
    space: WeightSpace,
    apply: Callable[[Params], Any],
    params: Mapping[str, Tensor],
    generator: torch.Generator | None = None,
    num_samples: int = 4,
    tolerance: float = 1e-10,
) -> None:
    """Check in float64 that elements sampled from a space's group leave a function as it is.

    Args:
        space: The weight space.
        apply: `apply(params)` runs the network on some inputs, in the precision of the params.
        params: Parameters to start from; converted to float64.
        generator: Source of the elements, seeded with 0 if None.
        num_samples: Elements to draw.
        tolerance: Largest change allowed, relative to the largest output where that is above 1.

    Raises:
        TraceError: If the function changes; names the neuron groups that are at fault.
    """
    double = mapped(Tensor.double, params)
    generator = generator or torch.Generator().manual_seed(0)
    change = max_output_change(space, apply, double, generator, num_samples)
    if change <= tolerance:
        return
    by_group = {
        name: max_output_change(space, apply, double, generator, num_samples, [name])
        for name in space.groups
    }
    guilty = {name: f"{value:.2g}" for name, value in by_group.items() if not value <= tolerance}
    raise TraceError(
        f"the weight space is not one of this function: outputs change by {change:.2g} (relative), "
        f"expected at most {tolerance:g}; change by neuron group: {guilty}"
    )


def _prove(space: WeightSpace, program: Program, inputs: Sequence[Any]) -> None:
    generator = torch.Generator().manual_seed(0)
    for point in (program.params, perturb(program.params, generator)):
        verify_space(
            space, lambda p: program.run_double(p, inputs), point, generator, num_samples=2
        )
