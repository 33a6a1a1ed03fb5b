"""Modules to make asymmetric, and readers of what is fixed in their twins."""

import itertools

import torch
from torch import nn

from zoo.modules.twins import free_masks


def randn(*shape, seed=0, **options):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), **options)


class Perceptron(nn.Module):
    """Named as `mlp` of the architectures."""

    def __init__(self, *widths, bias=True):
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Linear(a, b, bias=bias) for a, b in itertools.pairwise(widths)
        )
        self.activations = nn.ModuleList(nn.ReLU() for _ in widths[2:])

    def forward(self, x):
        for layer, activation in zip(self.layers, self.activations, strict=False):
            x = activation(layer(x))
        return self.layers[-1](x)


class Block(nn.Module):
    """A basic block as in torchvision: one activation module, called twice."""

    def __init__(self, inputs, channels, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        same = stride == 1 and inputs == channels
        self.downsample = (
            None
            if same
            else nn.Sequential(
                nn.Conv2d(inputs, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )
        )

    def forward(self, x):
        shortcut = x if self.downsample is None else self.downsample(x)
        return self.relu(self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x))))) + shortcut)


class ResNet(nn.Sequential):
    def __init__(self):
        stem = [nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU()]
        super().__init__(
            *stem,
            Block(8, 8, 1),
            Block(8, 12, 2),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(12, 4),
        )


def encoder(activation=None, heads=3):
    return nn.TransformerEncoderLayer(
        12, heads, 16, dropout=0.0, batch_first=True, activation=activation or nn.GELU()
    )


def effective(module, name):
    owner, _, attribute = name.rpartition(".")
    return getattr(module.get_submodule(owner), attribute)


def fixed_entries(module):
    return {
        name: effective(module, name).detach()[~mask].clone()
        for name, mask in free_masks(module).items()
    }


def assert_same(one, other):
    assert list(one) == list(other)
    assert all(torch.equal(one[name], other[name]) for name in one)
