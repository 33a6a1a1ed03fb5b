"""Treatments do to networks what they say, with every metanet that reads weights."""

from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import pytest
import torch
from sklearn.base import clone

from metanet import METANETS, Metanet, load
from metanet.contract import InputSpec
from metanet.feature_rows import count_rows
from metanet.inputs.steps import Align, Augment, Canonicalize, OrbitAverage
from metanet.inputs.treatments import TREATMENTS, Treatment, parse_treatment
from metanet.testing import first_networks, permute_neurons, random_population
from tests.tiers import tiered
from zoo.symmetry.action import act, sample
from zoo.symmetry.alignment import align
from zoo.testing import random_params
from zoo.weight_space import NeuronGroup, WeightSpace

POPULATION = first_networks(random_population(), 24)
COUNT = 5
READERS = [name for name in METANETS if name != "hparams"]
TENSORS = {"0.weight": "h <- x", "0.bias": "h", "1.weight": "y <- h", "1.bias": "y"}


def space(scaling="positive", permutable=True):
    hidden, ends = (
        NeuronGroup(6, scaling=scaling, permutable=permutable),
        NeuronGroup(3, permutable=False),
    )
    return WeightSpace({"x": ends, "h": hidden, "y": ends}, TENSORS)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def outputs(params, x, activation=torch.relu):
    hidden = activation(
        torch.einsum("nhx,bx->nbh", params["0.weight"], x) + params["0.bias"][:, None]
    )
    return torch.einsum("nyh,nbh->nby", params["1.weight"], hidden) + params["1.bias"][:, None]


def same_function(one, other, activation=torch.relu):
    x = torch.randn(7, 3, generator=generator(9), dtype=torch.float64)
    return torch.allclose(
        outputs(one, x, activation), outputs(other, x, activation), rtol=1e-10, atol=1e-10
    )


def same(one, other, tolerance=1e-9):
    return all(torch.allclose(one[name], other[name], rtol=0, atol=tolerance) for name in one)


def networks(space, count=COUNT):
    return random_params(space, generator(), batch=(count,))


@pytest.mark.parametrize(
    ("scaling", "activation"), [("positive", torch.relu), ("sign", torch.tanh)]
)
@pytest.mark.parametrize("name", TREATMENTS)
def test_every_step_keeps_the_function(name, scaling, activation):
    spec = InputSpec(space(scaling))
    params = networks(spec.space)
    options = {"scale": 1.0} if name in ("augment", "orbit_average") else {"scales": True}
    treatment = parse_treatment({name: options}).fit(spec, params)
    views = [treatment.train(spec, params, generator(1)), *treatment.predict(spec, params)]
    assert all(same_function(params, view, activation) for view in views)
    assert not all(same(params, view) for view in views)


def test_canonical_networks_of_one_orbit_are_the_same():
    spec = InputSpec(space())
    params = networks(spec.space)
    moved = act(spec.space, sample(spec.space, generator(1), (COUNT,)), params)
    permuted = act(
        spec.space, replace(sample(spec.space, generator(2), (COUNT,)), scales={}), params
    )
    whole, neurons = Canonicalize(), Canonicalize(scales=False)
    assert same(whole.treat(spec, params), whole.treat(spec, moved))
    assert same(neurons.treat(spec, params), neurons.treat(spec, permuted))
    assert not same(neurons.treat(spec, params), neurons.treat(spec, moved))
    sizes = [
        sum(float(t.square().sum()) for t in p.values())
        for p in (params, neurons.treat(spec, params))
    ]
    assert sizes[0] == pytest.approx(
        sizes[1]
    )  # what is no function of the function survives a quotient by permutations


def test_permuted_copies_are_aligned_to_the_first_training_network():
    spec = InputSpec(space("none"))
    one = {
        name: tensor[:1].expand(COUNT, *tensor.shape[1:])
        for name, tensor in networks(spec.space).items()
    }
    copies = act(spec.space, sample(spec.space, generator(1), (COUNT,)), one)
    step = Align().fit(spec, copies)
    assert same(step.known, {name: tensor[0] for name, tensor in copies.items()})
    aligned = step.treat(spec, copies)
    assert all(
        same(step.known, {name: tensor[at] for name, tensor in aligned.items()})
        for at in range(COUNT)
    )


