"""`assert_equivariant` passes layers that are, and names what is wrong with others."""

import pytest
import torch

from tests.zoo.testing.networks import generator
from zoo.testing import assert_equivariant, random_params
from zoo.weight_space import NeuronGroup, WeightSpace

SPACE = WeightSpace(
    {
        "x": NeuronGroup(2, permutable=False),
        "h": NeuronGroup(4, scaling="positive"),
        "k": NeuronGroup(3, scaling="sign"),
    },
    {"0.weight": "h <- x", "0.bias": "h", "1.weight": "k <- h", "flat": "(k 2)", "scalar": ""},
)


NODES = WeightSpace({"h": SPACE.groups["h"], "k": SPACE.groups["k"]}, {"h": "h", "k": "k"})


def features(*batch: int) -> dict[str, torch.Tensor]:
    return random_params(SPACE, generator(0), batch)


def pooled(p) -> dict[str, torch.Tensor]:
    """Each weight with the mean of its row and of its bias added."""
    rows = p["0.weight"] + p["0.weight"].mean(-1, keepdim=True) + p["0.bias"][..., None]
    return {**p, "0.weight": rows, "1.weight": p["1.weight"].relu() + p["0.bias"][..., None, :]}


def channels_mixed(p) -> dict[str, torch.Tensor]:
    mixing = torch.randn(6, 3, generator=generator(1), dtype=torch.float64)
    return {name: torch.einsum("dc,bc...->bd...", mixing, tensor) for name, tensor in p.items()}


def to_nodes(p) -> dict[str, torch.Tensor]:
    return {
        "h": p["0.weight"].sum(-1) * p["0.bias"],
        "k": p["1.weight"].sum(-1) + p["flat"].unflatten(-1, (3, 2)).sum(-1),
    }


def test_equivariant_and_invariant_layers():
    assert_equivariant(lambda p: p, SPACE, features())
    assert_equivariant(pooled, SPACE, features())
    assert_equivariant(pooled, SPACE, features(3))
    assert_equivariant(pooled, SPACE, features(3, 2))
    assert_equivariant(channels_mixed, SPACE, features(2, 3))
    assert_equivariant(to_nodes, SPACE, features(2, 3), NODES)
    assert_equivariant(
        lambda p: {n: t.mean(1) for n, t in to_nodes(p).items()}, SPACE, features(2, 3), NODES
    )
    assert_equivariant(lambda p: p["0.bias"].sum(-1), SPACE, features(2, 3), "invariant")
    assert_equivariant(
        lambda p: {"a": p["1.weight"].amax((-1, -2)), "b": [p["scalar"]]},
        SPACE,
        features(2, 3),
        "invariant",
    )
    assert_equivariant(
        lambda p: {n: t.float() for n, t in p.items()}, SPACE, features(2), tolerance=1e-5
    )


def test_scales_are_respected_if_asked_for():
    gated = WeightSpace({"h": SPACE.groups["h"]}, {"bias": "h", "out": "<- h"})
    params = random_params(gated, generator(0), (2,))
    assert_equivariant(lambda p: {**p, "bias": p["bias"].relu()}, gated, params, scales=True)
    assert_equivariant(
        lambda p: (p["bias"] * p["out"]).sum(-1), gated, params, "invariant", scales=True
    )
    assert_equivariant(lambda p: {**p, "bias": p["bias"] ** 2}, gated, params)
    with pytest.raises(AssertionError, match="not equivariant: 'bias'"):
        assert_equivariant(lambda p: {**p, "bias": p["bias"] ** 2}, gated, params, scales=True)


BAD_LAYERS = {
    "position": (
        lambda p: {**p, "0.bias": p["0.bias"] * torch.arange(4)},
        None,
        "not equivariant: '0.bias'",
    ),
    "wrong axis": (
        lambda p: {**p, "1.weight": p["1.weight"].cumsum(-1)},
        None,
        "not equivariant: '1.weight'",
    ),
    "untied": (
        lambda p: {**p, "0.weight": p["0.weight"].flip(-2)},
        None,
        "not equivariant: '0.weight'",
    ),
    "networks mixed": (lambda p: {n: t + t.mean(0) for n, t in p.items()}, None, "not equivariant"),
    "missing": (
        lambda p: {"0.bias": p["0.bias"]},
        None,
        "do not fit their weight space: .*missing",
    ),
    "a tensor": (lambda p: p["0.bias"], None, "expected a mapping of tensors, got Tensor"),
    "shape": (
        lambda p: {**p, "scalar": p["0.bias"]},
        None,
        "do not fit their weight space: tensor 'scalar'",
    ),
    "nan": (
        lambda p: {**p, "scalar": p["scalar"] / 0},
        None,
        "outputs of the layer are not finite",
    ),
    "nodes": (
        lambda p: {**to_nodes(p), "k": to_nodes(p)["k"].cumsum(-1)},
        NODES,
        "not equivariant: 'k'",
    ),
    "not invariant": (
        lambda p: p["0.bias"][..., 0],
        "invariant",
        "the layer is not invariant: 'output' is off by",
    ),
    "one of two": (
        lambda p: {"a": p["scalar"], "b": p["flat"][..., :1]},
        "invariant",
        "not invariant: 'b'",
    ),
    "nothing": (lambda p: None, "invariant", "expected a layer that gives tensors, got NoneType"),
    "other outputs": (
        lambda p: {"a": 0, "bcde"[int(p["0.bias"][0].argmax())]: p["scalar"]},
        "invariant",
        "changes its outputs",
    ),
}


@pytest.mark.parametrize(("layer", "output_space", "message"), BAD_LAYERS.values(), ids=BAD_LAYERS)
def test_a_layer_that_is_not_equivariant_is_named(layer, output_space, message):
    with pytest.raises(AssertionError, match=message):
        assert_equivariant(layer, SPACE, features(3), output_space)
