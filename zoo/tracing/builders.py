"""Architectures of modules that can be built anew: what a zoo of your own module is made of.

architecture = from_module(lambda: TinyNet(width=8), torch.randn(2, 1, 8, 8))
params = architecture.init(torch.Generator().manual_seed(0))
"""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import grad

from zoo.architectures.asymmetric import fix_entries, lose_symmetry
from zoo.architectures.base import (
    Architecture,
    Inputs,
    statistic_constants,
)
from zoo.architectures.lock_step import over_networks
from zoo.modules.buffers import (
    check_same_draws,
    differing_buffers,
    is_counter,
    moved_buffers,
    set_buffers,
)
from zoo.modules.figlu import sigma_asymmetric_
from zoo.modules.function import ModuleFunction, built
from zoo.modules.parametrizations import FixedEntries, Offset
from zoo.modules.twins import check_module_asymmetry, parametrizations_of
from zoo.options import checked
from zoo.params import Params, stack
from zoo.tracing.program import TraceError, copied
from zoo.tracing.tracer import trace

Builder = Callable[..., nn.Module]


class Recipe(NamedTuple):
    """What an architecture of a module is made from.

    Attributes:
        build: Makes the standard module.
        example_inputs: Its inputs.
        statistics: Further buffers that belong to each network.
        output: Picks the outputs.
        change: What is done to each module that was built, such as to make it asymmetric.
        buffers: Values of buffers that replace those that were built.
    """

    build: Builder
    example_inputs: Inputs
    statistics: Sequence[str] = ()
    output: Callable[[Any], Any] | None = None
    change: Callable[[nn.Module], nn.Module] | None = None
    buffers: Mapping[str, Tensor] | None = None

    def module(self, seed: int) -> nn.Module:
        """The module that a seed gives."""
        module = built(self.build, torch.Generator().manual_seed(seed))
        if self.change is not None:
            module = self.change(module)
        set_buffers(module, self.buffers or {})
        return module


@checked
def from_module(
    builder: Builder,
    example_inputs: Inputs,
    statistics: Sequence[str] = (),
    output: Callable[[Any], Any] | None = None,
) -> Architecture:
    """Make an architecture of any module, which a zoo can train.

    The module is built three times, traced and proved once (see `trace`), and trained for one step
    as a check. A network starts as the module does when it is built: whatever its initialization
    is, its draws come from torch's global state, which is seeded for each network. If many networks
    cannot run at once, a warning says so, and they are trained one after the other.

    Training runs the module in the mode in which it was built, parts of it in theirs; in training
    mode if the whole of it is in evaluation mode. Parameters that need no gradient stay as they
    were drawn. Buffers that training moves, or that differ between networks, are stored with each
    network; all others once, as constants `buffer.<name>`.

    Args:
        builder: A function of no arguments that makes the module.
        example_inputs: Its inputs, a batch of at least two: a tensor, a sequence of positional
            ones, or a mapping of named ones.
        statistics: Further buffers that belong to each network.
        output: Picks the outputs from what the module returns, such as `lambda out: out.logits`.

    Returns:
        The architecture, on the CPU.

    Raises:
        ValueError: If the builder makes no module, or another one each time under one seed.
        TraceError: If the module cannot be traced, or not be trained.

    >>> architecture = from_module(lambda: nn.Linear(3, 2), torch.randn(2, 3))
    >>> sorted(architecture.init(torch.Generator().manual_seed(0)))
    ['bias', 'weight']
    """
    return architecture_of(Recipe(builder, example_inputs, statistics, output))


def architecture_of(recipe: Recipe) -> Architecture:
    """Make the architecture of a recipe, as `from_module` does.

    Args:
        recipe: The recipe.

    Returns:
        The architecture, on the CPU; errors are those of `from_module`.
    """
    module = recipe.module(0)
    check_same_draws(module, recipe.module(0))
    of_each = differing_buffers(module, recipe.module(1))
    of_each += moved_buffers(copied(module), recipe.example_inputs, sample)
    statistics = sorted({*recipe.statistics, *of_each})
    traced = trace(module, recipe.example_inputs, statistics, recipe.output)
    function: ModuleFunction = function_of(traced)
    parameters = module.named_parameters()
    frozen = [n for n, p in parameters if not p.requires_grad and n in traced.space.tensors]
    function = replace(function, frozen=tuple(frozen), build=recipe.build)
    constants = traced.constants | statistic_constants(traced.space, frozen)
    architecture = replace(
        traced,
        draw=function.draw,
        forward=function.forward,
        forward_training=function.forward_training,
        constants=constants | constant_buffers(function),
    )
    return _tried(architecture, recipe.example_inputs)


def function_of(architecture: Architecture) -> ModuleFunction:
    """The function of a traced module behind its architecture.

    Args:
        architecture: The architecture.

    Returns:
        The function.

    Raises:
        ValueError: If it is not one of a module.
    """
    function = getattr(architecture.forward, "__self__", None)
    if not isinstance(function, ModuleFunction):
        raise ValueError(f"expected an architecture of a module, got {architecture.name!r}")
    return function


