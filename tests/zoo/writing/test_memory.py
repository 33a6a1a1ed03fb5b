"""Networks in memory are a population as any other."""

import numpy as np
import pytest
import torch

import zoo
from metanet import METANETS, Metanet
from tests.zoo.writing.networks import COUNT, MLP, ROLES, W_MLP, state_dicts, table


@pytest.mark.parametrize("architecture", [MLP, W_MLP], ids=["standard", "w"])
def test_it_is_the_population_that_would_be_written(architecture, tmp_path):
    networks = state_dicts(architecture=architecture)
    here = zoo.population(architecture, networks, table(), roles=ROLES)
    given = {"mine": (architecture, networks, table())}
    there = zoo.write(tmp_path / "z", given, roles=ROLES)["mine"]
    assert here.splits == there.splits
    assert here.columns == there.columns
    assert here.hyperparameters == there.hyperparameters
    assert {n: m.tolist() for n, m in here.free.items()} == {
        n: m.tolist() for n, m in there.free.items()
    }
    for split in here.splits:
        ids = here.table(split)["epochs"].tolist()
        assert ids == there.table(split)["epochs"].tolist()
        for name, tensor in here.params(split).items():
            assert torch.equal(tensor, there.params(split)[name])
            assert torch.equal(tensor, torch.stack([networks[i][name] for i in ids]))
    fits = [
        Metanet("mlp", target="test_accuracy", epochs=2, width=8).fit(each).predict(each)
        for each in (here, there)
    ]
    assert np.array_equal(*fits)


@pytest.mark.parametrize("model", [name for name in METANETS if name != "mixed_gmn"])
def test_every_metanet_reads_it(model):
    population = zoo.population(MLP, state_dicts(), table(), roles=ROLES)
    fitted = Metanet(model, target="lr" if model != "hparams" else "test_accuracy", epochs=1)
    predictions = fitted.fit(population).predict(population)
    assert predictions.shape == (len(population.table("test")),)
    assert np.isfinite(predictions).all()


def test_a_space_is_enough_for_those_that_run_nothing():
    population = zoo.population(MLP.space, state_dicts(), table())
    assert population.known_architecture() is None
    with pytest.raises(ValueError, match="probe"):
        Metanet("probe", target="test_accuracy").fit(population)


def test_networks_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match="population 'networks': expected 40 networks"):
        zoo.population(MLP, state_dicts(3), table(COUNT))
