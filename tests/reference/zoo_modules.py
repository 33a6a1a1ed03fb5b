"""Plain `torch.nn` twins of the architectures, with the same state-dict names."""

import itertools
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
        self.gate = (
            nn.Conv2d(size, size, 1, bias=False) if on_images else nn.Linear(size, size, bias=False)
        )
        self.gate.weight = nn.Parameter(matrix.reshape(self.gate.weight.shape), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.gate(x)) * x


class MLP(nn.Module):
    def __init__(
        self, input_shape, num_classes, hidden=(32, 32), activation="relu", norm="none", mixing=None
    ):
        super().__init__()
        widths = [math.prod(input_shape), *hidden, num_classes]
        self.layers = nn.ModuleList([nn.Linear(*pair) for pair in pairwise(widths)])
        self.norms = nn.ModuleList(
            [nn.LayerNorm(width) for width in hidden] if norm == "layer" else []
        )
        self.activations = _activations(
            activation, [f"h{i + 1}" for i in range(len(hidden))], mixing, on_images=False
        )

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
        self.norms = nn.ModuleList(
            [nn.GroupNorm(groups[norm], width) for width in channels] if norm != "none" else []
        )
        self.activations = _activations(
            activation, [f"c{i + 1}" for i in range(len(channels))], mixing, on_images=True
        )
        self.pool = nn.AdaptiveAvgPool2d(1) if pool == "average" else nn.Identity()
        self.classifier = nn.LazyLinear(num_classes)
        self.double()(
            torch.zeros(1, *input_shape, dtype=torch.float64)
        )  # the lazy layer learns its width from what arrives

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
        hidden = _activations(
            activation, [f"h{i + 1}" for i in range(3 * per_stage)], mixing, on_images=True
        )
        make_norm, bias = (
            {"batch": batch_norm, "layer": lambda size: nn.GroupNorm(1, size), "none": nn.Identity}[
                norm
            ],
            norm == "none",
        )
        self.stem = nn.Conv2d(input_shape[0], sizes[0], 3, padding=1, bias=bias)
        self.stem_norm = make_norm(sizes[0])
        self.blocks = nn.ModuleList()
        before = sizes[0]
        for i in range(3 * per_stage):
            stage, stride = i // per_stage, 2 if i in (per_stage, 2 * per_stage) else 1
            self.blocks.append(
                Block(before, sizes[stage], stride, make_norm, bias, hidden[i], streams[stage])
            )
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


class SIREN(nn.Module):
    def __init__(self, input_shape, num_classes, hidden=(32, 32), omega=30.0, mixing=None):
        super().__init__()
        self.layers = nn.ModuleList(
            [nn.Linear(*pair) for pair in pairwise([math.prod(input_shape), *hidden, num_classes])]
        )
        self.omega = omega
        self.activations = _activations(
            "sine", [f"h{i + 1}" for i in range(len(hidden))], mixing, on_images=False
        )

    def forward(self, x: Tensor) -> Tensor:
        h = x.flatten(1)
        for layer, activation in zip(self.layers[:-1], self.activations, strict=True):
            h = activation(self.omega * layer(h))
        return self.layers[-1](h)


class TransformerBlock(nn.Module):
    def __init__(self, dim, heads, hidden, activation):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.q, self.k, self.v, self.out = (
            nn.Linear(dim, dim, bias=name != "k") for name in "qkvo"
        )
        self.fc1, self.fc2 = nn.Linear(dim, hidden), nn.Linear(hidden, dim)
        self.heads = heads
        self.activation = [activation]

    def forward(self, h: Tensor) -> Tensor:
        """One head and one query at a time."""
        z, size, attended = self.norm1(h), h.shape[-1] // self.heads, []
        for head in range(self.heads):
            of_head = slice(head * size, (head + 1) * size)
            q, k, v = self.q(z)[..., of_head], self.k(z)[..., of_head], self.v(z)[..., of_head]
            places = [
                ((q[:, [i]] * k).sum(-1) / math.sqrt(size)).softmax(-1) for i in range(h.shape[1])
            ]
            attended.append(
                torch.stack([(weights[..., None] * v).sum(1) for weights in places], dim=1)
            )
        h = h + self.out(torch.cat(attended, dim=-1))
        hidden = self.fc1(self.norm2(h))
        return h + self.fc2(self.activation[0](hidden.flatten(0, 1)).unflatten(0, hidden.shape[:2]))