def test_the_barycentre_is_a_mean_of_aligned_networks_and_closer_to_them():
    spec = InputSpec(space("none"))
    params = networks(spec.space, 20)
    step = Align(rounds=1, num_reference=12).fit(spec, params)
    first = {name: tensor[:12] for name, tensor in params.items()}
    by_hand = act(
        spec.space,
        align(spec.space, first, {name: tensor[0] for name, tensor in params.items()}),
        first,
    )
    assert same(step.known, {name: tensor.mean(0) for name, tensor in by_hand.items()})

    def spread(step):
        aligned = step.treat(spec, params)
        return sum(float((tensor - tensor.mean(0)).square().sum()) for tensor in aligned.values())

    assert spread(Align(rounds=3).fit(spec, params)) < spread(Align().fit(spec, params))


def test_augmentation_is_drawn_for_each_network_and_each_pass():
    spec, step = InputSpec(space("none")), Augment()
    one = {
        name: tensor[:1].expand(COUNT, *tensor.shape[1:])
        for name, tensor in networks(spec.space).items()
    }
    draws = generator(1)
    first, second = step.augment(spec, one, draws), step.augment(spec, one, draws)
    rows = [*first["0.bias"], *second["0.bias"]]
    assert len({tuple(row.tolist()) for row in rows}) == 2 * COUNT
    assert all(torch.equal(row.sort().values, one["0.bias"][0].sort().values) for row in rows)


def test_kinds_of_augmentation_are_chosen():
    spec = InputSpec(space("any"))
    params = networks(spec.space)
    signs = Augment(permutations=False).augment(spec, params, generator())
    assert torch.equal(signs["0.bias"].abs(), params["0.bias"].abs())
    assert not torch.equal(signs["0.bias"], params["0.bias"])
    ratio = (
        Augment(permutations=False, signs=False, scale=0.5).augment(spec, params, generator())[
            "0.bias"
        ]
        / params["0.bias"]
    )
    assert ratio.min() >= np.exp(-0.5) and ratio.max() <= np.exp(0.5) and ratio.std() > 0.1
    assert same(Augment(permutations=False, signs=False).augment(spec, params, generator()), params)


def test_noise_and_dropout_spare_fixed_entries_and_have_the_right_size():
    mask = torch.rand(60, 50, generator=generator()) < 0.5
    wide = WeightSpace(
        {"x": NeuronGroup(50, permutable=False), "h": NeuronGroup(60, permutable=False)},
        {"w": "h <- x"},
    )
    spec = InputSpec(wide, {"w": mask})
    params = {"w": torch.where(mask, 3.0, 100.0).expand(2, 60, 50)}
    noisy = Augment(noise=0.1).augment(spec, params, generator(1))["w"]
    assert bool((noisy[:, ~mask] == 100).all())
    assert float((noisy - params["w"])[:, mask].std()) == pytest.approx(0.3, rel=0.05)
    dropped = Augment(dropout=0.2).augment(spec, params, generator(1))["w"]
    assert bool((dropped[:, ~mask] == 100).all())
    assert float((dropped[:, mask] == 0).double().mean()) == pytest.approx(0.2, abs=0.03)


def test_what_has_no_symmetry_passes_through():
    spec = InputSpec(space("none", permutable=False))
    params = networks(spec.space)
    for name in TREATMENTS:
        treatment = parse_treatment(name).fit(spec, params)
        assert all(
            same(params, view, 0)
            for view in [
                treatment.train(spec, params, generator()),
                *treatment.predict(spec, params),
            ]
        )


def test_steps_follow_each_other():
    spec = InputSpec(space())
    params = networks(spec.space)
    chain = parse_treatment("augment+canonicalize")
    assert same(chain.train(spec, params, generator(1)), chain.train(spec, params, generator(2)))
    assert same(*chain.predict(spec, params), Canonicalize().treat(spec, params))
    twice = parse_treatment({"orbit_average": {"samples": 3}, "canonicalize": {}}).predict(
        spec, params
    )
    assert len(twice) == 3
    assert all(same(twice[0], view) for view in twice)


