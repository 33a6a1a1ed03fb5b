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


MODULES = {"mlp": MLP, "cnn": CNN}


def _activations(activation, groups, mixing, on_images) -> list[nn.Module]:
    if mixing is None:
        return [ACTIVATIONS[activation]() for _ in groups]
    return [FiGLU(mixing[group], on_images) for group in groups]  # a plain list: not part of the state dict