class Transformer(nn.Module):
    def __init__(
        self,
        input_shape,
        num_classes,
        patch=4,
        dim=32,
        heads=2,
        depth=2,
        mlp_ratio=2,
        activation="gelu",
        mixing=None,
    ):
        super().__init__()
        channels, *sides = input_shape
        activations = _activations(
            activation, [f"m{i + 1}" for i in range(depth)], mixing, on_images=False
        )
        self.embed = (nn.Conv2d if len(sides) == 2 else nn.Conv1d)(
            channels, dim, patch, stride=patch
        )
        self.position = nn.Embedding(math.prod(side // patch for side in sides), dim)
        self.blocks = nn.Sequential(
            *(TransformerBlock(dim, heads, mlp_ratio * dim, units) for units in activations)
        )
        self.norm = nn.LayerNorm(dim)
        self.classifier = nn.Linear(dim, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        h = self.embed(x).flatten(2).movedim(1, 2) + self.position.weight
        return self.classifier(self.norm(self.blocks(h)).mean(1))


class GINLayer(nn.Module):
    def __init__(self, before, hidden, norm, activations):
        super().__init__()
        self.eps = nn.Parameter(torch.zeros(()))
        self.first, self.second = nn.Linear(before, hidden), nn.Linear(hidden, hidden)
        if norm == "layer":
            self.first_norm, self.second_norm = nn.LayerNorm(hidden), nn.LayerNorm(hidden)
        self.norms = [getattr(self, f"{name}_norm", nn.Identity()) for name in ("first", "second")]
        self.activations = activations

    def forward(self, nodes: list[Tensor], neighbors: list[list[int]]) -> list[Tensor]:
        """One node at a time, features `[X, F]` each."""
        new = []
        for i, h in enumerate(nodes):
            z = (1 + self.eps) * h
            for j in neighbors[i]:
                z = z + nodes[j]
            z = self.activations[0](self.norms[0](self.first(z)))
            new.append(self.activations[1](self.norms[1](self.second(z))))
        return new


class GIN(nn.Module):
    def __init__(
        self,
        input_shape,
        num_classes,
        hidden=32,
        layers=3,
        activation="relu",
        norm="none",
        pool="mean",
        edges=None,
        mixing=None,
    ):
        super().__init__()
        channels, *sides = input_shape
        units = _activations(
            activation, [f"h{i + 1}" for i in range(2 * layers)], mixing, on_images=False
        )
        widths = [channels, *[hidden] * (layers - 1)]
        self.layers = nn.ModuleList(
            [GINLayer(w, hidden, norm, units[2 * i : 2 * i + 2]) for i, w in enumerate(widths)]
        )
        self.classifier = nn.Linear(hidden, num_classes)
        self.neighbors = _grid(sides) if edges is None else [[] for _ in range(math.prod(sides))]
        for start, end in edges or []:
            self.neighbors[start].append(end)
            self.neighbors[end].append(start)
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        nodes = list(x.flatten(2).unbind(2))
        for layer in self.layers:
            nodes = layer(nodes, self.neighbors)
        total = sum(nodes)
        return self.classifier(total / len(nodes) if self.pool == "mean" else total)


def _grid(sides) -> list[list[int]]:
    places = list(itertools.product(*(range(side) for side in sides)))
    distance = lambda a, b: sum(abs(i - j) for i, j in zip(a, b, strict=True))  # noqa: E731
    return [[j for j, b in enumerate(places) if distance(a, b) == 1] for a in places]


MODULES = {
    "mlp": MLP,
    "cnn": CNN,
    "resnet": ResNet,
    "siren": SIREN,
    "transformer": Transformer,
    "gin": GIN,
}


def _activations(activation, groups, mixing, on_images) -> list[nn.Module]:
    if mixing is None:
        return [ACTIVATIONS[activation]() for _ in groups]
    return [
        FiGLU(mixing[group], on_images) for group in groups
    ]  # a plain list: not part of the state dict
