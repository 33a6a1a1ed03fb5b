"""One metanet for networks of several weight spaces, known and new."""

from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch

import metanet
from metanet import Metanet
from metanet.contract import InputSpec, seeded
from metanet.feature_rows import Mixed, concatenate, count_rows, rows, to_device
from metanet.graphs.vocabulary import describe, vocabulary_of
from metanet.metrics import r2
from metanet.models.mixed_gmn import MixedGraphMetanet
from metanet.testing import SPLITS, first_networks
from tests.reference import metanet_mixed as reference
from tests.zoo.instances import CLASSES, INPUTS, OPTIONS
from zoo.architectures import (
    ARCHITECTURES,
    build_architecture,
    build_cnn,
    build_mlp,
    make_asymmetric,
)
from zoo.symmetry.action import GroupElement, act, sample
from zoo.testing import random_params, random_weight_space
from zoo.views import in_memory, view
from zoo.weight_space import NeuronGroup, WeightSpace

COUNT = 3
SMALL = {"transformer": {"dim": 8}, "resnet": {"channels": [4, 5, 6]}, "cnn": {"channels": [4, 5]}}
SMALL |= {name: {"hidden": [7, 5]} for name in ("mlp", "siren")}
close = partial(torch.testing.assert_close, rtol=1e-10, atol=1e-10)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def architecture(name):
    return build_architecture(name, OPTIONS[name] | SMALL.get(name, {}), INPUTS[name], CLASSES)


SPACES = {name: architecture(name).space for name in ARCHITECTURES}
SPACES |= {
    kind: make_asymmetric(architecture("mlp"), kind, {}, seed=0).space for kind in ("w", "syre")
}
SPACES |= {f"random {seed}": random_weight_space(generator(seed)) for seed in range(12)}
SPACES |= {
    "deep mlp": build_mlp((1, 3, 3), 3, hidden=(4, 6, 5)).space,
    "flat cnn": build_cnn((1, 4, 4), 3, (3,), pool="flatten").space,
}
NETWORKS = {
    name: random_params(space, generator(at), batch=(COUNT,))
    for at, (name, space) in enumerate(SPACES.items())
}


def metanet_of(names, **options):
    with seeded(0):
        module = MixedGraphMetanet(
            [InputSpec(SPACES[name]) for name in names], width=8, edge_width=4, layers=2, **options
        )
    module = module.double().eval()
    module.calibrate([features_of(module, sorted(names))])
    return module


def features_of(module, names):
    features = concatenate(
        [module.features_in(NETWORKS[name], InputSpec(SPACES[name])) for name in names]
    )
    assert isinstance(features, Mixed)
    return features


@pytest.fixture(scope="module")
def module():
    return metanet_of(SPACES)


def population(space, seed, sizes=(16, 8, 8), name="networks", free=None):
    count = sum(sizes)
    params = random_params(space, generator(seed), batch=(count,), dtype=torch.float32)
    size = torch.rand(count, generator=generator(seed + 100)) + 0.5
    params = {
        key: tensor * size.view(-1, *(1,) * (tensor.dim() - 1)) for key, tensor in params.items()
    }
    table = pd.DataFrame(
        {"network_id": np.arange(count), "test_accuracy": (4 * size - 4).sigmoid().double().numpy()}
    )
    parts = dict(zip(SPLITS, sizes, strict=True))
    return in_memory(name, space, params, table, parts, free=free or {})


SHAPES = {
    "a": build_mlp((1, 2, 2), 3, hidden=(4, 5)).space,
    "b": build_cnn((1, 4, 4), 3, channels=(3, 4)).space,
}
NEW = {
    "deeper": build_mlp((1, 2, 2), 3, hidden=(4, 6, 5)).space,
    "wider": build_cnn((1, 4, 4), 3, channels=(5, 4, 3)).space,
}
POPULATIONS = [population(space, at, name=name) for at, (name, space) in enumerate(SHAPES.items())]


@pytest.fixture(scope="module")
def fitted():
    return Metanet("gmn", epochs=8, width=8, edge_width=4, layers=2).fit(POPULATIONS)


def test_grouped_dense_arrays_equal_graphs_in_one_batch(module):
    features = features_of(module, SPACES)
    batch = features[torch.randperm(count_rows(features), generator=generator())]
    ours, theirs = module(batch), reference.predict(module, batch)
    close(ours, theirs)
    weights = dict(module.named_parameters())
    gradients = [
        torch.autograd.grad(out.square().sum(), list(weights.values())) for out in (ours, theirs)
    ]
    for name, mine, twin in zip(weights, *gradients, strict=True):
        close(mine, twin, msg=name)
        assert mine.abs().sum() > 0, name


