"""The weight space of any torch module, read from its exported graph and verified numerically.

traced = trace(module, example_inputs)
traced.space        traced.params        traced.apply(params, *inputs)
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from zoo.params import Params, batch_shape, perturb
from zoo.symmetry.residual import max_output_change
from zoo.tracing.program import Program, TraceError, export
from zoo.tracing.propagate import TraceWarning, analyze
from zoo.tracing.spaces import build_space
from zoo.weight_space import WeightSpace

__all__ = ["TraceError", "TraceWarning", "Traced", "trace", "verify"]


@dataclass(frozen=True, eq=False)
class Traced:
    """A module as the library sees it.

    Attributes:
        space: Weight space of the parameters and of the running statistics of batch norms.
        params: The module's own parameters and statistics, detached.
        statistics: Names of the tensors in `params` that are running statistics.
        function: `function(params, *inputs, **named)`: the module with other parameters; use
            `apply`.
    """

    space: WeightSpace
    params: Params
    statistics: frozenset[str]
    function: Callable[..., Any]

    def apply(self, params: Mapping[str, Tensor], *inputs: Any, **named: Any) -> Any:
        """Run the module, in evaluation mode, with some parameters.

        `torch.func.vmap` runs many at once.

        Args:
            params: Parameters of one network; tensors as in `self.params`.
            *inputs: Inputs of the module.
            **named: Inputs by name.

        Returns:
            Whatever the module returns.
        """
        return self.function(params, *inputs, **named)


def trace(
    module: nn.Module,
    example_inputs: Tensor | Sequence[Any] | Mapping[str, Any],
    statistics: Sequence[str] = (),
    output: Callable[[Any], Any] | None = None,
) -> Traced:
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
        The traced module.

    Raises:
        TraceError: If the module cannot be exported (names the call), or the space fails its proof.

    >>> module = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> traced = trace(module, torch.randn(2, 4))
    >>> dict(traced.space.tensors)
    {'0.weight': 'h1 <- x', '0.bias': 'h1', '2.weight': 'y <- h1', '2.bias': 'y'}
    >>> traced.space.groups["h1"].scaling
    'positive'
    """
    args, named = _arguments(example_inputs)
    wrapped = _Output(copy.deepcopy(module), output)
    program = export(
        wrapped, _on_cpu(args), _on_cpu(named), [f"module.{name}" for name in statistics]
    )
    own = {
        **dict(wrapped.named_parameters()),
        **{name: wrapped.get_buffer(name) for name in sorted(program.statistics)},
    }
    space = build_space(analyze(program, own), program.statistics)
    params = {name.removeprefix("module."): tensor.detach() for name, tensor in own.items()}
    space = WeightSpace(
        space.groups, {name.removeprefix("module."): text for name, text in space.tensors.items()}
    )
    _prove(space, program, params, [*_on_cpu(args), *_on_cpu(named).values()])
    evaluated = wrapped.module.eval()

    def function(params: Mapping[str, Tensor], *inputs: Any, **named: Any) -> Any:
        batch_shape(space, params)
        return functional_call(evaluated, dict(params), inputs, named)

    return Traced(
        space,
        params,
        frozenset(name.removeprefix("module.") for name in program.statistics),
        function,
    )


def verify(
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
    double = {name: tensor.double() for name, tensor in params.items()}
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
        "expected at most "
        f"{tolerance:g}; change by neuron group: {guilty}"
    )


def _prove(space: WeightSpace, program: Program, params: Params, inputs: Sequence[Any]) -> None:
    generator = torch.Generator().manual_seed(0)
    exact = [
        value.double() if isinstance(value, Tensor) and value.is_floating_point() else value
        for value in inputs
    ]
    apply = lambda params: program.run_double({f"module.{n}": p for n, p in params.items()}, exact)  # noqa: E731
    for point in (
        {name: tensor.cpu() for name, tensor in params.items()},
        perturb(params, generator),
    ):
        verify(space, apply, point, generator, num_samples=2)


class _Output(nn.Module):
    """A module that returns part of what another one returns."""

    def __init__(self, module: nn.Module, choose: Callable[[Any], Any] | None):
        super().__init__()
        self.module = module
        self.choose = choose

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """Run the module; what it returns beside tensors is left out."""
        result = self.module(*inputs, **named)
        return _tensors(result if self.choose is None else self.choose(result))


def _tensors(result: Any) -> tuple[Tensor, ...]:
    if isinstance(result, Tensor):
        return (result,)
    parts = (
        result.values()
        if isinstance(result, Mapping)
        else result
        if isinstance(result, (tuple, list))
        else ()
    )
    return tuple(tensor for part in parts for tensor in _tensors(part))


def _on_cpu(values: Any) -> Any:
    if isinstance(values, Mapping):
        return {name: _on_cpu(value) for name, value in values.items()}
    if isinstance(values, (tuple, list)):
        return tuple(map(_on_cpu, values))
    return values.cpu() if isinstance(values, Tensor) else values


def _arguments(example_inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(example_inputs, Mapping):
        return (), dict(example_inputs)
    return (example_inputs,) if isinstance(example_inputs, Tensor) else tuple(example_inputs), {}
