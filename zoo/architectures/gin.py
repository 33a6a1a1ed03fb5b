"""Graph isomorphism network, whose nodes are the positions of the inputs, on a fixed graph or on one that each input brings."""

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from zoo.architectures.base import (
    ACTIVATIONS,
    Activate,
    Architecture,
    activate_last,
    check_activation,
    uniform_fan_in,
)
from zoo.architectures.norms import before_norm, initial_norm, norm_patterns
from zoo.params import Params
from zoo.weight_space import NeuronGroup, WeightSpace

_LINEARS = ("first", "second")


def build_gin(
    input_shape: Sequence[int],
    num_classes: int,
    hidden: int = 32,
    layers: int = 3,
    activation: str = "relu",
    norm: str = "none",
    pool: str = "mean",
    edges: Sequence[Sequence[int]] | Literal["input"] | None = None,
) -> Architecture:
    """A graph isomorphism network: nodes are the positions of an input, node features its channels.

    A layer is `h_v <- act(norm2(W2 act(norm1(W1 z_v + b1)) + b2))` with
    `z_v = (1 + eps) h_v + sum of h over neighbors of v`; then nodes are pooled and classified.
    Parameters are `layers.<i>.eps` (a scalar), `layers.<i>.first.weight`, `layers.<i>.first.bias`,
    `layers.<i>.first_norm.*`, `layers.<i>.second.*`, `layers.<i>.second_norm.*`,
    `classifier.weight`, `classifier.bias`. `eps` starts as 0, linear layers as PyTorch's do.
    Neighbors are summed by a product with the dense adjacency matrix, so time grows with the square
    of the number of nodes.

    Args:
        input_shape: `(channels, *positions)` of one input, with at least one axis of positions.
        num_classes: Number of outputs `K`.
        hidden: Width of all layers.
        layers: Number of message passing layers.
        activation: Name of the non-linearity.
        norm: `"none"` or `"layer"` (LayerNorm over the features of each node).
        pool: `"mean"` or `"sum"` over nodes, which differ by a factor only.
        edges: Pairs of nodes that are neighbors of each other, nodes counted from 0 in C order of
            the positions; positions next to each other along one axis (the grid, the chain) if
            None. With `"input"` every input brings its graph: of `V` positions, the last `V`
            channels are the rows of the adjacency matrix, and no features; a positive entry is an
            edge, whatever the scale of the inputs.

    Returns:
        The architecture.

    Raises:
        ValueError: If an option is unknown or does not fit the others.

    References:
        Xu et al. 2019, arXiv 1810.00826, equation 4.1 and section 4.2.
    """
    check_activation(activation)
    if len(input_shape) < 2:
        raise ValueError(
            f"a gin needs inputs of shape (channels, *positions), got {tuple(input_shape)}"
        )
    if norm not in ("none", "layer") or pool not in ("mean", "sum") or layers < 1:
        raise ValueError(
            "gin: expected norm in ('none', 'layer'), pool in ('mean', 'sum') and layers >= 1, "
            f"got {norm!r}, {pool!r} and {layers}"
        )
    channels = _channels(input_shape) if edges == "input" else input_shape[0]
    fixed = None if edges == "input" else adjacency(input_shape[1:], edges)
    space = _space(channels, num_classes, hidden, layers, activation, norm)

    def draw(generator: torch.Generator) -> Params:
        params: Params = {}
        for name, shape in space.shapes.items():
            if name.endswith("eps"):
                params[name] = torch.zeros(shape)
            elif "norm" in name:
                params[name] = initial_norm(name, shape)
            else:
                params[name] = uniform_fan_in(
                    shape, space.shapes[name.replace("bias", "weight")][1], generator
                )
        return params

    def forward(params: Params, x: Tensor, activate: Activate) -> Tensor:
        h = x[:, :channels].flatten(2).transpose(1, 2)
        neighbors = (x[:, channels:] > 0).to(h) if fixed is None else fixed.to(h)
        for i in range(layers):
            h = (1 + params[f"layers.{i}.eps"]) * h + neighbors @ h
            for j, linear in enumerate(_LINEARS):
                name = f"layers.{i}.{linear}"
                h = F.linear(h, params[f"{name}.weight"], params[f"{name}.bias"])
                if norm == "layer":
                    h = F.layer_norm(
                        h, (hidden,), params[f"{name}_norm.weight"], params[f"{name}_norm.bias"]
                    )
                h = activate_last(activate, f"h{2 * i + j + 1}", h)
        pooled = h.mean(1) if pool == "mean" else h.sum(1)
        return F.linear(pooled, params["classifier.weight"], params["classifier.bias"])

    return Architecture(space, draw, forward)


def adjacency(
    positions: Sequence[int], edges: Sequence[Sequence[int]] | None = None
) -> Float[Tensor, "V V"]:
    """The adjacency matrix of a graph whose nodes are positions.

    Args:
        positions: Lengths of the axes of positions.
        edges: Pairs of neighbors; positions next to each other along one axis if None.

    Returns:
        Symmetric, 0 and 1.

    Raises:
        ValueError: If an edge is not a pair of different nodes.

    >>> adjacency((3,)).tolist()
    [[0.0, 1.0, 0.0], [1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]
    """
    count = math.prod(positions)
    if edges is None:
        grid = torch.arange(count).reshape(*positions)
        sides = [
            (grid.narrow(a, 0, n - 1), grid.narrow(a, 1, n - 1)) for a, n in enumerate(positions)
        ]
        pairs = [(start.flatten(), end.flatten()) for start, end in sides]
    else:
        for edge in edges:
            if len(edge) != 2 or edge[0] == edge[1] or not all(0 <= node < count for node in edge):
                raise ValueError(
                    f"gin: expected an edge as two different nodes from 0 to {count - 1}, got {list(edge)}"
                )
        pairs = [(torch.tensor([edge[0]]), torch.tensor([edge[1]])) for edge in edges]
    matrix = torch.zeros(count, count)
    for start, end in pairs:
        matrix[start, end] = matrix[end, start] = 1.0
    return matrix


def _channels(input_shape: Sequence[int]) -> int:
    """Number of features of a node where inputs bring their graphs."""
    if len(input_shape) != 2 or input_shape[0] <= input_shape[1]:
        raise ValueError(
            "gin: edges 'input' needs inputs of shape (features + nodes, nodes) with at least one feature, "
            f"got {tuple(input_shape)}"
        )
    return input_shape[0] - input_shape[1]


def _space(
    channels: int, num_classes: int, hidden: int, layers: int, activation: str, norm: str
) -> WeightSpace:
    scaling = ACTIVATIONS[activation][1]
    groups = {"x": NeuronGroup(channels, permutable=False)}
    groups |= {
        f"h{i + 1}": NeuronGroup(hidden, True, scaling, activation) for i in range(2 * layers)
    }
    groups["y"] = NeuronGroup(num_classes, permutable=False)
    names = list(groups)[:-1]
    tensors: dict[str, str] = {}
    for i in range(layers):
        tensors[f"layers.{i}.eps"] = ""
        for j, linear in enumerate(_LINEARS):
            read, written = names[2 * i + j : 2 * i + j + 2]
            before = before_norm(written, scaling, norm)
            tensors |= {
                f"layers.{i}.{linear}.weight": f"{before} <- {read}",
                f"layers.{i}.{linear}.bias": before,
            }
            tensors |= norm_patterns(f"layers.{i}.{linear}_norm", written, scaling, norm)
    return WeightSpace(
        groups, tensors | {"classifier.weight": f"y <- {names[-1]}", "classifier.bias": "y"}
    )