@torch.no_grad()
@pytest.mark.parametrize("name", SPACES)
def test_predictions_do_not_change_when_neurons_move(module, name):
    space, params = SPACES[name], NETWORKS[name]
    permutations = sample(space, generator(1), batch=(COUNT,)).permutations
    moved = act(space, GroupElement(permutations, {}), params)
    before, after = (
        module(module.features_in(networks, InputSpec(space))) for networks in (params, moved)
    )
    assert (before - after).abs().max() < 1e-8 * before.std()


@torch.no_grad()
@pytest.mark.parametrize("name", [*ARCHITECTURES, "w", "deep mlp"])
def test_predictions_change_when_one_tensor_alone_moves(module, name):
    space, params = SPACES[name], NETWORKS[name]
    weight = next(tensor for tensor in reversed(params) if params[tensor].dim() > 2)
    moved = {**params, weight: params[weight].roll(1, dims=2)}
    before, after = (
        module(module.features_in(networks, InputSpec(space))) for networks in (params, moved)
    )
    assert (before - after).abs().max() > 1e-4 * before.std()


@torch.no_grad()
def test_neither_the_order_of_populations_nor_that_of_networks_matters(module):
    names = list(SPACES)
    features = features_of(module, names)
    expected = module(features)
    order = torch.randperm(len(expected), generator=generator())
    close(module(rows(features, order)), expected[order])
    close(
        module(rows(rows(features, order), torch.tensor([5, 0, 0, 3]))),
        expected[order][[5, 0, 0, 3]],
    )
    close(module(rows(features, slice(2, 9))), expected[2:9])
    halves = [rows(features, order[:7]), rows(features, order[7:])]
    close(module(concatenate(halves)), expected[order])
    turned = metanet_of(names[::-1])
    close(turned(features_of(turned, names)), expected)


def test_roles_and_kinds_follow_from_the_space():
    description = describe(SPACES["cnn"])
    assert dict(
        zip(
            [node_set.axis for node_set in description.graph.node_sets],
            description.roles,
            strict=True,
        )
    ) == {
        ("c1",): "hidden",
        ("x",): "input",
        ("c2",): "hidden",
        ("y",): "output",
    }
    assert description.edges == ("hidden <- input 2", "hidden <- hidden 2", "output <- hidden 0")
    assert description.orders[0] == [4, 0, 1, 2, 3, 5, 6, 7, 8]
    assert description.orders[2] == [0]


def test_a_kernel_is_the_middle_of_a_wider_one():
    inner, outer = (build_cnn((1, 6, 6), 3, channels=(4, 4), kernel=size).space for size in (3, 5))
    small = random_params(inner, generator(), batch=(COUNT,))
    large = {name: tensor.clone() for name, tensor in small.items()}
    for name, tensor in small.items():
        if tensor.dim() == 5:
            large[name] = torch.nn.functional.pad(tensor, (1, 1, 1, 1)) * 3 / 5
    with seeded(0):
        both = MixedGraphMetanet(
            [InputSpec(inner), InputSpec(outer)], width=8, edge_width=4, layers=2
        ).double()
    parts = [
        both.features_in(params, InputSpec(space))
        for params, space in ((small, inner), (large, outer))
    ]
    edges = [
        both.spaces[key].inputs(both, flat)[1] for part in parts for key, flat in part.parts.items()
    ]
    for mine, twin in zip(*edges, strict=True):
        close(mine, twin[..., : mine.shape[-1]])


def test_normalization_makes_kinds_of_order_one(module):
    features = features_of(module, SPACES)
    squares = {}
    for key, flat in features.parts.items():
        space_graph = module.spaces[key]
        for name, part in zip(
            space_graph.kinds.edges, space_graph.inputs(module, flat)[1], strict=True
        ):
            if not name.endswith("shared"):
                squares.setdefault(name, []).append(part.square().mean((1, 2, 3)).sqrt())
    for name, sizes in squares.items():
        assert 0.5 < torch.cat(sizes).median() < 1.5, name


def test_networks_of_new_architectures_are_predicted(fitted):
    for at, (name, space) in enumerate(NEW.items()):
        predicted = fitted.predict(population(space, 10 + at, name=name))
        assert predicted.shape == (8,)
        assert predicted.std() > 0
        assert set(fitted.evaluate(population(space, 10 + at, name=name))) == {
            "r2",
            "kendall_tau",
            "spearman",
            "mae",
        }


def test_populations_and_params_of_fitted_spaces_agree(fitted):
    for each in POPULATIONS:
        np.testing.assert_array_equal(fitted.predict(each), fitted.predict(each.params("test")))
    with pytest.raises(
        ValueError, match="params fit 0 of the weight spaces that the metanet was fitted on"
    ):
        fitted.predict(population(NEW["deeper"], 0).params("test"))


