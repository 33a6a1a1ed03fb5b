"""Plain convolutional network of any depth, channels, strides and kernel size."""

import math
from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor

from zoo.architectures.base import Activate, Architecture, check_activation
from zoo.architectures.layers import (
    check_image_shape,
    convolve,
    draw_layers,
    hidden_group,
    layer_patterns,
    linear,
    whole_space,
)
from zoo.architectures.norms import Normalize, group_norm, no_norm
from zoo.options import Widths
from zoo.params import Params
from zoo.weight_space import NeuronGroup, WeightSpace

_NORMS = ("none", "group", "layer")
_POOLS: dict[str, Callable[[Tensor], Tensor]] = {
    "average": lambda h: h.mean((2, 3)),
    "flatten": lambda h: h.flatten(1),
}


def build_cnn(
    input_shape: Sequence[int],
    num_classes: int,
    channels: Widths = (16, 16, 16),
    kernel: int = 3,
    strides: Sequence[int] | int = 2,
    activation: str = "relu",
    norm: str = "none",
    norm_groups: int = 4,
    pool: str = "average",
) -> Architecture:
    """A plain convolutional network.

    Convolution, norm and non-linearity are repeated; then come pooling and a linear classifier.

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
    check_image_shape("cnn", tuple(input_shape))
    if norm not in _NORMS or pool not in _POOLS:
        raise ValueError(
            f"cnn: expected norm in {_NORMS} and pool in {tuple(_POOLS)}, got {norm!r} and {pool!r}"
        )
    if kernel < 1 or kernel % 2 == 0 or not channels:
        raise ValueError(
            "cnn: expected an odd kernel and at least one convolution, "
            f"got {kernel} and {list(channels)}"
        )
    steps = _checked_strides(strides, len(channels))
    _check_reach(kernel, steps, max(input_shape[1:]))
    blocks = _checked_norm_groups(norm_groups, channels) if norm == "group" else 1
    positions = _num_positions(input_shape[1:], steps) if pool == "flatten" else 1
    space = _space(
        input_shape[0], num_classes, channels, kernel, activation, norm, blocks, positions
    )
    normalize = no_norm if norm == "none" else partial(group_norm, groups=blocks)
    forward = partial(_forward, steps, normalize, _POOLS[pool])
    return Architecture(space, partial(draw_layers, space), forward)


def _checked_strides(strides: Sequence[int] | int, count: int) -> list[int]:
    steps = [strides] * count if isinstance(strides, int) else list(strides)
    if len(steps) != count or any(step < 1 for step in steps):
        raise ValueError(
            f"cnn: expected {count} strides >= 1, one for each convolution, got {steps}"
        )
    return steps


def _check_reach(kernel: int, steps: Sequence[int], side: int) -> None:
    """Refuse entries of kernels that lie outside of every image, and strides past it."""
    for name, got, most in (("kernel", kernel, 2 * side - 1), ("strides", max(steps), side)):
        if got > most:
            raise ValueError(
                f"cnn: {name}: expected at most {most} for images of side {side}, got {got}"
            )


def _checked_norm_groups(norm_groups: int, channels: Sequence[int]) -> int:
    if norm_groups < 1 or any(width % norm_groups for width in channels):
        raise ValueError(
            f"cnn: norm_groups={norm_groups} does not divide every entry of "
            f"channels={list(channels)}"
        )
    return norm_groups


def _num_positions(sides: Sequence[int], steps: Sequence[int]) -> int:
    """Positions that are left after all convolutions."""
    for step in steps:
        sides = [(side - 1) // step + 1 for side in sides]
    return math.prod(sides)


def _forward(
    steps: Sequence[int],
    normalize: Normalize,
    pool: Callable[[Tensor], Tensor],
    params: Params,
    x: Tensor,
    activate: Activate,
) -> Tensor:
    h = x
    for i, step in enumerate(steps):
        h = normalize(params, f"norms.{i}", convolve(params, f"convs.{i}", h, step))
        h = activate(f"c{i + 1}", h)
    return linear(params, "classifier", pool(h))


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
    groups: dict[str, NeuronGroup] = {}
    tensors: dict[str, str] = {}
    read = "x"
    for i, width in enumerate(channels):
        # GroupNorm mixes the channels of a norm group: norm groups may be exchanged, and the
        # channels within them, in each norm group alike. With one norm group, or one channel in
        # each, there are only channels to exchange.
        blocks = 1 if norm_groups == width else norm_groups
        written = f"c{i + 1}"
        if blocks > 1:
            groups[f"g{i + 1}"] = NeuronGroup(blocks)
            written = f"g{i + 1} c{i + 1}"
        groups[f"c{i + 1}"] = hidden_group(width // blocks, activation)
        inputs = f"({read}) {kernel} {kernel}"
        tensors |= layer_patterns(f"convs.{i}", f"norms.{i}", written, inputs, activation, norm)
        read = written
    features = f"{read} {positions}" if positions > 1 else read
    return whole_space(input_channels, groups, num_classes, tensors, features)
