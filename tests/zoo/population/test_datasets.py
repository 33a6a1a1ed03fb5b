"""Hugging Face datasets loads the same tensors and columns."""

from fnmatch import fnmatch

import numpy as np
import pytest
import yaml

import zoo
from tests.zoo.population.job import POPULATIONS, SPLITS


@pytest.fixture
def load_dataset(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True)
    datasets.disable_progress_bars()
    yield lambda folder, name: datasets.load_dataset(
        str(folder), name, cache_dir=str(tmp_path / "cache")
    )
    datasets.enable_progress_bars()


def test_datasets_loads_the_same_tensors_and_columns(population, load_dataset):
    loaded = load_dataset(population.directory, population.name)
    assert list(loaded) == list(SPLITS)
    for split, rows in loaded.items():
        params, table = population.params(split), population.table(split)
        assert set(rows.column_names) == {*params, *table}
        for name, tensor in params.items():
            column = np.array(rows[name][:], dtype=np.float32)
            np.testing.assert_array_equal(column, tensor.numpy())
        for name in table:
            assert rows[name][:] == table[name].tolist(), name


def test_datasets_loads_the_same_trajectories(population, load_dataset):
    loaded = load_dataset(population.directory, f"{population.name}.trajectory")
    assert list(loaded) == list(SPLITS)
    for split, rows in loaded.items():
        steps, moments = population.trajectory(split)
        assert set(rows.column_names) == {"network_id", "checkpoint_steps", *moments}
        assert rows["network_id"][:] == list(SPLITS[split])
        np.testing.assert_array_equal(np.array(rows["checkpoint_steps"][:]), steps)
        for name, tensor in moments.items():
            np.testing.assert_array_equal(np.array(rows[name][:], dtype=np.float32), tensor.numpy())


def test_the_globs_of_the_card_end_in_h5_and_each_finds_its_own_shards(directory):
    card = (directory / "README.md").read_text()
    header = yaml.safe_load(card.split("---\n")[1])
    manifest = zoo.load(directory).manifest
    globs = [
        (c["config_name"], f["split"], f["path"])
        for c in header["configs"]
        for f in c["data_files"]
    ]
    assert {name for name, _, _ in globs} == {
        *POPULATIONS,
        *(f"{name}.trajectory" for name in POPULATIONS),
    }
    assert all(path.endswith(".h5") for _, _, path in globs)
    shards = [
        path
        for entry in manifest.populations.values()
        for path in (*entry.shards, *entry.trajectory)
    ]
    files = [str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()]
    for file in files:
        matches = [(name, split) for name, split, path in globs if fnmatch(file, path)]
        folder, _, shard = file.partition("/")
        assert matches == ([(folder, shard.split("-")[0])] if file in shards else []), file
