"""The width graph metanet: equal to its slow twin, invariant, blind to copies of neurons."""

from functools import partial

import pytest
import torch

from metanet.contract import InputSpec, seeded
from metanet.graphs import pyg as graphs
from metanet.models.gmn import GraphMetanet
from metanet.models.width_gmn import WidthGraphMetanet
from tests.metanet.spaces import SPACES, assert_same_function, generator, networks
from tests.reference import metanet_widths
from tests.reference.zoo_widening import widen
from zoo.architectures import build_architecture
from zoo.weight_space import NeuronGroup, WeightSpace

close = partial(torch.testing.assert_close, rtol=1e-10, atol=1e-10)


def metanet(space, params, free=None, builder=WidthGraphMetanet):
    with seeded(0):
        module = (
            builder(InputSpec(space, free or {}), width=8, edge_width=4, layers=2).double().eval()
        )
    if builder is WidthGraphMetanet:
        module.calibrate([params])
    return module


@pytest.mark.parametrize("name", SPACES)
def test_the_dense_path_equals_gathering_and_scattering(name):
    space = SPACES[name]
    params = networks(space)
    module = metanet(space, params)
    batch = graphs.batch([(module.graph, module.norm(params))])
    ours, theirs = module(params), metanet_widths.run(module.network, module.graph, batch)
    assert_same_function(module, ours, theirs)


def everywhere(space, factor=8):
    """The same factor for every permutable group."""
    return {name: factor for name, group in space.groups.items() if group.permutable}


def change(module, wider, params, wide):
    """Largest change of a prediction by widening, over the spread between networks."""
    with torch.no_grad():
        before = module(module.features(params) if hasattr(module, "features") else params)
        after = wider(wider.features(wide) if hasattr(wider, "features") else wide)
    return float((before - after).abs().max() / before.std())


ARCHITECTURE_OPTIONS = {
    "mlp": ("mlp", {"hidden": [7, 5]}, None),
    "deep mlp": ("mlp", {"hidden": [5, 4, 6]}, None),
    "mlp, uneven": ("mlp", {"hidden": [7, 5]}, {"h1": 2, "h2": 5}),
    "mlp, LayerNorm": ("mlp", {"hidden": [7, 5], "norm": "layer"}, None),
    "cnn": ("cnn", {"channels": [4, 5]}, None),
    "cnn, flattened": ("cnn", {"channels": [4, 5], "pool": "flatten"}, {"c1": 3, "c2": 2}),
}


@pytest.mark.parametrize("name", ARCHITECTURE_OPTIONS)
def test_copies_of_neurons_change_neither_function_nor_prediction(name):
    kind, options, factors = ARCHITECTURE_OPTIONS[name]
    small = build_architecture(kind, options, (1, 6, 6), 3)
    params = networks(small.space)
    factors = factors or everywhere(small.space)
    space, wide = widen(small.space, params, factors)
    wider_options = {
        key: [size * factor for size, factor in zip(value, factors.values(), strict=True)]
        if isinstance(value, list)
        else value
        for key, value in options.items()
    }
    large = build_architecture(kind, wider_options, (1, 6, 6), 3)
    assert space == large.space
    x = torch.randn(7, 1, 6, 6, generator=generator(), dtype=torch.float64)
    close(
        *(
            torch.func.vmap(architecture.apply, (0, None))(p, x)
            for architecture, p in ((small, params), (large, wide))
        )
    )
    module = metanet(small.space, params)
    assert change(module, module.transfer(InputSpec(space)), params, wide) < 1e-10
    # The control: a graph metanet with the same weights at both widths.
    plain, wider = (metanet(each, params, builder=GraphMetanet) for each in (small.space, space))
    assert change(plain, wider, params, wide) > 1e-2


@pytest.mark.parametrize("name", SPACES)
def test_copies_change_no_prediction_whatever_the_space(name):
    space = SPACES[name]
    params = networks(space)
    factors = {group: 2 + at % 2 for at, group in enumerate(everywhere(space))}
    wider, wide = widen(space, params, factors)
    module = metanet(space, params)
    assert change(module, module.transfer(InputSpec(wider)), params, wide) < 1e-10


def test_unequal_copies_are_seen():
    space = SPACES["mlp"]
    params = networks(space)
    wider, wide = widen(space, params, everywhere(space))
    wide["layers.1.weight"][:, 0] *= 2
    module = metanet(space, params)
    assert change(module, module.transfer(InputSpec(wider)), params, wide) > 1e-4


def test_a_transferred_metanet_shares_what_was_learned():
    space = SPACES["mlp"]
    params = networks(space)
    wider, wide = widen(space, params, {"h1": 2})
    module = metanet(space, params)
    other = module.transfer(InputSpec(wider))
    with torch.no_grad():
        module.network.readout.bias += 1
        module.norm.scale *= 2
    assert change(module, other, params, wide) < 1e-10
    state = torch.random.get_rng_state()
    module.transfer(InputSpec(wider))
    assert torch.equal(state, torch.random.get_rng_state())


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"tensors": {"w": "h <- x", "b": "h"}}, "expected tensors"),
        ({"tensors": {"w": "x -> h"}}, "tensor 'w' is 'x -> h' instead of 'h <- x'"),
        ({"x": NeuronGroup(5, permutable=False)}, "group 'x' is .*size=5"),
        ({"h": NeuronGroup(3, permutable=False)}, "group 'h' is .*permutable=False"),
    ],
)
def test_another_pattern_is_refused(changed, says):
    groups = {"x": NeuronGroup(4, permutable=False), "h": NeuronGroup(3)}
    space = WeightSpace(groups, {"w": "h <- x"})
    module = metanet(space, networks(space))
    tensors = changed.pop("tensors", space.tensors)
    with pytest.raises(ValueError, match=says):
        module.transfer(InputSpec(WeightSpace(groups | changed, tensors)))


def test_options_are_checked():
    with pytest.raises(
        ValueError, match="edge_width a divisor of width, got width 12 and edge_width 8"
    ):
        WidthGraphMetanet(InputSpec(SPACES["mlp"]), width=12)
