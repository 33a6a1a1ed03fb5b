"""The exported graph of a module, and how it is run in double precision."""

import copy
import io
import logging
import traceback
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from itertools import dropwhile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export.exported_program import ExportedProgram
from torch.export.graph_signature import ExportGraphSignature, InputKind, TensorArgument
from torch.fx import GraphModule, Interpreter, Node

from zoo.params import Params, mapped
from zoo.symmetry.outputs import tensors_in

_BATCH_NORMS = ("_native_batch_norm_legit_no_training", "cudnn_batch_norm", "batch_norm")
_LOW_PRECISION = (torch.float32, torch.float16, torch.bfloat16)


class TraceError(ValueError):
    """A module whose weight space cannot be read."""


@dataclass(frozen=True)
class Program:
    """A graph of core operators.

    Attributes:
        graph: The graph; its placeholders are the parameters, the buffers, the constants and the
            inputs of the module.
        params: The module's parameters, then its running statistics, on the CPU.
        parameters: Placeholder -> name of the parameter or running statistic; tied parameters have
            one name.
        constants: Placeholder -> tensor that is neither.
        statistics: Names in `parameters` that are running statistics.
        outputs: Nodes whose values the module returns.
        inputs: Placeholders of the inputs that are tensors.
    """

    graph: GraphModule
    params: Params
    parameters: Mapping[str, str]
    constants: Mapping[str, Tensor]
    statistics: frozenset[str]
    outputs: Sequence[Node]
    inputs: Sequence[str]

    def _placeholders(self) -> list[Node]:
        return list(self.graph.graph.find_nodes(op="placeholder"))

    def input_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the inputs that are tensors."""
        return {
            node.name: tuple(example.shape)
            for node in self._placeholders()
            if node.name in self.inputs and isinstance(example := node.meta.get("val"), Tensor)
        }

    def used(self) -> set[str]:
        """Parameters that the graph reads."""
        return {
            self.parameters[node.name]
            for node in self._placeholders()
            if node.users and node.name in self.parameters
        }

    def run_double(self, params: Mapping[str, Tensor], inputs: Sequence[Any]) -> tuple[Tensor, ...]:
        """Run the graph in float64, whatever precision the module asks for.

        Args:
            params: Parameters and running statistics.
            inputs: Values of `inputs`, in order.

        Returns:
            The floating outputs.
        """
        values = {**self.constants, **dict(zip(self.inputs, inputs, strict=True))}
        values |= {p: params[name] for p, name in self.parameters.items()}
        arguments = [_double(values.get(node.name)) for node in self._placeholders()]
        with torch.no_grad():
            results = _DoubleInterpreter(self.graph).run(*arguments)
        (output,) = self.graph.graph.find_nodes(op="output")
        return tuple(
            value
            for node, value in zip(output.args[0], results, strict=True)
            if node in self.outputs and value.is_floating_point()
        )


class _DoubleInterpreter(Interpreter):
    """Runs a graph with every lower floating type replaced by float64."""

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run one operator."""
        wide = {name: _widened(arg) for name, arg in kwargs.items()}
        return _double(super().call_function(target, tuple(map(_widened, args)), wide))


def _widened(argument: Any) -> Any:
    is_low = isinstance(argument, torch.dtype) and argument in _LOW_PRECISION
    return torch.float64 if is_low else argument


def _double(value: Any) -> Any:
    return value.double() if isinstance(value, Tensor) and value.dtype in _LOW_PRECISION else value


def export(
    module: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    statistics: Sequence[str],
    output: Callable[[Any], Any] | None,
) -> Program:
    """Export a module in evaluation mode.

    Args:
        module: The module; not changed.
        args: Example inputs, on the CPU.
        kwargs: Example inputs by name, on the CPU.
        statistics: Buffers that belong to the parameters; those of batch norms need not be named.
        output: Picks what counts from what the module returns; all tensors in it if None.

    Returns:
        The program.

    Raises:
        TraceError: If the module cannot be exported; says why and at which line of the module.
    """
    wrapped = _Output(copied(module).cpu().eval(), output)
    try:
        with _quiet():
            exported = torch.export.export(
                wrapped, args, dict(kwargs), strict=False
            ).run_decompositions(_decompositions())
    except Exception as error:
        raise TraceError(_why(module, error)) from error
    return _program(wrapped, exported, statistics)


def copied(module: nn.Module) -> nn.Module:
    """A copy of a module.

    Args:
        module: The module.

    Returns:
        The copy.

    Raises:
        TraceError: If it holds tensors that were computed, as hooks of an old style do.
    """
    try:
        return copy.deepcopy(module)
    except RuntimeError as error:
        raise TraceError(
            f"{type(module).__name__} cannot be copied; hooks of torch.nn.utils.weight_norm, "
            "spectral_norm and prune keep computed tensors: use torch.nn.utils.parametrizations, "
            "or remove the hooks (remove_weight_norm, remove_spectral_norm, prune.remove)"
        ) from error


