"""Metanets and declared permutations: moving neurons changes nothing, moving less does."""

import pytest
import torch

from metanet.contract import InputSpec, seeded
from metanet.models.table import build
from tests.metanet.spaces import COUNT, SPACES, generator, networks, spreads
from zoo.architectures import ARCHITECTURES
from zoo.symmetry.action import GroupElement, act, sample

SIZES = {
    "nfn": {"width": 6, "layers": 2, "hidden": 8},
    "gmn": {"width": 8, "edge_width": 4, "layers": 2},
    "width_gmn": {"width": 8, "edge_width": 4, "layers": 2},
    "graph_transformer": {"width": 8, "heads": 2, "layers": 2, "edge_width": 3},
}
every_metanet = pytest.mark.parametrize("model", SIZES)


def metanet(model, space, params, free=None):
    with seeded(0):
        module = build(model, [InputSpec(space, free or {})], SIZES[model]).double().eval()
    # Moves norms and biases off their initial values.
    with torch.no_grad():
        for at, weight in enumerate(module.parameters()):
            weight.add_(
                0.1 * torch.randn(weight.shape, generator=generator(at), dtype=torch.float64)
            )
    module.calibrate([module.features(params)])
    return module


@every_metanet
@pytest.mark.parametrize("name", SPACES)
def test_predictions_do_not_change_when_neurons_move(model, name):
    space = SPACES[name]
    params = networks(space)
    permutations = sample(space, generator(1), batch=(COUNT,)).permutations
    assert (
        spreads(
            metanet(model, space, params),
            params,
            act(space, GroupElement(permutations, {}), params),
        )
        < 1e-8
    )


@every_metanet
@pytest.mark.parametrize("name", [*ARCHITECTURES, "w", "syre"])
def test_predictions_change_when_one_tensor_alone_moves(model, name):
    space = SPACES[name]
    params = networks(space)
    weight = next(tensor for tensor in reversed(params) if params[tensor].dim() > 2)
    moved = {**params, weight: params[weight].roll(1, dims=2)}
    assert spreads(metanet(model, space, params), params, moved) > 1e-4


@every_metanet
@pytest.mark.parametrize("kind", ["w", "syre"])
def test_neurons_of_fixed_groups_are_told_apart(model, kind):
    space = SPACES[kind]
    params = networks(space)
    permutations = {"h1": torch.arange(7).roll(1), "h2": torch.arange(5).roll(1)}
    assert (
        spreads(
            metanet(model, space, params),
            params,
            act(space, GroupElement(permutations, {}), params),
        )
        > 1e-4
    )


@every_metanet
def test_queries_and_values_of_a_head_belong_together(model):
    space = SPACES["transformer"]
    params = networks(space)
    moved = dict(params)
    for name, tensor in params.items():
        if name.startswith(("blocks.0.q.", "blocks.0.k.")):
            moved[name] = tensor.unflatten(1, (2, -1)).flip(1).flatten(1, 2)
    assert spreads(metanet(model, space, params), params, moved) > 1e-4


@every_metanet
def test_fixed_entries_are_not_read(model):
    space = SPACES["w"]
    params, mask = (
        networks(space),
        torch.rand(space.shapes["layers.0.weight"], generator=generator()) < 0.5,
    )
    module = metanet(model, space, params, {"layers.0.weight": mask})
    other = {**params, "layers.0.weight": params["layers.0.weight"] + torch.where(mask, 0.0, 5.0)}
    assert spreads(module, params, other) == 0
    free = {**params, "layers.0.weight": params["layers.0.weight"] + torch.where(mask, 1.0, 0.0)}
    assert spreads(module, params, free) > 1e-4