def test_averaging_over_orbits_gives_the_mean_of_raw_predictions():
    plain = Metanet("mlp", epochs=3, lr=1e-2).fit(POPULATION)
    averaged = Metanet("mlp", treatment={"orbit_average": {"samples": 4}}, epochs=3, lr=1e-2).fit(
        POPULATION
    )
    params = POPULATION.params("test")
    views = OrbitAverage(samples=4).views(averaged.reader_.specs[0], params)
    assert same(views[0], params, 0)
    linked = [np.log(p / (1 - p)) for p in (plain.predict(view) for view in views)]
    by_hand = 1 / (1 + np.exp(-np.mean(linked, axis=0)))
    np.testing.assert_allclose(averaged.predict(params), by_hand, rtol=1e-5)


@pytest.mark.parametrize("model", ["mlp", "dmc"])
def test_canonical_networks_make_any_metanet_invariant(model):
    params = POPULATION.params("test")
    moved = permute_neurons(POPULATION.space, params, generator(1))
    changes = {}
    for treatment in ("none", "canonicalize"):
        fitted = Metanet(model, treatment=treatment, epochs=4, lr=1e-2).fit(POPULATION)
        before, after = fitted.predict(params), fitted.predict(moved)
        changes[treatment] = np.abs(after - before).max() / before.std()
    assert changes["canonicalize"] < 1e-3 < changes["none"]


SEVERAL = (
    "none",
    "align+augment",
    "canonicalize",
    {"align": {"rounds": 1}, "orbit_average": {"samples": 2}},
)


@pytest.mark.parametrize(
    ("model", "treatment"),
    tiered(
        product(READERS, SEVERAL),
        lambda model, treatment: (READERS.index(model) + SEVERAL.index(treatment)) % 4 == 0,
    ),
)
def test_treatments_go_with_every_metanet_and_survive_saving(model, treatment, tmp_path):
    fitted = Metanet(model, treatment=treatment, epochs=2, batch_size=8).fit(POPULATION)
    fitted.save(tmp_path / "metanet")
    again = load(tmp_path / "metanet")
    assert np.array_equal(fitted.predict(POPULATION), again.predict(POPULATION))
    assert again.get_params() == fitted.get_params()
    twin = clone(fitted).fit(POPULATION)
    assert np.array_equal(fitted.predict(POPULATION), twin.predict(POPULATION))


def test_augmented_training_differs_and_trees_see_copies():
    plain, augmented = (
        Metanet("mlp", treatment=t, epochs=3, lr=1e-2).fit(POPULATION) for t in ("none", "augment")
    )
    assert not np.allclose(plain.predict(POPULATION), augmented.predict(POPULATION))
    counts = []

    @dataclass(frozen=True)
    class Counted(Augment):
        def augment(self, spec, params, generator):
            counts.append(count_rows(params))
            return super().augment(spec, params, generator)

    TREATMENTS["counted"] = Counted
    try:
        Metanet("gbm", treatment={"counted": {"copies": 3}}).fit(POPULATION)
        assert counts == [24] * 3
        counts.clear()
        Metanet("statnn", treatment="counted", epochs=4, patience=4).fit(POPULATION)
        assert counts == [24] * 5  # the first for the normalization
    finally:
        del TREATMENTS["counted"]


def test_bad_treatments_are_refused():
    with pytest.raises(
        ValueError, match=r"unknown treatment 'allign'; treatments are \['none', 'augment'"
    ):
        Metanet("mlp", treatment="allign").fit(random_population())
    with pytest.raises(
        ValueError, match=r"unknown option 'noize' of treatment 'augment'; .* \['permutations'"
    ):
        Metanet("mlp", treatment={"augment": {"noize": 1}}).check()
    with pytest.raises(ValueError, match="unknown option 'known'"):
        Metanet("mlp", treatment={"align": {"known": {}}}).check()
    with pytest.raises(ValueError, match="'dropout' of treatment 'augment': expected less than 1"):
        Metanet("mlp").set_params(treatment={"augment": {"dropout": 1.0}}).check()
    with pytest.raises(ValueError, match="reads no weights"):
        Metanet("hparams", treatment="augment").fit(random_population())
    assert parse_treatment("none") == Treatment(())


def test_a_step_without_the_base_class_is_refused(monkeypatch):
    class Bare:
        def treat(self, spec, params):
            return params

    monkeypatch.setitem(TREATMENTS, "bare", Bare)
    with pytest.raises(ValueError, match=r"treatment 'bare': expected a subclass of .*\.Step"):
        parse_treatment("bare")
