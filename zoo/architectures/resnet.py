"""Residual network for small images: He et al.'s CIFAR form, of any depth `6 n + 2`."""

from collections.abc import Sequence
from functools import partial
from itertools import pairwise

from torch import Tensor

from zoo.architectures.base import (
    Activate,
    Architecture,
    check_activation,
    statistic_constants,
)
from zoo.architectures.layers import (
    check_image_shape,
    convolve,
    draw_layers,
    hidden_group,
    layer_patterns,
    linear,
    whole_space,
)
from zoo.architectures.norms import (
    Normalize,
    batch_norm,
    group_norm,
    is_statistic,
    look_up_norm,
    no_norm,
    training_batch_norm,
)
from zoo.options import Layers
from zoo.params import Params
from zoo.weight_space import NeuronGroup

_NORMS: dict[str, Normalize] = {"batch": batch_norm, "layer": group_norm, "none": no_norm}

_Block = tuple[str, int, int]
"""Name of a block, the stage that it reads and the stage that it writes."""


def build_resnet(
    input_shape: Sequence[int],
    num_classes: int,
    depth: Layers = 8,
    width: float = 1.0,
    channels: Sequence[int] = (16, 32, 64),
    norm: str = "batch",
    activation: str = "relu",
) -> Architecture:
    """A residual network for small images.

    A convolution, three stages of blocks, global average pooling, a linear classifier.

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
    check_image_shape("resnet", tuple(input_shape))
    normalize = look_up_norm("a resnet", norm, _NORMS)
    if depth < 8 or depth % 6 != 2 or len(channels) != 3:
        raise ValueError(
            "resnet: expected depth 8, 14, 20, ... and three channels, "
            f"got {depth} and {list(channels)}"
        )
    blocks = _blocks(depth)
    stages = [round(width * count) for count in channels]
    groups = _groups(stages, blocks, activation)
    patterns = _patterns(blocks, activation, norm)
    space = whole_space(input_shape[0], groups, num_classes, patterns, "r3")
    draw, forward = partial(draw_layers, space), partial(_forward, blocks, normalize)
    if norm != "batch":
        return Architecture(space, draw, forward)
    statistics = statistic_constants(space, filter(is_statistic, space.tensors))
    return Architecture(space, draw, forward, statistics, partial(_forward_training, blocks))


def _blocks(depth: int) -> list[_Block]:
    per_stage = (depth - 2) // 6
    stages = [stage for stage in (1, 2, 3) for _ in range(per_stage)]
    return [(f"blocks.{i}", *stages) for i, stages in enumerate(pairwise([1, *stages]))]


def _forward_training(
    blocks: Sequence[_Block], params: Params, x: Tensor, activate: Activate
) -> tuple[Tensor, Params]:
    statistics: Params = {}
    logits = _forward(blocks, partial(training_batch_norm, statistics), params, x, activate)
    return logits, statistics


def _forward(
    blocks: Sequence[_Block], normalize: Normalize, params: Params, x: Tensor, activate: Activate
) -> Tensor:
    layer = partial(_layer, normalize, params)
    h = activate("r1", layer("stem", "stem_norm", x))
    for i, (name, read, written) in enumerate(blocks):
        stride = 1 if read == written else 2
        inner = activate(f"h{i + 1}", layer(f"{name}.conv1", f"{name}.norm1", h, stride))
        if read != written:
            h = layer(f"{name}.shortcut", f"{name}.shortcut_norm", h, stride)
        h = activate(f"r{written}", h + layer(f"{name}.conv2", f"{name}.norm2", inner))
    return linear(params, "classifier", h.mean((2, 3)))


def _layer(
    normalize: Normalize, params: Params, name: str, norm_name: str, h: Tensor, stride: int = 1
) -> Tensor:
    return normalize(params, norm_name, convolve(params, name, h, stride))


def _groups(
    channels: Sequence[int], blocks: Sequence[_Block], activation: str
) -> dict[str, NeuronGroup]:
    stages = {f"r{stage}": hidden_group(size, activation) for stage, size in enumerate(channels, 1)}
    inner = {f"h{i + 1}": stages[f"r{written}"] for i, (_, _, written) in enumerate(blocks)}
    return {**stages, **inner}


def _patterns(blocks: Sequence[_Block], activation: str, norm: str) -> dict[str, str]:
    # A norm takes the bias of the convolution before it away.
    layer = partial(layer_patterns, activation=activation, norm=norm, bias=norm == "none")
    tensors = layer("stem", "stem_norm", "r1", "x 3 3")
    for i, (name, read, written) in enumerate(blocks):
        tensors |= layer(f"{name}.conv1", f"{name}.norm1", f"h{i + 1}", f"r{read} 3 3")
        tensors |= layer(f"{name}.conv2", f"{name}.norm2", f"r{written}", f"h{i + 1} 3 3")
        if read != written:
            shortcut, norm_name = f"{name}.shortcut", f"{name}.shortcut_norm"
            tensors |= layer(shortcut, norm_name, f"r{written}", f"r{read} 1 1", bias=False)
    return tensors


def resnet_n_fix(depth: int = 20) -> dict[str, int]:
    """The fixed entries that Lim et al. use for a ResNet of width 1, as `n_fix` of `w_asymmetric`.

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
    table = {"stem.weight": 12}
    for name, read, written in _blocks(depth):
        table[f"{name}.conv1.weight"] = table[f"{name}.conv2.weight"] = per_stage[written - 1]
        if read != written:
            table[f"{name}.shortcut.weight"] = shortcuts[written - 1]
    return table | {"classifier.weight": 8}
