"""Graph isomorphism network, on a fixed graph or on one that each input brings."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from zoo.architectures.base import Activate, Architecture, activate_last, check_activation
from zoo.architectures.layers import (
    hidden_group,
    initial_layer,
    layer_patterns,
    linear,
    whole_space,
)
from zoo.architectures.norms import Normalize, layer_norm, no_norm
from zoo.options import Layers
from zoo.params import Params
from zoo.weight_space import NeuronGroup, WeightSpace

_NORMS: dict[str, Normalize] = {"none": no_norm, "layer": layer_norm}
_POOLS: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda h: h.mean(1),
    "sum": lambda h: h.sum(1),
}


def build_gin(
    input_shape: Sequence[int],
    num_classes: int,
    hidden: int = 32,
    layers: Layers = 3,
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
    if norm not in _NORMS or pool not in _POOLS or layers < 1:
        raise ValueError(
            f"gin: expected norm in {tuple(_NORMS)}, pool in {tuple(_POOLS)} and layers >= 1, "
            f"got {norm!r}, {pool!r} and {layers}"
        )
    if edges == "input":
        channels, fixed = _num_features(input_shape), None
    else:
        channels, fixed = input_shape[0], adjacency(input_shape[1:], edges)
    space = _space(channels, num_classes, hidden, layers, activation, norm)
    forward = partial(_forward, channels, fixed, layers, _NORMS[norm], _POOLS[pool])
    return Architecture(space, partial(_draw, space), forward)


def _linears(i: int) -> tuple[tuple[str, str], tuple[str, str]]:
    """Names of the two linear layers of a message passing layer, with the groups they write."""
    return (f"layers.{i}.first", f"h{2 * i + 1}"), (f"layers.{i}.second", f"h{2 * i + 2}")


def _draw(space: WeightSpace, generator: torch.Generator) -> Params:
    return {
        name: torch.zeros(()) if name.endswith("eps") else initial_layer(space, name, generator)
        for name in space.tensors
    }


def _forward(
    channels: int,
    fixed: Tensor | None,
    layers: int,
    normalize: Normalize,
    pool: Callable[[Tensor], Tensor],
    params: Params,
    x: Tensor,
    activate: Activate,
) -> Tensor:
    h = x[:, :channels].flatten(2).transpose(1, 2)
    neighbors = (x[:, channels:] > 0).to(h) if fixed is None else fixed.to(h)
    for i in range(layers):
        h = (1 + params[f"layers.{i}.eps"]) * h + neighbors @ h
        for name, written in _linears(i):
            h = normalize(params, f"{name}_norm", linear(params, name, h))
            h = activate_last(activate, written, h)
    return linear(params, "classifier", pool(h))


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
    if edges is None:
        axes = torch.meshgrid(*(torch.arange(n) for n in positions), indexing="ij")
        places = torch.stack(axes, -1).reshape(-1, len(positions)).double()
        return (torch.cdist(places, places, p=1) == 1).float()
    count = math.prod(positions)
    nodes = set(range(count))
    for edge in edges:
        if len(edge) != 2 or len(nodes.intersection(edge)) != 2:
            raise ValueError(
                f"gin: expected an edge as two different nodes from 0 to {count - 1}, "
                f"got {list(edge)}"
            )
    start, end = torch.tensor(edges, dtype=torch.long).reshape(-1, 2).T
    matrix = torch.zeros(count, count)
    matrix[start, end] = matrix[end, start] = 1.0
    return matrix


def _num_features(input_shape: Sequence[int]) -> int:
    """Number of features of a node where inputs bring their graphs."""
    if len(input_shape) != 2 or input_shape[0] <= input_shape[1]:
        raise ValueError(
            "gin: edges 'input' needs inputs of shape (features + nodes, nodes) with at least "
            f"one feature, got {tuple(input_shape)}"
        )
    return input_shape[0] - input_shape[1]


def _space(
    channels: int, num_classes: int, hidden: int, layers: int, activation: str, norm: str
) -> WeightSpace:
    groups: dict[str, NeuronGroup] = {}
    tensors: dict[str, str] = {}
    read = "x"
    for i in range(layers):
        tensors[f"layers.{i}.eps"] = ""
        for name, written in _linears(i):
            groups[written] = hidden_group(hidden, activation)
            tensors |= layer_patterns(name, f"{name}_norm", written, read, activation, norm)
            read = written
    return whole_space(channels, groups, num_classes, tensors, read)
