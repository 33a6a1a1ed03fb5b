"""Architectures and a small task for tests of the Bayesian study."""

import math

import torch

from studies.bayesian.posterior import spread
from zoo.architectures.table import build_architecture, make_asymmetric

KINDS = {"standard": None, "w": {"kind": "w", "n_fix": 1, "kappa": 0.7}, "sigma": {"kind": "sigma"}}


MLP = {"name": "mlp", "hidden": [4, 3]}


def architecture_of(kind, name="mlp", shape=(5,), options=None):
    plain = build_architecture(
        name, {"hidden": [4, 3], "norm": "layer"} if options is None else options, shape, 3
    )
    asymmetry = KINDS[kind]
    if asymmetry is None:
        return plain.to("cpu", torch.float64)
    options = {key: value for key, value in asymmetry.items() if key != "kind"}
    return make_asymmetric(plain, asymmetry["kind"], options, 0).to("cpu", torch.float64)


def dense_covariance(support, posterior):
    """Covariance of all entries, tensor by tensor, from the definition."""
    _, std, factor = spread(support, posterior)
    covariance = torch.diag(std**2)
    start = 0
    for name, shape in support.space.shapes.items():
        stop = start + math.prod(shape)
        block = factor[:, start:stop]
        covariance[start:stop, start:stop] += block.T @ block
        start = stop
        assert name in support.weights or not block.any()
    return covariance
