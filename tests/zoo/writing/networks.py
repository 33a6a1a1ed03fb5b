"""Networks that nobody here trained, and their tables."""

import numpy as np
import pandas as pd
import torch
from torch import nn

from zoo.architectures import build_architecture, make_asymmetric

COUNT = 40
MLP = build_architecture("mlp", {"hidden": [4]}, (6,), 2)
W_MLP = make_asymmetric(MLP, "w", {}, seed=1)
ROLES = {"lr": "hyperparameter", "optimizer": "hyperparameter", "run": "group"}


class Tied(nn.Module):
    """Two names for one tensor, a norm, a counter, and a buffer that is the same in all."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 5)
        self.norm = nn.BatchNorm1d(5)
        self.last = nn.Linear(5, 5, bias=False)
        self.again = nn.Linear(5, 5, bias=False)
        self.again.weight = self.last.weight
        self.register_buffer("scale", torch.arange(1, 6))

    def forward(self, x):
        return self.again(self.last(torch.relu(self.norm(self.first(x)))) * self.scale)


def trained(seed):
    """Such a module whose norm has seen data."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = Tied()
        module(torch.randn(20, 3))
        return module.eval()


def state_dicts(count=COUNT, architecture=MLP):
    return [architecture.init(torch.Generator().manual_seed(seed)) for seed in range(count)]


def table(count=COUNT):
    return pd.DataFrame(
        {
            "lr": np.linspace(0.1, 1.0, count),
            "optimizer": np.array(["sgd", "adam"])[np.arange(count) % 2],
            "test_accuracy": np.linspace(0, 1, count),
            "run": [f"run {i // 4}" for i in range(count)],
            "epochs": np.arange(count),
            "is_good": np.arange(count) % 3 == 0,
            "note": [None if i % 5 else f"n{i}" for i in range(count)],
        }
    )
