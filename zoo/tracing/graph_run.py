"""One pass over a graph: the rules say what stands along the axes of every value."""

import inspect
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node
from torch.fx.node import map_arg

from zoo.tracing import (  # noqa: F401  (each registers its rules)
    elementwise,
    layers,
    lookup,
    reductions,
    shapes,
)
from zoo.tracing.algebra import Algebra
from zoo.tracing.dims import Atom, Dim, Leaf, fixed, relabel, resolve, size, wild
from zoo.tracing.program import Program, TraceError, operator_name
from zoo.tracing.rules import RULES, Rule
from zoo.tracing.scales import unknown
from zoo.tracing.values import Context, Value, settle

Dims = tuple[Dim, ...]
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Unknown:
    """An unknown scale: one for each place of an atom on an axis of a parameter."""

    index: int
    parameter: str
    axis: int
    atom: Atom


class GraphRun:
    """One pass over a graph.

    Args:
        program: The exported graph.
        inputs: What stands along the axes of the inputs.
        selectors: Splits whose first part is known to be taken apart later.
        seeds: What the run before learned about the axes of the parameters.
    """

    def __init__(
        self,
        program: Program,
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
        for name, tensor in program.params.items():
            if name not in used:
                self.seeds[name] = tuple(map(fixed, tensor.shape))
            elif seeds is None:
                self.seeds[name] = _unknown_neurons(name, tensor.shape)
            else:
                self.seeds[name] = tuple(
                    relabel(dim, partial(self._scaled, name, i))
                    for i, dim in enumerate(seeds[name])
                )

    def _scaled(self, name: str, axis: int, leaf: Leaf) -> Leaf:
        """The leaf of a parameter, with a scale of its own."""
        if leaf.atom.fixed:
            return Leaf(leaf.atom, source=(name, axis))
        index = len(self.unknowns)
        self.unknowns.append(Unknown(index, name, axis, leaf.atom))
        return Leaf(leaf.atom, unknown(index), (name, axis))

    def dims(self) -> dict[str, Dims]:
        """What stands along the axes of every parameter."""
        return {name: tuple(map(resolve, dims)) for name, dims in self.seeds.items()}

    def outputs(self) -> list[Value]:
        """What the module returns."""
        return [self._value(node) for node in self.program.outputs]

    def execute(self) -> None:
        """Visit every node; nothing may scale the outputs."""
        for node in self.program.graph.graph.nodes:
            if node.op == "placeholder":
                self.values[node] = self._placeholder(node)
            elif node.op == "call_function":
                self.values[node] = self._call(node)
            elif node.op == "get_attr":
                self.values[node] = getattr(self.program.graph, str(node.target))
        for value in self.outputs():
            self.context.fix(*value.dims)

    def _placeholder(self, node: Node) -> Any:
        if node.name in self.program.parameters:
            return Value(self.seeds[self.program.parameters[node.name]])
        if node.name in self.program.constants:
            return self.program.constants[node.name]
        self.varying.add(node)
        return Value(self.inputs[node.name]) if node.name in self.inputs else node.meta.get("val")

    def _call(self, node: Node) -> Any:
        if not self.varying.isdisjoint(node.all_input_nodes):
            self.varying.add(node)
        elif not self._inputs(node):
            return self._evaluate(node)
        if node.target is operator.getitem:
            source, index = node.args
            return self.values[source][index]  # pyright: ignore[reportArgumentType]
        return self._visit(node)

    def _visit(self, node: Node) -> Any:
        """What the operator of a node returns: a value, several, or None if it has no tensor."""
        shapes_out = _output_shapes(node)
        shape = next((shape for shape in shapes_out if shape is not None), None)
        if shape is None:  # an assertion, or a number that depends on the inputs
            return None
        self.context.node, self.context.shape = node.name, shape
        self.context.strides = _input_strides(node)
        outputs = self._outputs_of(node, shapes_out)
        if node in self.varying:
            outputs = [_without_source(v) if isinstance(v, Value) else v for v in outputs]
        return outputs if isinstance(node.meta.get("val"), (tuple, list)) else outputs[0]

    @torch.no_grad()
    def _evaluate(self, node: Node) -> Any:
        args, kwargs = map_arg((node.args, node.kwargs), self.values.__getitem__)
        return _target(node)(*args, **kwargs)

    def _inputs(self, node: Node) -> list[Value]:
        """The inputs of a node that are no constants."""
        parts = [part for n in node.all_input_nodes for part in _flat(self.values[n])]
        return [part for part in parts if isinstance(part, Value)]

    def _outputs_of(self, node: Node, shapes_out: Sequence[Shape | None]) -> list[Any]:
        """By the rule of the operator, if it has one and that gives the right shapes."""
        ruled = _flat(self._apply_rule(node))
        outputs = [settle(self.context, v) if isinstance(v, Value) else v for v in ruled]
        agree = all(
            _has_shape(value, shape)
            for value, shape in zip(outputs, shapes_out, strict=False)
            if value is not None
        )
        return outputs if agree and outputs[0] is not None else self._without_rule(node, shapes_out)

    def _apply_rule(self, node: Node) -> Any:
        name = operator_name(node)
        rule = RULES.get(name, RULES.get(name.split(".")[0]))
        if rule is None:
            return None
        inputs: dict[Node, Any] = {n: self._value(n) for n in node.all_input_nodes}
        args, kwargs = map_arg((node.args, node.kwargs), inputs.__getitem__)
        try:
            _signature(rule).bind(self.context, *args, **kwargs)
        except TypeError:  # arguments that the rule does not know
            return None
        return rule(self.context, *args, **kwargs)

    def _without_rule(self, node: Node, shapes_out: Sequence[Shape | None]) -> list[Any]:
        """Outputs of an operator that may do anything: every neuron it touches is fixed."""
        touched = self._inputs(node)
        if not all(leaf.atom.fixed for value in touched for leaf in value.leaves()):
            self.missing[node.name] = f"{operator_name(node)}, {_line(node)}"
        for value in touched:
            self.context.fix(*value.dims)
        return [
            None if s is None else Value(tuple(fixed(n, plain=False) for n in s))
            for s in shapes_out
        ]

    def _value(self, node: Node) -> Value:
        return _abstract(self.values[node])


def _unknown_neurons(name: str, shape: Shape) -> Dims:
    """The axes of a parameter of which nothing is known: neurons of their own on each."""
    return tuple((Leaf(Atom(n), source=(name, i)),) for i, n in enumerate(shape))


def _target(node: Node) -> Any:
    return node.target


@cache
def _signature(rule: Rule) -> inspect.Signature:
    return inspect.signature(rule)


def _output_shapes(node: Node) -> list[Shape | None]:
    """Shapes of the outputs of a node; None for what is not a tensor."""
    examples = _flat(node.meta.get("val"))
    shapes_out = [tuple(v.shape) if isinstance(v, Tensor) else None for v in examples]
    if not all(isinstance(n, int) for shape in shapes_out if shape is not None for n in shape):
        raise TraceError(
            f"the shape of {operator_name(node)} depends on the values of the inputs, {_line(node)}"
        )
    return shapes_out


def _input_strides(node: Node) -> tuple[int, ...]:
    first = node.all_input_nodes[0].meta.get("val")
    return first.stride() if isinstance(first, Tensor) else ()


def _abstract(value: Any) -> Any:
    """A constant as a value: along axes where it does not vary, any neurons may stand."""
    if isinstance(value, (tuple, list)):
        return type(value)(map(_abstract, value))
    if not isinstance(value, Tensor):
        return value
    zero = value.numel() > 0 and not bool(value.any())
    dims = []
    for axis, n in enumerate(value.shape):
        uniform = value.numel() > 0 and bool((value == value.narrow(axis, 0, 1)).all())
        dims.append(wild(n, free=zero) if uniform else fixed(n))
    return Value(tuple(dims), zero)


def _flat(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (tuple, list)) else [value]


def _has_shape(value: Any, shape: Shape | None) -> bool:
    return shape is None or (isinstance(value, Value) and tuple(map(size, value.dims)) == shape)


def _without_source(value: Value) -> Value:
    return value.each(partial(relabel, change=partial(replace, source=None)))


def _line(node: Node) -> str:
    lines = map(str.strip, (node.stack_trace or "").splitlines())
    files = [line for line in lines if line.startswith("File")]
    return files[-1] if files else f"node {node.name}"
