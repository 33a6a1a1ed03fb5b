"""One head for every metanet: the spec says how many outputs a network gets."""

from dataclasses import replace

import pytest
import torch

from metanet import METANETS
from metanet.contract import InputSpec, declared, seeded
from metanet.models.table import build
from metanet.testing import random_population

POPULATION = random_population()
SPEC = InputSpec(POPULATION.space, architecture=POPULATION.known_architecture())
GRADIENTS = [
    name
    for name, builder in METANETS.items()
    if declared(builder).reads == "params" and name not in ("gbm", "mixed_gmn")
]


@pytest.mark.parametrize("model", GRADIENTS)
def test_outputs_are_as_many_as_the_spec_says(model):
    params = POPULATION.params("train")
    outputs = {}
    for count in (None, 1, 3):
        with seeded(0):
            module = build(model, (replace(SPEC, num_outputs=count),), {}).eval()
        features = module.features(params)
        module.calibrate([features])
        outputs[count] = module(features)
    size = len(outputs[None])
    assert outputs[None].shape == (size,)
    assert outputs[3].shape == (size, 3)
    assert torch.equal(outputs[1], outputs[None][:, None])
    assert not torch.allclose(outputs[3][:, 0], outputs[3][:, 1])
