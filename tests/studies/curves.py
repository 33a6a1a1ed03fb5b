"""A loss that is a bowl, and made-up rows of the interpolation study."""

import numpy as np
import pandas as pd
import torch

from studies.interpolation.curves import measure_curves
from zoo.architectures.base import Architecture
from zoo.weight_space import NeuronGroup, WeightSpace


def bowl() -> Architecture:
    """Two logits `(0, -w^2)`.

    With the right label 0, the loss is `log(1 + exp(-w^2))`; falls with |w|.
    """
    space = WeightSpace({"y": NeuronGroup(1, permutable=False)}, {"w": "y"})

    def forward(params, x, _activate):
        logit = -(params["w"] ** 2).expand(len(x), 1)
        return torch.cat([torch.zeros_like(logit), logit], dim=1)

    return Architecture(space, lambda _generator: {"w": torch.zeros(1)}, forward)


def made_up(num: int = 30, diverged: int = 4) -> pd.DataFrame:
    """Rows of two populations.

    The first networks of the second one diverged, one of the first one has no finite curve.
    """
    random, tables = np.random.default_rng(0), []
    for name, shift in (("standard", 0.0), ("other", -0.4)):
        losses = (
            np.sort(random.standard_normal((num, 5)))[:, ::-1]
            + 0.2 * random.standard_normal((num, 5))
            + shift
        )
        if name == "standard":
            losses[7, 2] = np.inf
        bad = ~np.isfinite(losses).all(1) | ((np.arange(num) < diverged) & (name == "other"))
        measures = {
            key: np.where(bad, np.nan, values) for key, values in measure_curves(losses).items()
        }
        lr = np.random.default_rng(1).uniform(0, 1, num)
        kind = np.array(["sgd", "adamw"])[np.arange(num) % 2]
        ids = {
            "population": name,
            "network_id": np.arange(num),
            "lr": lr,
            "optimizer": kind,
            "steps": 3,
            "diverged": bad,
        }
        tables.append(pd.DataFrame({**ids, **measures, "losses": list(losses)}))
    return pd.concat(tables, ignore_index=True)
