"""Multilayer perceptron of any depth and widths, with or without LayerNorm."""

import math
from collections.abc import Sequence
from functools import partial
from itertools import pairwise

from torch import Tensor

from zoo.architectures.base import Activate, Architecture, check_activation
from zoo.architectures.layers import draw_layers, hidden_group, layer_patterns
from zoo.architectures.norms import Normalize, layer_norm, look_up_norm, no_norm
from zoo.options import Widths
from zoo.params import Params
from zoo.weight_space import NeuronGroup, WeightSpace

_NORMS: dict[str, Normalize] = {"none": no_norm, "layer": layer_norm}


def build_mlp(
    input_shape: Sequence[int],
    num_classes: int,
    hidden: Widths = (32, 32),
    activation: str = "relu",
    norm: str = "none",
) -> Architecture:
    """A multilayer perceptron on flattened inputs.

    Parameters are `layers.<i>.weight`, `layers.<i>.bias` and, with LayerNorm, `norms.<i>.weight`,
    `norms.<i>.bias`. Linear layers start as PyTorch's do, `U(-1/sqrt(fan_in), 1/sqrt(fan_in))`.

    Args:
        input_shape: Shape of one input.
        num_classes: Number of outputs `K`.
        hidden: Widths of the hidden layers; empty for a linear classifier.
        activation: Name of the non-linearity.
        norm: `"none"` or `"layer"`.

    Returns:
        The architecture.

    Raises:
        ValueError: If an option is unknown or a width is not positive.
    """
    check_activation(activation)
    normalize = look_up_norm("an mlp", norm, _NORMS)
    space = _space([math.prod(input_shape), *hidden, num_classes], activation, norm)
    forward = partial(_forward, len(hidden), normalize)
    return Architecture(space, partial(draw_layers, space), forward)


def _forward(
    depth: int, normalize: Normalize, params: Params, x: Tensor, activate: Activate
) -> Tensor:
    h = x.flatten(1)
    for i in range(depth):
        h = normalize(params, f"norms.{i}", _linear(params, i, h))
        h = activate(f"h{i + 1}", h)
    return _linear(params, depth, h)


def _linear(params: Params, i: int, h: Tensor) -> Tensor:
    return (params[f"layers.{i}.weight"] @ h.T).T + params[f"layers.{i}.bias"]


def _space(widths: Sequence[int], activation: str, norm: str) -> WeightSpace:
    names = ["x", *(f"h{i}" for i in range(1, len(widths) - 1)), "y"]
    groups = {n: hidden_group(width, activation) for n, width in zip(names, widths, strict=True)}
    groups |= {end: NeuronGroup(groups[end].size, permutable=False) for end in ("x", "y")}
    tensors = {}
    for i, (read, written) in enumerate(pairwise(names)):
        norm_here = "none" if written == "y" else norm
        tensors |= layer_patterns(f"layers.{i}", f"norms.{i}", written, read, activation, norm_here)
    return WeightSpace(groups, tensors)
