"""Networks are those of twins in plain `torch.nn`, and what is stored of them builds them again."""

from itertools import product

import pytest
import torch

from tests.reference.zoo_modules import MODULES
from tests.zoo.architectures.twins import (
    CLASSES,
    assert_equal_up_to_rounding,
    assert_equals_module,
    generator,
    inputs,
    spread,
)
from zoo.architectures import ACTIVATIONS, build_architecture, build_gin
from zoo.store.bounds import rebuild

MLP_OPTIONS = [
    {"hidden": hidden, "activation": activation, "norm": norm}
    for hidden, activation, norm in product([(5,), (8, 6, 7)], ACTIVATIONS, ["none", "layer"])
] + [{"hidden": ()}]
CNN_OPTIONS = [
    {
        "channels": (4, 8),
        "activation": activation,
        "norm": norm,
        "norm_groups": 2,
        "pool": ("average", "flatten")[(i + j) % 2],
    }
    for (i, activation), (j, norm) in product(
        enumerate(ACTIVATIONS), enumerate(["none", "group", "layer"])
    )
] + [
    {},
    {"channels": (6,), "kernel": 5, "strides": 3},
    {"channels": (4, 4), "kernel": 1, "strides": (2, 1)},
]
RESNET_OPTIONS = [
    {"channels": (4, 5, 6), "depth": depth, "activation": activation, "norm": norm}
    for depth, activation, norm in product(
        [8, 14], ["relu", "tanh", "gelu"], ["batch", "layer", "none"]
    )
] + [{}]
TRANSFORMER_OPTIONS = [
    {"patch": 3, "dim": 6, "heads": 3, "depth": 1, "activation": "relu"},
    {"patch": 1, "dim": 4, "heads": 1, "depth": 2, "mlp_ratio": 3},
    {"patch": 3},
]
GIN_OPTIONS = [
    {"hidden": 5, "activation": activation, "norm": norm, "pool": pool}
    for activation, norm, pool in product(["relu", "tanh"], ["none", "layer"], ["mean", "sum"])
] + [
    {"hidden": 4, "layers": 1, "edges": [[0, 62], [3, 4], [4, 9]]},
    {"hidden": 4, "layers": 2, "edges": []},
]
SIREN_OPTIONS = [
    {"omega": 1.0},
    {"hidden": (5,), "omega": 2.0},
    {"hidden": (4, 6, 3), "omega": 1.5},
]
OPTIONS = (
    [("mlp", options) for options in MLP_OPTIONS]
    + [("cnn", options) for options in CNN_OPTIONS]
    + [("resnet", options) for options in RESNET_OPTIONS]
    + [("transformer", options) for options in TRANSFORMER_OPTIONS]
    + [("gin", options) for options in GIN_OPTIONS]
    + [("siren", options) for options in SIREN_OPTIONS]
)


@pytest.mark.parametrize(("name", "options"), OPTIONS, ids=str)
def test_networks_equal_plain_modules_with_the_same_state_dict(name, options):
    shape = (2, 9, 6) if name == "transformer" else (2, 9, 7)
    module = MODULES[name](shape, CLASSES, **options)
    assert_equals_module(build_architecture(name, options, shape, CLASSES), module, shape=shape)


@pytest.mark.parametrize(("name", "options"), OPTIONS, ids=str)
def test_what_is_stored_of_an_architecture_builds_it_again(name, options):
    shape = (2, 9, 6) if name == "transformer" else (2, 9, 7)
    made = build_architecture(name, options, shape, CLASSES)
    again = rebuild(made.description, made.space, made.constants)
    assert again.is_like(made)
    params, x = made.init(generator(0)), inputs(0, shape=shape).float()
    assert torch.equal(again.apply(params, x), made.apply(params, x))


@pytest.mark.parametrize(
    ("name", "shape"),
    [("transformer", (3, 12)), ("gin", (3, 7)), ("gin", (2, 2, 3, 2)), ("siren", (2,))],
)
def test_networks_on_other_inputs_than_images_equal_plain_modules(name, shape):
    assert_equals_module(
        build_architecture(name, {}, shape, CLASSES), MODULES[name](shape, CLASSES), shape=shape
    )


def test_nodes_of_a_graph_are_exchangeable_if_the_graph_is():
    """Mirroring a chain maps it onto itself, moving one node does not."""
    architecture = build_gin((3, 6), CLASSES).to("cpu", torch.float64)
    params, x = spread(architecture.init(generator(0)), 0), inputs(0, shape=(3, 6))
    logits = architecture.apply(params, x)
    assert_equal_up_to_rounding(architecture.apply(params, x.flip(2)), logits)
    assert (architecture.apply(params, x.roll(1, 2)) - logits).abs().max() > 1e-3
