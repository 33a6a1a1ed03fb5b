"""Networks of three architectures and images, for tests of segments."""

import numpy as np
import torch

from studies.common.evaluation import Part
from tests.reference.zoo_modules import MODULES
from zoo.architectures import build_architecture
from zoo.params import stack

CASES = {
    "mlp": ({"hidden": [9, 7], "activation": "gelu", "norm": "layer"}, (1, 4, 4)),
    "cnn": ({"channels": [4, 5]}, (1, 6, 6)),
    "resnet": ({"channels": [3, 4, 5]}, (1, 8, 8)),
}


POINTS = np.linspace(0, 1, 5)


def generator(seed):
    return torch.Generator().manual_seed(seed)


def make(name, count, seed=0):
    """A network and `count` draws of its parameters, in float64.

    Running statistics are drawn too.
    """
    options, shape = CASES[name]
    network = build_architecture(name, options, shape, 3).to("cpu", torch.float64)
    draws = [network.init(generator(seed + i)) for i in range(count)]
    params = {n: t.double() for n, t in stack(draws).items()}
    for statistic in network.statistics:
        params[statistic] += 0.3 * torch.rand(
            params[statistic].shape, generator=generator(seed), dtype=torch.float64
        )
    return network, params


def images(name, count=40, seed=1):
    x = torch.randn(count, *CASES[name][1], generator=generator(seed), dtype=torch.float64)
    return Part(x, torch.arange(count) % 3)


def module(name, params):
    options, shape = CASES[name]
    twin = MODULES[name](shape, 3, **options).double()
    with torch.no_grad():
        for key, tensor in (*twin.named_parameters(), *twin.named_buffers()):
            tensor.copy_(params[key])
    return twin.eval()
