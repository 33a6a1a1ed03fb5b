"""What a zoo and its populations hold: params, tables, pairs, trajectories."""

import numpy as np
import pandas as pd
import pytest
import torch

import zoo
from tests.stored import read_columns
from tests.zoo.population.job import CHECKPOINTS, JOB, NUM_FREE, POPULATIONS, SPLITS, edit_manifest
from zoo.architectures import build_architecture, make_asymmetric
from zoo.params import flatten
from zoo.store.mapped import StoreError


def test_a_zoo_is_a_mapping_of_populations_in_the_order_of_the_job(directory):
    z = zoo.load(str(directory))
    assert list(z) == POPULATIONS
    assert len(z) == 4
    assert "standard" in z
    assert "other" not in z
    assert [population.name for population in z.values()] == POPULATIONS
    assert z.directory == directory
    assert z.manifest.config["seed"] == 5
    assert "'w_asymmetric', 12 networks, 518 free of 610 params" in repr(z)


def test_a_population_knows_its_size_splits_and_hyperparameters(population):
    assert len(population) == 12
    assert population.splits == tuple(SPLITS)
    assert {"optimizer", "lr", "init_scale", "batch_size", "steps"} <= set(
        population.hyperparameters
    )
    assert population.num_free == NUM_FREE[population.name]


def test_the_stored_architecture_is_the_one_of_the_job(population):
    config = JOB["populations"][population.name]
    options = {name: value for name, value in config["architecture"].items() if name != "name"}
    expected = build_architecture(config["architecture"]["name"], options, (1, 8, 8), 10)
    if "asymmetry" in config:
        options = {name: value for name, value in config["asymmetry"].items() if name != "kind"}
        expected = make_asymmetric(expected, config["asymmetry"]["kind"], options, seed=0)
    assert population.space == expected.space
    assert population.architecture.space == expected.space
    assert {n: (c.dtype, c.shape) for n, c in population.constants.items()} == {
        n: (c.dtype, c.shape) for n, c in expected.constants.items()
    }


@pytest.mark.parametrize("split", SPLITS)
def test_params_and_table_are_by_network_id(population, split):
    params, table = population.params(split), population.table(split)
    assert table["network_id"].tolist() == list(SPLITS[split])
    assert list(params) == list(population.space.tensors)
    for name, tensor in params.items():
        assert tensor.shape == (len(SPLITS[split]), *population.space.shapes[name])
        assert tensor.dtype == torch.float32


@pytest.mark.parametrize("split", SPLITS)
def test_params_are_the_rows_of_the_shards_in_order(population, split):
    files = sorted((population.directory / population.name).glob(f"{split}-*.h5"))
    assert len(files) == (2 if split == "train" else 1)
    columns = [read_columns([file]) for file in files]
    for name, tensor in population.params(split).items():
        np.testing.assert_array_equal(tensor.numpy(), np.concatenate([c[name] for c in columns]))


def test_the_table_has_numbers_text_and_booleans(population):
    table = population.table("train")
    assert set(table["optimizer"]) == {"sgd", "adamw"}
    assert table["diverged"].dtype == bool
    assert not table["diverged"].any()
    assert all(
        pd.api.types.is_numeric_dtype(table[n])
        for n in population.hyperparameters
        if n not in ("optimizer", "schedule")
    )
    assert table["lr"].between(0.01, 0.3).all()
    np.testing.assert_array_equal(
        table["generalization_gap"], table["train_accuracy"] - table["test_accuracy"]
    )
    assert np.isfinite(table[["train_loss", "test_loss"]]).all(axis=None)


@pytest.mark.parametrize("split", SPLITS)
def test_the_free_view_leaves_out_the_fixed_entries(population, split):
    full, free = population.params(split), population.params(split, view="free")
    assert list(free) == list(full)
    assert sum(tensor[0].numel() for tensor in free.values()) == population.num_free
    for name, tensor in full.items():
        mask = population.free.get(name)
        assert torch.equal(free[name], tensor if mask is None else tensor[:, mask])


def test_fixed_entries_are_the_same_in_every_network(directory):
    population = zoo.load(directory)["w_asymmetric"]
    assert set(population.free) == {"layers.0.weight", "layers.1.weight"}
    for split in SPLITS:
        for name, mask in population.free.items():
            fixed = population.constants[f"fixed.{name}"][~mask]
            assert (population.params(split)[name][:, ~mask] == fixed).all()


def test_network_i_is_the_same_draw_with_the_same_split_in_every_population(directory):
    z = zoo.load(directory)
    for split in SPLITS:
        paired = ["network_id", "seed", "train_size", *z["standard"].hyperparameters]
        expected = z["standard"].table(split)[paired]
        for population in z.values():
            pd.testing.assert_frame_equal(population.table(split)[paired], expected)
    ids = [i for split in SPLITS for i in z["standard"].table(split)["network_id"]]
    assert ids == list(range(12))


@pytest.mark.parametrize("name", ["w_asymmetric", "sigma_asymmetric"])
def test_paired_networks_start_from_the_same_draws(directory, name):
    z = zoo.load(directory)
    for split in SPLITS:
        steps, standard = z["standard"].trajectory(split)
        other_steps, other = z[name].trajectory(split)
        np.testing.assert_array_equal(steps, other_steps)
        for tensor in standard:
            mask = z[name].free.get(
                tensor, torch.ones(standard[tensor].shape[2:], dtype=torch.bool)
            )
            assert torch.equal(standard[tensor][:, 0][:, mask], other[tensor][:, 0][:, mask])
            assert not torch.equal(standard[tensor][:, -1][:, mask], other[tensor][:, -1][:, mask])


@pytest.mark.parametrize("split", SPLITS)
def test_trajectories_go_from_step_0_to_the_final_params(population, split):
    steps, moments = population.trajectory(split)
    table, params = population.table(split), population.params(split)
    assert steps.shape == (len(table), CHECKPOINTS)
    assert (steps[:, 0] == 0).all()
    assert steps[:, -1].tolist() == table["steps"].tolist()
    assert (np.diff(steps) > 0).all()
    for name, tensor in moments.items():
        assert tensor.shape == (len(table), CHECKPOINTS, *population.space.shapes[name])
        assert torch.equal(tensor[:, -1], params[name])


def test_trajectories_start_with_what_the_architecture_draws(population):
    _, moments = population.trajectory("test")
    for row, (seed, scale) in enumerate(
        population.table("test")[["seed", "init_scale"]].itertuples(index=False)
    ):
        drawn = population.architecture.init(torch.Generator().manual_seed(int(seed)))
        for name, tensor in drawn.items():
            mask = population.free.get(name, torch.ones(tensor.shape, dtype=torch.bool))
            factor = scale if "<-" in population.space.tensors[name] else 1.0
            torch.testing.assert_close(
                moments[name][row, 0][mask], factor * tensor[mask], rtol=1e-6, atol=0
            )


def test_a_zoo_without_checkpoints_says_so(copy):
    edit_manifest(copy, lambda data: data["populations"]["standard"].pop("trajectory"))
    with pytest.raises(
        StoreError, match="population 'standard': no trajectory; the job asked for no checkpoints"
    ):
        zoo.load(copy)["standard"].trajectory("train")


@pytest.mark.parametrize("split", SPLITS)
def test_flat_is_flattened_params(population, split):
    flat = population.flat(split)
    assert flat.shape == (len(SPLITS[split]), population.space.num_params)
    assert torch.equal(flat, flatten(population.space, population.params(split)))
