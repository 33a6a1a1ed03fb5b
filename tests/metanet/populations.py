"""A small population in memory for every architecture and asymmetric kind."""

from functools import cache

import numpy as np
import pandas as pd
import torch

from metanet.testing import SPLITS
from tests.zoo.instances import CLASSES, INPUTS, OPTIONS
from zoo.architectures import ARCHITECTURES, build_architecture, make_asymmetric
from zoo.params import stack
from zoo.views import PopulationView, in_memory

SMALL = {
    "transformer": {"dim": 4, "depth": 1},
    "resnet": {"channels": [2, 3, 3]},
    "cnn": {"channels": [3, 4]},
}
SMALL |= {name: {"hidden": [5, 4]} for name in ("mlp", "siren")}
KINDS = ("w", "sigma", "syre")
NAMES = (*ARCHITECTURES, *(f"mlp {kind}" for kind in KINDS))
COUNT = 8


@cache
def population(name: str) -> PopulationView:
    """Eight networks, the same in all splits; larger ones are more accurate."""
    base, _, kind = name.partition(" ")
    architecture = build_architecture(
        base, OPTIONS[base] | SMALL.get(base, {}), INPUTS[base], CLASSES
    )
    architecture = make_asymmetric(architecture, kind, {}, seed=0) if kind else architecture
    generator = torch.Generator().manual_seed(0)
    networks = stack([architecture.init(generator) for _ in range(COUNT)])
    size = torch.linspace(0.5, 2.0, COUNT)
    for tensor in networks:
        shape = (COUNT, *(1,) * (networks[tensor].dim() - 1))
        drawn = size.view(shape) * (
            networks[tensor] + 0.5 * torch.randn(networks[tensor].shape, generator=generator)
        )
        # The root of a negative variance is not a number.
        drawn = drawn.abs() if tensor.endswith("running_var") else drawn
        free = architecture.free.get(tensor)
        networks[tensor] = drawn if free is None else torch.where(free, drawn, networks[tensor])
    accuracy = np.linspace(0.2, 0.9, COUNT)
    rows = pd.DataFrame(
        {"network_id": np.arange(COUNT), "lr": size, "test_accuracy": accuracy, "diverged": False}
    )
    tripled = {
        tensor: values.repeat(3, *(1,) * (values.dim() - 1)) for tensor, values in networks.items()
    }
    sizes = dict.fromkeys(SPLITS, COUNT)
    free = dict(architecture.free)
    table = pd.concat([rows] * 3, ignore_index=True)
    return in_memory(
        name,
        architecture.space,
        tripled,
        table,
        sizes,
        hyperparameters=("lr",),
        free=free,
        architecture=architecture,
    )
