"""Convolutional network of any depth, channels, strides and kernel size, with average pooling or flattening at its end."""

import math
from collections.abc import Sequence

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
from zoo.architectures.norms import before_norm, initial_norm, norm_patterns
from zoo.params import Params
from zoo.weight_space import NeuronGroup, WeightSpace

_NORMS = ("none", "group", "layer")
_POOLS = ("average", "flatten")


def build_cnn(
    input_shape: Sequence[int],
    num_classes: int,
    channels: Sequence[int] = (16, 16, 16),
    kernel: int = 3,
    strides: Sequence[int] | int = 2,
    activation: str = "relu",
    norm: str = "none",
    norm_groups: int = 4,
    pool: str = "average",
) -> Architecture:
    """A plain convolutional network: convolution, norm, non-linearity, repeated; then pooling and a linear classifier.

    Parameters are `convs.<i>.weight`, `convs.<i>.bias`, `norms.<i>.weight`, `norms.<i>.bias`,
    `classifier.weight`, `classifier.bias`. Convolutions are padded by `kernel // 2`. Layers start
    as PyTorch's do, `U(-1/sqrt(fan_in), 1/sqrt(fan_in))`. With the default options and one input
    channel it has the 4,970 parameters of the networks of Unterthiner et al. 2020.

    Args:
        input_shape: `(channels, height, width)` of one input.
        num_classes: Number of outputs `K`.
        channels: Output channels of the convolutions.
        kernel: Kernel size, odd.
        strides: One stride for each convolution, or one for all.
        activation: Name of the non-linearity.
        norm: `"none"`, `"group"` (GroupNorm with `norm_groups` groups) or `"layer"` (GroupNorm with
            one).
        norm_groups: Number of groups of GroupNorm.
        pool: `"average"` (global average) or `"flatten"`.

    Returns:
        The architecture.

    Raises:
        ValueError: If an option is unknown or does not fit the others.

    References:
        Unterthiner et al. 2020, arXiv 2002.11448, section 4.
    """
    check_activation(activation)
    if len(input_shape) != 3:
        raise ValueError(
            f"a cnn needs inputs of shape (channels, height, width), got {tuple(input_shape)}"
        )
    if norm not in _NORMS or pool not in _POOLS:
        raise ValueError(
            f"cnn: expected norm in {_NORMS} and pool in {_POOLS}, got {norm!r} and {pool!r}"
        )
    if kernel < 1 or kernel % 2 == 0 or not channels:
        raise ValueError(
            f"cnn: expected an odd kernel and at least one convolution, got {kernel} and {list(channels)}"
        )
    steps = [strides] * len(channels) if isinstance(strides, int) else list(strides)
    if len(steps) != len(channels) or any(step < 1 for step in steps):
        raise ValueError(
            f"cnn: expected {len(channels)} strides >= 1, one for each convolution, got {steps}"
        )
    groups_of_norm = 1 if norm == "layer" else norm_groups
    if norm == "group" and (norm_groups < 1 or any(width % norm_groups for width in channels)):
        raise ValueError(
            f"cnn: norm_groups={norm_groups} does not divide every entry of channels={list(channels)}"
        )

    height, width = input_shape[1:]
    for step in steps:
        height, width = (height - 1) // step + 1, (width - 1) // step + 1
    positions = height * width if pool == "flatten" else 1
    space = _space(
        input_shape[0], num_classes, channels, kernel, activation, norm, groups_of_norm, positions
    )

    def draw(generator: torch.Generator) -> Params:
        params: Params = {}
        for name, shape in space.shapes.items():
            if name.startswith("norms"):
                params[name] = initial_norm(name, shape)
                continue
            fan_in = math.prod(space.shapes[name.replace("bias", "weight")][1:])
            params[name] = uniform_fan_in(shape, fan_in, generator)
        return params

    def forward(params: Params, x: Tensor, activate: Activate) -> Tensor:
        h = x
        for i, step in enumerate(steps):
            h = F.conv2d(
                h,
                params[f"convs.{i}.weight"],
                params[f"convs.{i}.bias"],
                stride=step,
                padding=kernel // 2,
            )
            if norm != "none":
                h = F.group_norm(
                    h, groups_of_norm, params[f"norms.{i}.weight"], params[f"norms.{i}.bias"]
                )
            h = activate(f"c{i + 1}", h)
        h = h.flatten(1) if pool == "flatten" else h.mean((2, 3))
        return F.linear(h, params["classifier.weight"], params["classifier.bias"])

    return Architecture(space, draw, forward)


def _space(
    input_channels: int,
    num_classes: int,
    channels: Sequence[int],
    kernel: int,
    activation: str,
    norm: str,
    norm_groups: int,
    positions: int,
) -> WeightSpace:
    scaling = ACTIVATIONS[activation][1]
    groups = {"x": NeuronGroup(input_channels, permutable=False)}
    tensors: dict[str, str] = {}
    axis = "x"
    for i, width in enumerate(channels):
        # GroupNorm mixes the channels of a norm group: norm groups may be exchanged, and the
        # channels within them, in each
        # norm group alike. With one norm group, or one channel in each, there are only channels to
        # exchange.
        blocks = norm_groups if norm != "none" and norm_groups not in (1, width) else 1
        read, channel = axis, f"c{i + 1}"
        outer = f"g{i + 1} " if blocks > 1 else ""
        if outer:
            groups[f"g{i + 1}"] = NeuronGroup(blocks)
        groups[channel] = NeuronGroup(width // blocks, True, scaling, activation)
        axis, before = f"({outer}{channel})", f"({outer}{before_norm(channel, scaling, norm)})"
        tensors[f"convs.{i}.weight"] = f"{before} <- {read} {kernel} {kernel}"
        tensors[f"convs.{i}.bias"] = before
        tensors |= norm_patterns(f"norms.{i}", axis, scaling, norm)
    groups["y"] = NeuronGroup(num_classes, permutable=False)
    tensors["classifier.weight"] = f"y <- ({axis} {positions})" if positions > 1 else f"y <- {axis}"
    tensors["classifier.bias"] = "y"
    return WeightSpace(groups, tensors)
