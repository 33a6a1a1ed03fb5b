"""Weight spaces of every kind, and how far a metanet's predictions move."""

from functools import partial

import torch

from tests.zoo.instances import CLASSES, INPUTS, OPTIONS
from zoo.architectures import ARCHITECTURES, build_architecture, make_asymmetric
from zoo.testing import random_params, random_weight_space
from zoo.weight_space import NeuronGroup, WeightSpace

COUNT = 4
SMALL = {"transformer": {"dim": 8}, "resnet": {"channels": [4, 5, 6]}, "cnn": {"channels": [4, 5]}}
SMALL |= {name: {"hidden": [7, 5]} for name in ("mlp", "siren")}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def architecture(name):
    return build_architecture(name, OPTIONS[name] | SMALL.get(name, {}), INPUTS[name], CLASSES)


SPACES = {name: architecture(name).space for name in ARCHITECTURES}
SPACES |= {
    kind: make_asymmetric(architecture("mlp"), kind, {}, seed=0).space
    for kind in ("w", "sigma", "syre")
}
HIDDEN = {"a": NeuronGroup(2), "b": NeuronGroup(3), "c": NeuronGroup(2)}
SPACES |= {
    "pair": WeightSpace(HIDDEN, {"w": "b <- a", "v": "c <- b", "bias": "b"}),
    "products": WeightSpace(
        HIDDEN, {"q": "(a b) <- c", "v": "(b c) <- c", "square": "(b b)", "loop": "b <- b", "t": ""}
    ),
}
SPACES |= {f"random {seed}": random_weight_space(generator(seed)) for seed in range(20)}


def networks(space, count=COUNT, seed=0):
    return random_params(space, generator(seed), batch=(count,))


@torch.no_grad()
def spreads(module, params, moved):
    """Largest change of a prediction, over their spread between networks."""
    before, after = (module(module.features(networks)) for networks in (params, moved))
    return float((before - after).abs().max() / before.std())


def assert_same_function(module, ours, theirs):
    """Two ways to compute a metanet agree in float64, and so do the gradients of its weights."""
    close = partial(torch.testing.assert_close, rtol=1e-10, atol=1e-10)
    close(ours, theirs)
    weights = list(module.parameters())
    by_path = [
        torch.autograd.grad(out.square().sum(), weights, allow_unused=True)
        for out in (ours, theirs)
    ]
    for mine, twin in zip(*by_path, strict=True):
        close(*(torch.zeros(()) if gradient is None else gradient for gradient in (mine, twin)))