def twin_of_module(
    architecture: Architecture, kind: str, options: Mapping[str, Any], seed: int
) -> Architecture:
    """The asymmetric twin of an architecture that `from_module` made.

    What is fixed, moved or replaced is what `zoo.asymmetric` would choose.

    Args:
        architecture: The standard architecture.
        kind: `"w"`, `"sigma"` or `"syre"`.
        options: Options of that kind, as `zoo.asymmetric` takes them.
        seed: Seed of the constants.

    Returns:
        The twin.

    Raises:
        ValueError: If the kind or an option is unknown, or does not fit the module.
    """
    recipe = recipe_of(architecture)
    make_asymmetric_ = check_module_asymmetry(kind, options)
    twin, generator = recipe.module(0), torch.Generator().manual_seed(seed)
    if kind == "sigma":
        change = with_sigma(recipe.example_inputs, options)
        buffers = dict(change(twin, generator).named_buffers())
        return architecture_of(recipe._replace(change=change, buffers=buffers))
    make_asymmetric_(twin, generator, **options)
    computed = {
        name: parts[0]
        for name, parts in parametrizations_of(twin).items()
        if name in architecture.space.tensors
    }
    entries = {name: part for name, part in computed.items() if isinstance(part, FixedEntries)}
    if entries:
        return _with_entries(architecture, entries)
    offsets = {name: part.offset for name, part in computed.items() if isinstance(part, Offset)}
    return _with_offsets(architecture, offsets)


def _with_entries(architecture: Architecture, entries: Mapping[str, FixedEntries]) -> Architecture:
    fixed = {name: (part.free, part.fixed) for name, part in entries.items()}
    rigid = [name for name, part in entries.items() if part.fixed.any()]
    return fix_entries(architecture, fixed, fixed, rigid)


def _with_offsets(architecture: Architecture, offsets: Params) -> Architecture:
    space = architecture.space
    moved = {label.group for name in offsets for label in space.pattern(name).labels}
    constants = {f"offset.{name}": offset for name, offset in offsets.items()}
    return replace(
        architecture,
        space=lose_symmetry(space, moved, moved),
        constants=architecture.constants | constants,
    )


def recipe_of(architecture: Architecture) -> Recipe:
    """What an architecture that `from_module` made is made from.

    Args:
        architecture: The architecture.

    Returns:
        The recipe.

    Raises:
        ValueError: If it is not one of those.
    """
    function = function_of(architecture)
    if function.build is None:
        raise ValueError("expected an architecture that zoo.from_module made, got one of zoo.trace")
    return Recipe(function.build, function.example_inputs, function.training.names, function.output)


def with_sigma(example_inputs: Inputs, options: Mapping[str, Any]) -> Callable[..., nn.Module]:
    """What puts FiGLU into a module.

    Args:
        example_inputs: Inputs of the module.
        options: Options of `sigma_asymmetric_`.

    Returns:
        A function of a module, and a generator that matrices are drawn from; without one they are
        there to be overwritten.
    """

    def change(module: nn.Module, generator: torch.Generator | None = None) -> nn.Module:
        generator = generator or torch.Generator().manual_seed(0)
        sigma_asymmetric_(module, generator, example_inputs, **options)
        return module

    return change


def constant_buffers(function: ModuleFunction) -> Params:
    """Buffers that all networks share, in the types that files have."""
    constants = {}
    for name, buffer in function.module.named_buffers():
        if name not in function.space.tensors and not is_counter(function.module, name):
            kind = torch.float32 if buffer.is_floating_point() else torch.int64
            kind = torch.bool if buffer.dtype == torch.bool else kind
            constants[f"buffer.{name}"] = buffer.detach().to(kind)
    return constants


def sample(call: int, shape: Sequence[int]) -> Tensor:
    """Some numbers in [0, 1)."""
    position = torch.arange(math.prod(shape), dtype=torch.float64) + call
    return (0.618034 * position).remainder(1).reshape(tuple(shape))


def _tried(architecture: Architecture, inputs: Inputs) -> Architecture:
    """Train two networks for a step; find out whether that is random, and can be had at once."""
    params = stack([architecture.init(torch.Generator().manual_seed(seed)) for seed in (0, 1)])
    still = {name: params[name] for name in architecture.statistics}
    trained = {name: params[name] for name in params if name not in still}
    calls = []

    def draw(call: int, shape: Sequence[int]) -> Tensor:
        calls.append(call)
        return sample(call, shape)

    def total(trained: Params, still: Params) -> Tensor:
        return architecture.apply_training({**trained, **still}, inputs, draw)[0].sum()

    for at_once in (True, False):
        architecture = replace(architecture, in_lock_step=at_once)
        try:
            over_networks(architecture, grad(total), (0, 0))(trained, still)
            break
        except (RuntimeError, NotImplementedError) as error:
            _refused(error, at_once)
    return replace(architecture, is_random=bool(calls))


def _refused(error: Exception, at_once: bool) -> None:
    """Warn that networks do not train at once; raise if they do not train at all."""
    reason = str(error).strip().split("\n")[0]
    if not at_once:
        raise TraceError(f"this module cannot be trained: {reason:.500}") from error
    warnings.warn(
        f"networks of this module train one after the other, which is slow: {reason:.300}",
        stacklevel=3,
    )
