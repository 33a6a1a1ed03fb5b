"""Plain `torch.nn` twins of the architectures, with the same state-dict names."""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

ACTIVATIONS = {
    "linear": nn.Identity,
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "tanh": nn.Tanh,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
}


class Sine(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(x)


ACTIVATIONS["sine"] = Sine


class FiGLU(nn.Module):
    """`sigmoid(F x) * x` with `F` as a fixed linear layer, on images as a fixed 1x1 convolution."""

    def __init__(self, matrix: Tensor, on_images: bool):
        super().__init__()
        size = len(matrix)
        self.gate = nn.Conv2d(size, size, 1, bias=False) if on_images else nn.Linear(size, size, bias=False)
        self.gate.weight = nn.Parameter(matrix.reshape(self.gate.weight.shape), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.gate(x)) * x


class MLP(nn.Module):
    def __init__(self, input_shape, num_classes, hidden=(32, 32), activation="relu", norm="none", mixing=None):
        super().__init__()
        widths = [math.prod(input_shape), *hidden, num_classes]
        self.layers = nn.ModuleList([nn.Linear(*pair) for pair in pairwise(widths)])
        self.norms = nn.ModuleList([nn.LayerNorm(width) for width in hidden] if norm == "layer" else [])
        self.activations = _activations(activation, [f"h{i + 1}" for i in range(len(hidden))], mixing, on_images=False)

    def forward(self, x: Tensor) -> Tensor:
        h = x.flatten(1)
        for i, layer in enumerate(self.layers[:-1]):
            h = layer(h)
            if self.norms:
                h = self.norms[i](h)
            h = self.activations[i](h)
        return self.layers[-1](h)


class CNN(nn.Module):
    def __init__(
        self,
        input_shape: Sequence[int],
        num_classes: int,
        channels: Sequence[int] = (16, 16, 16),
        kernel: int = 3,
        strides: Sequence[int] | int = 2,
        activation: str = "relu",
        norm: str = "none",
        norm_groups: int = 4,
        pool: str = "average",
        mixing: Mapping[str, Tensor] | None = None,
    ):
        super().__init__()
        widths = [input_shape[0], *channels]
        strides = [strides] * len(channels) if isinstance(strides, int) else strides
        self.convs = nn.ModuleList(
            [
                nn.Conv2d(before, after, kernel, stride, padding=kernel // 2)
                for before, after, stride in zip(widths[:-1], channels, strides, strict=True)
            ]
        )
        groups = {"group": norm_groups, "layer": 1}
        self.norms = nn.ModuleList([nn.GroupNorm(groups[norm], width) for width in channels] if norm != "none" else [])
        self.activations = _activations(activation, [f"c{i + 1}" for i in range(len(channels))], mixing, on_images=True)
        self.pool = nn.AdaptiveAvgPool2d(1) if pool == "average" else nn.Identity()
        self.classifier = nn.LazyLinear(num_classes)
        self.double()(torch.zeros(1, *input_shape, dtype=torch.float64))  # the lazy layer learns its width from what arrives

    def forward(self, x: Tensor) -> Tensor:
        h = x
        for i, conv in enumerate(self.convs):
            h = conv(h)
            if self.norms:
                h = self.norms[i](h)
            h = self.activations[i](h)
        return self.classifier(self.pool(h).flatten(1))


class Block(nn.Module):
    def __init__(self, before, after, stride, make_norm, bias, inner, outer):
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, padding=1, bias=bias)
        self.norm1 = make_norm(after)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=bias)
        self.norm2 = make_norm(after)
        self.has_shortcut = stride != 1
        if self.has_shortcut:
            self.shortcut = nn.Conv2d(before, after, 1, stride, bias=False)
            self.shortcut_norm = make_norm(after)
        self.activations = [inner, outer]

    def forward(self, x: Tensor) -> Tensor:
        inner, outer = self.activations
        z = self.norm2(self.conv2(inner(self.norm1(self.conv1(x)))))
        return outer(z + (self.shortcut_norm(self.shortcut(x)) if self.has_shortcut else x))


class ResNet(nn.Module):
    def __init__(
        self,
        input_shape,
        num_classes,
        depth=8,
        width=1.0,
        channels=(16, 32, 64),
        norm="batch",
        activation="relu",
        mixing=None,
    ):
        super().__init__()
        sizes, per_stage = [round(width * count) for count in channels], (depth - 2) // 6
        streams = _activations(activation, ["r1", "r2", "r3"], mixing, on_images=True)
        hidden = _activations(activation, [f"h{i + 1}" for i in range(3 * per_stage)], mixing, on_images=True)
        make_norm, bias = (
            {"batch": batch_norm, "layer": lambda size: nn.GroupNorm(1, size), "none": nn.Identity}[norm],
            norm == "none",
        )
        self.stem = nn.Conv2d(input_shape[0], sizes[0], 3, padding=1, bias=bias)
        self.stem_norm = make_norm(sizes[0])
        self.blocks = nn.ModuleList()
        before = sizes[0]
        for i in range(3 * per_stage):
            stage, stride = i // per_stage, 2 if i in (per_stage, 2 * per_stage) else 1
            self.blocks.append(Block(before, sizes[stage], stride, make_norm, bias, hidden[i], streams[stage]))
            before = sizes[stage]
        self.classifier = nn.Linear(before, num_classes)
        self.activations = streams

    def forward(self, x: Tensor) -> Tensor:
        h = self.activations[0](self.stem_norm(self.stem(x)))
        for block in self.blocks:
            h = block(h)
        return self.classifier(nn.AdaptiveAvgPool2d(1)(h).flatten(1))


def batch_norm(channels: int) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(channels)
    norm.num_batches_tracked = None  # a counter that nothing depends on: not part of the params
    return norm


MODULES = {"mlp": MLP, "cnn": CNN, "resnet": ResNet}


def _activations(activation, groups, mixing, on_images) -> list[nn.Module]:
    if mixing is None:
        return [ACTIVATIONS[activation]() for _ in groups]
    return [FiGLU(mixing[group], on_images) for group in groups]  # a plain list: not part of the state dict