class _Output(nn.Module):
    """A module that returns part of what another one returns."""

    def __init__(self, module: nn.Module, choose: Callable[[Any], Any] | None):
        super().__init__()
        self.module = module
        self.choose = choose

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """Run the module; what it returns beside tensors is left out."""
        result = self.module(*inputs, **named)
        return tuple(tensors_in(result if self.choose is None else self.choose(result)))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep from the user the deprecations of torch, and what it prints beside an error."""
    loggers = [
        logging.getLogger(f"torch.{name}")
        for name in ("_subclasses.fake_tensor", "fx.experimental.symbolic_shapes")
    ]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _decompositions() -> Any:
    """Into core operators, but for attention: its decomposition may not fit the strides."""
    table = torch.export.default_decompositions()
    table.pop(torch.ops.aten.scaled_dot_product_attention.default, None)
    return table


def _program(wrapped: _Output, exported: ExportedProgram, statistics: Sequence[str]) -> Program:
    module, signature, graph = wrapped.module, exported.graph_signature, exported.graph_module
    buffers = _inner_names(signature.inputs_to_buffers)
    _check_statistics(statistics, buffers.values())
    running = {buffers[p] for p in _running_statistics(graph) if p in buffers} | set(statistics)
    parameters = _untied(module, _inner_names(signature.inputs_to_parameters))
    parameters |= {p: name for p, name in buffers.items() if name in running}
    return Program(
        graph,
        _parameters_of(module, running),
        parameters,
        {p: t for p, t in _constants(wrapped, exported).items() if p not in parameters},
        frozenset(running),
        [node for node in _returned(graph) if node.name in signature.user_outputs],
        _tensor_inputs(signature),
    )


def _tensor_inputs(signature: ExportGraphSignature) -> list[str]:
    """Placeholders of the inputs that are tensors; all others are constants of the graph."""
    given = [spec.arg for spec in signature.input_specs if spec.kind == InputKind.USER_INPUT]
    return [argument.name for argument in given if isinstance(argument, TensorArgument)]


def _parameters_of(module: nn.Module, running: Collection[str]) -> Params:
    statistics = {name: module.get_buffer(name) for name in sorted(running)}
    return mapped(Tensor.detach, {**dict(module.named_parameters()), **statistics})


def _constants(wrapped: _Output, exported: ExportedProgram) -> dict[str, Tensor]:
    """Placeholder -> tensor, of the buffers and of what became a constant in the graph."""
    signature = exported.graph_signature
    tensors: dict[str, Any] = {**dict(wrapped.named_buffers()), **exported.constants}
    names = {**signature.inputs_to_buffers, **signature.inputs_to_lifted_tensor_constants}
    return {p: tensors[name].detach() for p, name in names.items()}


def _inner_names(names: Mapping[str, str]) -> dict[str, str]:
    """Names of tensors as the module that is wrapped has them."""
    return {p: name.removeprefix("module.") for p, name in names.items()}


def _check_statistics(statistics: Sequence[str], buffers: Collection[str]) -> None:
    unknown = set(statistics) - set(buffers)
    if unknown:
        raise TraceError(
            f"statistics {sorted(unknown)} are not buffers; buffers are {sorted(buffers)}"
        )


def _returned(graph: GraphModule) -> list[Node]:
    (output,) = graph.graph.find_nodes(op="output")
    return [node for node in output.args[0] if isinstance(node, Node)]


def _untied(module: nn.Module, parameters: Mapping[str, str]) -> dict[str, str]:
    """Placeholder -> the first name of its parameter, which may have several."""
    first = {id(tensor): name for name, tensor in module.named_parameters()}
    return {p: first[id(module.get_parameter(name))] for p, name in parameters.items()}


def _running_statistics(graph: GraphModule) -> set[str]:
    """Placeholders that a batch norm takes as its running mean or variance."""
    names = set()
    for node in graph.graph.nodes:
        if node.op == "call_function" and operator_name(node).split(".")[0] in _BATCH_NORMS:
            names |= {arg.name for arg in node.args[3:5] if isinstance(arg, Node)}
    return names


def operator_name(node: Node) -> str:
    """Name of a node's operator with its overload, such as `add.Tensor`."""
    return str(node.target).removeprefix("aten.")


def _why(module: nn.Module, error: BaseException) -> str:
    """What could not be exported, and at which line outside of torch."""
    frames = [
        frame for link in _causes(error) for frame in traceback.extract_tb(link.__traceback__)
    ]
    libraries = str(Path(torch.__file__).parent), str(Path(__file__).parent.parent), "<"
    inner = dropwhile(lambda frame: frame.name != "forward", frames)
    calls = [frame for frame in inner if not frame.filename.startswith(libraries)]
    where = ""
    if calls:
        last = calls[-1]
        where = f' at "{last.line}" ({last.filename}:{last.lineno}, in {last.name})'
    reason = str(error).strip().split("\n\n")[0]
    kinds = type(module).__name__, type(error).__name__
    return f"{kinds[0]} cannot be exported{where}: {kinds[1]}: {reason}"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, what caused it, and so on."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
