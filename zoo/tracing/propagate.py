"""Run the rules over a graph until nothing new is learned about the axes of the parameters."""

import warnings
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from zoo.tracing.dims import Atom, Dim, Factor, Leaf, fixed, leaves, size
from zoo.tracing.graph_run import Dims, GraphRun, Unknown
from zoo.tracing.program import Program
from zoo.tracing.values import Context, Value

_MAX_RUNS = 50


class TraceWarning(UserWarning):
    """An operator without a rule: the neurons it touches are taken to have no symmetry."""


@dataclass(frozen=True)
class Analysis:
    """What the rules found out.

    Attributes:
        dims: What stands along the axes of every parameter.
        unknowns: Unknown scales, in the order of the parameters.
        context: Equations, axes that are read, activations.
        inputs: Atoms of the inputs' axes.
        outputs: Atoms of the outputs' axes.
    """

    dims: Mapping[str, Dims]
    unknowns: Sequence[Unknown]
    context: Context
    inputs: frozenset[Atom]
    outputs: frozenset[Atom]


def analyze(program: Program) -> Analysis:
    """Find the neurons along the axes of all parameters and the equations of their scales.

    Args:
        program: The exported graph.

    Returns:
        What was found.

    Raises:
        TraceError: If the shape of a value depends on the values of the inputs.
        RuntimeError: If the search does not come to an end (a defect of the rules).
    """
    selectors: frozenset[tuple[str, int]] = frozenset()
    seeds: Mapping[str, Dims] | None = None
    previous: object = None
    inputs = {
        name: tuple(fixed(n, plain=False) for n in shape)
        for name, shape in program.input_shapes().items()
    }
    missing: dict[str, str] = {}
    for _ in range(_MAX_RUNS):
        run = GraphRun(program, inputs, selectors, seeds)
        run.execute()
        missing |= run.missing
        if not selectors >= run.context.selectors:
            selectors |= run.context.selectors
            seeds = previous = None
            continue
        structure = {name: list(map(_structure, dims)) for name, dims in run.dims().items()}
        if structure == previous:
            _warn(missing.values())
            return _analysis(run)
        seeds, previous = run.dims(), structure
    raise RuntimeError(f"the analysis did not settle within {_MAX_RUNS} runs")


def _warn(calls: Iterable[str]) -> None:
    for call in calls:
        warnings.warn(
            f"no rule for {call}: the neurons that it touches are taken to be fixed",
            TraceWarning,
            stacklevel=4,
        )


def _analysis(run: GraphRun) -> Analysis:
    activations: dict[Atom, set[str]] = defaultdict(set)
    for atom, names in run.context.activations.items():
        for leaf in leaves((Leaf(atom),)):
            activations[leaf.atom] |= names
    context = replace(run.context, activations=activations)
    inputs, outputs = (
        frozenset(leaf.atom for value in values for leaf in value.leaves())
        for values in (map(Value, run.inputs.values()), run.outputs())
    )
    return Analysis(run.dims(), run.unknowns, context, inputs, outputs)


def _structure(dim: Dim) -> object:
    """What two runs must agree on: the sizes of fixed axes, and which atoms the others are."""
    if all(leaf.atom.fixed for leaf in leaves(dim)):
        return size(dim)
    return [_structure_of_factor(factor) for factor in dim]


def _structure_of_factor(factor: Factor) -> object:
    if isinstance(factor, Leaf):
        return factor.atom.size if factor.atom.fixed else id(factor.atom)
    return list(map(_structure, factor.parts))