def test_saving_changes_nothing(fitted, tmp_path):
    fitted.save(tmp_path / "m")
    again = metanet.load(tmp_path / "m")
    for each in [*POPULATIONS, population(NEW["deeper"], 10), population(NEW["wider"], 11)]:
        np.testing.assert_array_equal(fitted.predict(each), again.predict(each))
    assert again.get_params() == fitted.get_params()
    assert (again.population_, again.num_train_) == ("a, b", 32)


def test_masks_survive_saving_and_fixed_entries_are_not_read(tmp_path):
    space = SHAPES["a"]
    name = next(iter(space.shapes))
    mask = torch.rand(space.shapes[name], generator=generator()) < 0.5
    masked = population(space, 3, free={name: mask})
    model = Metanet("gmn", epochs=1, width=8, edge_width=4, layers=1).fit([masked, POPULATIONS[1]])
    model.save(tmp_path / "m")
    before = metanet.load(tmp_path / "m").predict(masked)
    np.testing.assert_array_equal(before, model.predict(masked))
    params = masked.params("test")
    disturbed = {**params, name: torch.where(mask, params[name], 7.0)}
    np.testing.assert_array_equal(
        before, model.predict(view(masked, params=lambda split: disturbed))
    )


def test_a_population_is_a_list_of_one():
    alone, listed = (
        Metanet("gmn", epochs=1, width=8, edge_width=4, layers=1).fit(populations)
        for populations in (POPULATIONS[0], POPULATIONS[:1])
    )
    np.testing.assert_array_equal(alone.predict(POPULATIONS[0]), listed.predict(POPULATIONS[0]))
    with pytest.raises(ValueError, match="is of another weight space"):
        listed.predict(population(SPACES["deep mlp"], 3))


def test_eight_networks_of_two_architectures_are_learned_by_heart():
    eight = [first_networks(each, 4) for each in POPULATIONS]
    model = Metanet("gmn", epochs=30, patience=30, batch_size=8).fit(eight)
    y, predicted = map(
        np.concatenate, zip(*(model.predict_examples(each) for each in eight), strict=True)
    )
    assert r2(y, predicted) > 0.9


@pytest.mark.parametrize("treatment", ["canonicalize", "augment+orbit_average"])
def test_treatments_that_learn_nothing_work_by_space(treatment):
    model = Metanet("gmn", treatment=treatment, epochs=2, width=8, edge_width=4, layers=1).fit(
        POPULATIONS
    )
    assert np.isfinite(model.predict(population(NEW["deeper"], 10))).all()


def test_what_cannot_be_read_is_refused_by_name(fitted):
    wide = build_cnn((1, 4, 4), 3, channels=(3, 4), kernel=5).space
    with pytest.raises(
        ValueError,
        match=r"population 'wide': tensor 'convs.0.weight' has 25 positions, expected at most 9",
    ):
        fitted.predict(population(wide, 0, name="wide"))
    with pytest.raises(
        ValueError,
        match=r"of the kind 'fixed <- input 0': expected one of those fitted|nodes 'fixed'",
    ):
        fitted.predict(population(SPACES["w"], 0))
    twice = WeightSpace(
        {"h": NeuronGroup(3), "x": NeuronGroup(2, permutable=False)},
        {"w": "h <- x", "b": "h", "c": "h"},
    )
    with pytest.raises(
        ValueError, match=r"tensor 'c' has the channel \(power, place, channel\) \(1, 1, 0\)"
    ):
        fitted.predict(population(twice, 0))
    with pytest.raises(
        ValueError,
        match=r"'mlp' reads one population at a time; metanets that read several are \['gmn'",
    ):
        Metanet("mlp").fit(POPULATIONS)
    with pytest.raises(ValueError, match="expected at least one population, got none"):
        Metanet("gmn").fit([])
    with pytest.raises(
        ValueError, match="treatment 'align' learns from networks of one weight space"
    ):
        Metanet("gmn", treatment="align").fit(POPULATIONS)


def test_the_vocabulary_holds_what_was_fitted():
    vocabulary = vocabulary_of(list(SHAPES.values()))
    assert vocabulary.roles == ("hidden", "input", "output")
    assert vocabulary.edges == {
        "hidden <- hidden 0": 1,
        "hidden <- hidden 2": 9,
        "hidden <- input 0": 1,
        "hidden <- input 2": 9,
        "output <- hidden 0": 1,
    }
    assert vocabulary.slots == ((1, 0, 0),)


def test_features_move_between_devices_as_a_whole():
    mixed = Mixed({"a": torch.ones(2, 3)}, torch.arange(2))
    moved = to_device(mixed, "meta")
    assert isinstance(moved, Mixed)
    assert (moved.parts["a"].device.type, moved.order.device.type) == ("meta", "meta")
