"""Residual network for small images: He et al.'s CIFAR form with convolutional shortcuts, of any depth 6 n + 2."""

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
from zoo.architectures.norms import (
    Normalize,
    before_norm,
    initial_norm,
    is_statistic,
    norm_patterns,
    normalizer,
    training_batch_norm,
)
from zoo.params import Params
from zoo.weight_space import NeuronGroup, WeightSpace

_NORMS = ("batch", "layer", "none")


def build_resnet(
    input_shape: Sequence[int],
    num_classes: int,
    depth: int = 8,
    width: float = 1.0,
    channels: Sequence[int] = (16, 32, 64),
    norm: str = "batch",
    activation: str = "relu",
) -> Architecture:
    """A residual network: a convolution, three stages of blocks, global average pooling, a linear classifier.

    A block is `act(norm2(conv2(act(norm1(conv1(h))))) + shortcut(h))`; the first block of the
    second and third stage has stride 2. The shortcut is the identity, or
    `shortcut_norm(shortcut(h))` with a 1x1 convolution where the shape changes. Parameters are
    `stem.weight`, `stem_norm.*`, `blocks.<i>.conv1.weight`, `blocks.<i>.norm1.*`, ...,
    `classifier.weight`, `classifier.bias`. Convolutions have a bias without a norm only, shortcuts
    never. The running statistics of batch norm, `*.running_mean` and `*.running_var`, are part of
    the params: momentum 0.1, unbiased variance. Layers start as PyTorch's do.

    With 3 input channels, 10 classes and a norm, depth 8 has the 78,042 trained parameters of the
    networks of Lim et al. 2024, and width 0.875 the 59,944 of their smaller ones (norm `"layer"`).

    Args:
        input_shape: `(channels, height, width)` of one input.
        num_classes: Number of outputs `K`.
        depth: Number of layers, `6 n + 2` for `n` blocks in each stage.
        width: Factor of `channels`; products are rounded.
        channels: Channels of the three stages.
        norm: `"batch"`, `"layer"` (GroupNorm with one group) or `"none"`.
        activation: Name of the non-linearity.

    Returns:
        The architecture.

    Raises:
        ValueError: If an option is unknown or does not fit the others.

    References:
        He et al. 2016, arXiv 1512.03385, section 4.2 (shortcuts: option B); Lim et al. 2024, arXiv
        2405.20231, section 6.3.
    """
    check_activation(activation)
    if len(input_shape) != 3:
        raise ValueError(
            f"a resnet needs inputs of shape (channels, height, width), got {tuple(input_shape)}"
        )
    if norm not in _NORMS:
        raise ValueError(f"unknown norm {norm!r} for a resnet; known are {sorted(_NORMS)}")
    if depth < 8 or depth % 6 != 2 or len(channels) != 3:
        raise ValueError(
            f"resnet: expected depth 8, 14, 20, ... and three channels, got {depth} and {list(channels)}"
        )
    stages = [stage for stage in (1, 2, 3) for _ in range((depth - 2) // 6)]
    space = _space(
        input_shape[0],
        num_classes,
        [round(width * count) for count in channels],
        stages,
        activation,
        norm,
    )

    def draw(generator: torch.Generator) -> Params:
        params: Params = {}
        for name, shape in space.shapes.items():
            if name.split(".")[-2].endswith(("norm", "norm1", "norm2")):
                params[name] = initial_norm(name, shape)
            else:
                fan_in = math.prod(space.shapes[name.replace("bias", "weight")][1:])
                params[name] = uniform_fan_in(shape, fan_in, generator)
        return params

    def forward(params: Params, x: Tensor, activate: Activate) -> Tensor:
        return _run(params, x, activate, normalizer(norm, params), stages)

    def forward_training(params: Params, x: Tensor, activate: Activate) -> tuple[Tensor, Params]:
        normalize, statistics = training_batch_norm(params)
        return _run(params, x, activate, normalize, stages), statistics

    if norm != "batch":
        return Architecture(space, draw, forward)
    statistics = {
        f"statistic.{n}": torch.ones(s, dtype=torch.bool)
        for n, s in space.shapes.items()
        if is_statistic(n)
    }
    return Architecture(space, draw, forward, statistics, forward_training)


def _run(
    params: Params, x: Tensor, activate: Activate, normalize: Normalize, stages: Sequence[int]
) -> Tensor:
    def layer(name: str, norm: str, z: Tensor, stride: int = 1) -> Tensor:
        weight = params[f"{name}.weight"]
        return normalize(
            norm,
            F.conv2d(z, weight, params.get(f"{name}.bias"), stride, padding=weight.shape[-1] // 2),
        )

    h = activate("r1", layer("stem", "stem_norm", x))
    before = 1
    for i, stage in enumerate(stages):
        block, stride = f"blocks.{i}", 1 if stage == before else 2
        inner = activate(f"h{i + 1}", layer(f"{block}.conv1", f"{block}.norm1", h, stride))
        if stage != before:
            h = layer(f"{block}.shortcut", f"{block}.shortcut_norm", h, stride)
        h = activate(f"r{stage}", h + layer(f"{block}.conv2", f"{block}.norm2", inner))
        before = stage
    return F.linear(h.mean((2, 3)), params["classifier.weight"], params["classifier.bias"])


def _space(
    input_channels: int,
    num_classes: int,
    channels: Sequence[int],
    stages: Sequence[int],
    activation: str,
    norm: str,
) -> WeightSpace:
    scaling = ACTIVATIONS[activation][1]
    groups = {"x": NeuronGroup(input_channels, permutable=False)}
    groups |= {
        f"r{i + 1}": NeuronGroup(size, True, scaling, activation) for i, size in enumerate(channels)
    }
    tensors: dict[str, str] = {}

    def layer(
        name: str, norm_name: str, written: str, read: str, kernel: str, bias: bool = True
    ) -> None:
        tensors[f"{name}.weight"] = f"{before_norm(written, scaling, norm)} <- {read} {kernel}"
        if norm == "none" and bias:
            tensors[f"{name}.bias"] = written
        tensors.update(norm_patterns(norm_name, written, scaling, norm))

    layer("stem", "stem_norm", "r1", "x", "3 3")
    before = 1
    for i, stage in enumerate(stages):
        groups[f"h{i + 1}"] = NeuronGroup(channels[stage - 1], True, scaling, activation)
        layer(f"blocks.{i}.conv1", f"blocks.{i}.norm1", f"h{i + 1}", f"r{before}", "3 3")
        layer(f"blocks.{i}.conv2", f"blocks.{i}.norm2", f"r{stage}", f"h{i + 1}", "3 3")
        if stage != before:
            layer(
                f"blocks.{i}.shortcut",
                f"blocks.{i}.shortcut_norm",
                f"r{stage}",
                f"r{before}",
                "1 1",
                bias=False,
            )
        before = stage
    groups["y"] = NeuronGroup(num_classes, permutable=False)
    tensors |= {"classifier.weight": "y <- r3", "classifier.bias": "y"}
    return WeightSpace(groups, tensors)


def resnet_n_fix(depth: int = 20) -> dict[str, int]:
    """The numbers of fixed entries that Lim et al. use for a ResNet of width 1, as the option `n_fix` of `w_asymmetric`.

    12 in each row of the first convolution; 36, 54 and 72 in the blocks of the three stages; 6 and
    8 in the shortcuts of the second and third; 8 in the classifier. They use kappa 2.

    Args:
        depth: Depth of the network; their table is for 20.

    Returns:
        Fixed entries in each row, by the name of the weight.

    References:
        Lim et al. 2024, arXiv 2405.20231, appendix (hyperparameters of W-asymmetric ResNets).

    >>> resnet_n_fix(8)["blocks.1.shortcut.weight"]
    6
    """
    per_stage, shortcuts = (36, 54, 72), (4, 6, 8)
    blocks = (depth - 2) // 6
    table = {"stem.weight": 12}
    for i in range(3 * blocks):
        stage = i // blocks
        table |= {
            f"blocks.{i}.conv1.weight": per_stage[stage],
            f"blocks.{i}.conv2.weight": per_stage[stage],
        }
        if stage and i % blocks == 0:
            table[f"blocks.{i}.shortcut.weight"] = shortcuts[stage]
    return table | {"classifier.weight": 8}
