"""Run the rules over a graph until nothing new is learned about the axes of the parameters."""

import inspect
import operator
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node
from torch.fx.node import map_arg

from zoo.tracing import layers  # noqa: F401  (registers its rules)
from zoo.tracing.algebra import Algebra
from zoo.tracing.dims import Atom, Dim, Factor, Leaf, fixed, leaves, relabel, resolve, size, wild
from zoo.tracing.operators import RULES
from zoo.tracing.program import Program, TraceError, operator_name
from zoo.tracing.scales import Scale, unknown
from zoo.tracing.values import Context, Value, settle, unscaled

Dims = tuple[Dim, ...]
_MAX_RUNS = 50


class TraceWarning(UserWarning):
    """An operator without a rule: the neurons it touches are taken to have no symmetry."""


@dataclass(frozen=True)
class Unknown:
    """An unknown scale: one for each place of an atom on an axis of a parameter."""

    index: int
    parameter: str
    axis: int
    atom: Atom


@dataclass(frozen=True)
class Traced:
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


def analyze(program: Program, params: Mapping[str, Tensor]) -> Traced:
    """Find the neurons along the axes of all parameters and the equations of their scales.

    Args:
        program: The exported graph.
        params: Parameters and running statistics, for their shapes.

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
        run = _Run(program, params, inputs, selectors, seeds)
        run.execute()
        missing |= run.missing
        if run.context.selectors - selectors:
            selectors, seeds, previous = selectors | run.context.selectors, None, None
            continue
        structure = {name: _shape_of(dims) for name, dims in run.dims().items()}
        if seeds is not None and structure == previous:
            for call in missing.values():
                warnings.warn(
                    f"no rule for {call}: the neurons that it touches are taken to be fixed",
                    TraceWarning,
                    stacklevel=3,
                )
            return run.traced()
        seeds, previous = run.dims(), structure
    raise RuntimeError(f"the analysis did not settle within {_MAX_RUNS} runs")


def _shape_of(dims: Dims) -> list[object]:
    def describe(dim: Dim) -> object:
        if all(leaf.atom.fixed for leaf in leaves(dim)):
            return size(dim)
        return [describe_factor(factor) for factor in dim]

    def describe_factor(factor: Factor) -> object:
        if isinstance(factor, Leaf):
            return factor.atom.size if factor.atom.fixed else id(factor.atom)
        return [describe(part) for part in factor.parts]

    return [describe(resolve(dim)) for dim in dims]


class _Run:
    """One pass over the graph."""

    def __init__(
        self,
        program: Program,
        params: Mapping[str, Tensor],
        inputs: Mapping[str, Dims],
        selectors: frozenset[tuple[str, int]],
        seeds: Mapping[str, Dims] | None,
    ):
        self.program = program
        self.context = Context(Algebra(selectors))
        self.unknowns: list[Unknown] = []
        self.seeds: dict[str, Dims] = {}
        self.values: dict[Node, Any] = {}
        self.varying: set[Node] = set()  # nodes that depend on the inputs
        self.inputs = inputs
        self.missing: dict[str, str] = {}
        used = program.used()
        for name, tensor in params.items():
            if name not in used:
                self.seeds[name] = tuple(map(fixed, tensor.shape))
            elif seeds is None:
                self.seeds[name] = tuple(
                    (Leaf(Atom(n), source=(name, i)),) for i, n in enumerate(tensor.shape)
                )
            else:
                self.seeds[name] = tuple(
                    self._scaled(name, i, dim) for i, dim in enumerate(seeds[name])
                )

    def _scaled(self, name: str, axis: int, dim: Dim) -> Dim:
        def scaled(leaf: Leaf) -> Leaf:
            if leaf.atom.fixed:
                return Leaf(leaf.atom, source=(name, axis))
            self.unknowns.append(Unknown(len(self.unknowns), name, axis, leaf.atom))
            return Leaf(leaf.atom, unknown(len(self.unknowns) - 1), (name, axis))

        return relabel(resolve(dim), scaled)

    def dims(self) -> dict[str, Dims]:
        return {name: tuple(map(resolve, dims)) for name, dims in self.seeds.items()}

    def traced(self) -> Traced:
        outputs = {
            leaf.atom for node in self.program.outputs for leaf in self._leaves(self._value(node))
        }
        inputs = {leaf.atom for dims in self.inputs.values() for leaf in self._leaves(Value(dims))}
        activations: dict[Atom, set[str]] = {}
        for atom, names in self.context.activations.items():
            for leaf in leaves((Leaf(atom),)):
                activations.setdefault(leaf.atom, set()).update(names)
        context = replace(self.context, activations=activations)
        return Traced(self.dims(), self.unknowns, context, frozenset(inputs), frozenset(outputs))

    @staticmethod
    def _leaves(value: Value) -> Iterable[Leaf]:
        return (leaf for dim in value.dims for leaf in leaves(dim))

    def execute(self) -> None:
        for node in self.program.graph.graph.nodes:
            if node.op == "placeholder":
                self.values[node] = self._placeholder(node)
            elif node.op == "call_function":
                self.values[node] = self._call(node)
            elif node.op == "get_attr":
                self.values[node] = getattr(self.program.graph, str(node.target))
        for node in self.program.outputs:
            for dim in unscaled(self.context, self._value(node)).dims:
                self.context.algebra.fix(dim)

    def _placeholder(self, node: Node) -> Any:
        if node.name in self.program.parameters:
            return Value(self.seeds[self.program.parameters[node.name]])
        if node.name in self.program.constants:
            return self.program.constants[node.name]
        self.varying.add(node)
        return Value(self.inputs[node.name]) if node.name in self.inputs else node.meta.get("val")

    def _call(self, node: Node) -> Any:
        arguments = [self.values[n] for n in node.all_input_nodes]
        if any(n in self.varying for n in node.all_input_nodes):
            self.varying.add(node)
        constant = not any(isinstance(v, Value) for argument in arguments for v in _flat(argument))
        if constant and node not in self.varying:
            with torch.no_grad():
                return _target(node)(
                    *_look_up(node.args, self.values), **_look_up(node.kwargs, self.values)
                )
        if node.target is operator.getitem:
            source, index = node.args
            return self.values[source][index]  # pyright: ignore[reportArgumentType]
        shapes = [
            tuple(v.shape) if isinstance(v, Tensor) else None for v in _flat(node.meta.get("val"))
        ]
        if not any(
            shape is not None for shape in shapes
        ):  # an assertion, or a number that depends on the inputs
            return None
        if not all(isinstance(n, int) for shape in shapes if shape is not None for n in shape):
            raise TraceError(
                f"the shape of {operator_name(node)} depends on the values of the inputs, "
                f"{_line(node)}"
            )
        first = node.all_input_nodes[0].meta.get("val")
        self.context.node, self.context.shape = (
            node.name,
            next(shape for shape in shapes if shape is not None),
        )
        self.context.strides = first.stride() if isinstance(first, Tensor) else ()
        result = self._apply_rule(node)
        settled = [settle(self.context, v) if isinstance(v, Value) else v for v in _flat(result)]
        if (
            not all(
                _has_shape(v, s) for v, s in zip(settled, shapes, strict=False) if v is not None
            )
            or settled[0] is None
        ):
            settled = self._without_rule(node, shapes)
        if node in self.varying:
            settled = [_without_source(v) if isinstance(v, Value) else v for v in settled]
        return settled if isinstance(node.meta.get("val"), (tuple, list)) else settled[0]

    def _apply_rule(self, node: Node) -> Any:
        name = operator_name(node)
        rule = RULES.get(name, RULES.get(name.split(".")[0]))
        if rule is None:
            return None
        args, kwargs = _look_up(
            (node.args, node.kwargs), {n: self._abstract(v) for n, v in self._inputs(node).items()}
        )
        try:
            inspect.signature(rule).bind(self.context, *args, **kwargs)
        except TypeError:  # arguments that the rule does not know
            return None
        return rule(self.context, *args, **kwargs)

    def _inputs(self, node: Node) -> dict[Node, Any]:
        return {n: self.values[n] for n in node.all_input_nodes}

    def _without_rule(self, node: Node, shapes: Sequence[tuple[int, ...] | None]) -> list[Any]:
        """Outputs of an operator that may do anything: every neuron it touches is fixed."""
        touched = False
        for value in self._inputs(node).values():
            for part in _flat(value):
                if isinstance(part, Value):
                    touched |= any(not leaf.atom.fixed for leaf in self._leaves(part))
                    for dim in unscaled(self.context, part).dims:
                        self.context.algebra.fix(dim)
        if touched:
            self.missing[node.name] = f"{operator_name(node)}, {_line(node)}"
        return [
            None if s is None else Value(tuple(fixed(n, plain=False) for n in s)) for s in shapes
        ]

    def _value(self, node: Node) -> Value:
        return self._abstract(self.values[node])

    def _abstract(self, value: Any) -> Any:
        """A constant as a value: along axes where it does not vary, any neurons may stand."""
        if isinstance(value, (tuple, list)):
            return type(value)(map(self._abstract, value))
        if not isinstance(value, Tensor):
            return value
        zero = not bool(value.any()) if value.numel() else False
        uniform = [
            bool((value == value.select(i, 0).unsqueeze(i)).all()) if value.numel() else False
            for i in range(value.dim())
        ]
        dims = [
            wild(n, Scale(free=zero)) if same else fixed(n)
            for n, same in zip(value.shape, uniform, strict=True)
        ]
        return Value(tuple(dims), zero)


def _target(node: Node) -> Any:
    return node.target


def _flat(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (tuple, list)) else [value]


def _has_shape(value: Any, shape: tuple[int, ...] | None) -> bool:
    return shape is None or (isinstance(value, Value) and tuple(map(size, value.dims)) == shape)


def _without_source(value: Value) -> Value:
    return replace(
        value,
        dims=tuple(
            relabel(resolve(d), lambda leaf: replace(leaf, source=None)) for d in value.dims
        ),
    )


def _look_up(arguments: Any, values: Mapping[Node, Any]) -> Any:
    return map_arg(arguments, lambda node: values[node])


def _line(node: Node) -> str:
    lines = [
        line.strip()
        for line in (node.stack_trace or "").splitlines()
        if line.strip().startswith("File")
    ]
    return lines[-1] if lines else f"node {node.name}"
