"""The same functions as an architecture of the table and as a traced module."""

from functools import cache

import torch
from torch import nn

from tests.reference.zoo_modules import MODULES
from zoo.architectures import Architecture, build_architecture
from zoo.params import stack
from zoo.testing import random_params
from zoo.tracing.builders import from_module

SHAPE, CLASSES = (1, 8, 8), 10
OPTIONS = {
    "mlp": {"hidden": [7, 6]},
    "cnn": {"channels": [4, 4], "norm": "group", "norm_groups": 2},
    "resnet": {"channels": [4, 5, 6]},
}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def inputs(count: int = 6) -> torch.Tensor:
    return torch.randn(count, *SHAPE, generator=generator(7)).double()


def module_of(name: str) -> nn.Module:
    return MODULES[name](SHAPE, CLASSES, **OPTIONS[name]).float()


@cache
def pair(name: str) -> tuple[Architecture, Architecture]:
    """The same function as an architecture of the table and as a traced module."""
    named = build_architecture(name, OPTIONS[name], SHAPE, CLASSES)
    traced = from_module(lambda: module_of(name), torch.randn(2, *SHAPE))
    assert set(traced.space.tensors) == set(named.space.tensors)
    return named, traced


def networks(named: Architecture, count: int = 3):
    drawn = stack([named.init(generator(seed)) for seed in range(count)])
    noise = random_params(named.space, generator(), batch=(count,))
    return {name: tensor.double() + 0.1 * noise[name].abs() for name, tensor in drawn.items()}


def one(params, at: int = 0):
    return {name: tensor[at] for name, tensor in params.items()}


def close(actual, expected, tolerance: float = 1e-9):
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)
