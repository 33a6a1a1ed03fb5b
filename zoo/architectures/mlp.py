"""Multilayer perceptron of any depth and widths, optionally with LayerNorm before each non-linearity."""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.architectures.base import (
    ACTIVATIONS,
    Activate,
    Architecture,
    check_activation,
    uniform_fan_in,
)
from zoo.architectures.norms import before_norm, norm_patterns
from zoo.params import Params
from zoo.weight_space import NeuronGroup, WeightSpace


def build_mlp(
    input_shape: Sequence[int],
    num_classes: int,
    hidden: Sequence[int] = (32, 32),
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
    if norm not in ("none", "layer"):
        raise ValueError(f"unknown norm {norm!r} for an mlp; known are ['layer', 'none']")
    widths = [math.prod(input_shape), *hidden, num_classes]
    space = _space(widths, activation, norm)

    def draw(generator: torch.Generator) -> Params:
        params = {}
        for i, (fan_in, fan_out) in enumerate(pairwise(widths)):
            params[f"layers.{i}.weight"] = uniform_fan_in((fan_out, fan_in), fan_in, generator)
            params[f"layers.{i}.bias"] = uniform_fan_in((fan_out,), fan_in, generator)
            if f"norms.{i}.weight" in space.tensors:
                params[f"norms.{i}.weight"] = torch.ones(fan_out)
                params[f"norms.{i}.bias"] = torch.zeros(fan_out)
        return params

    def forward(params: Params, x: Tensor, activate: Activate) -> Tensor:
        h = x.flatten(1)
        for i, width in enumerate(hidden):
            h = (params[f"layers.{i}.weight"] @ h.T).T + params[f"layers.{i}.bias"]
            if norm == "layer":
                h = F.layer_norm(
                    h, (width,), params[f"norms.{i}.weight"], params[f"norms.{i}.bias"]
                )
            h = activate(f"h{i + 1}", h)
        return (params[f"layers.{len(hidden)}.weight"] @ h.T).T + params[
            f"layers.{len(hidden)}.bias"
        ]

    return Architecture(space, draw, forward)


def _space(widths: Sequence[int], activation: str, norm: str) -> WeightSpace:
    scaling = ACTIVATIONS[activation][1]
    names = ["x", *(f"h{i}" for i in range(1, len(widths) - 1)), "y"]
    hidden = {
        name: NeuronGroup(width, scaling=scaling, activation=activation)
        for name, width in zip(names[1:-1], widths[1:-1], strict=True)
    }
    groups = {
        "x": NeuronGroup(widths[0], permutable=False),
        **hidden,
        "y": NeuronGroup(widths[-1], permutable=False),
    }
    tensors = {}
    for i, (read, written) in enumerate(pairwise(names)):
        own_norm = "none" if written == "y" else norm
        before = before_norm(written, scaling, own_norm)
        tensors[f"layers.{i}.weight"] = f"{before} <- {read}"
        tensors[f"layers.{i}.bias"] = before
        tensors |= norm_patterns(f"norms.{i}", written, scaling, own_norm)
    return WeightSpace(groups, tensors)
