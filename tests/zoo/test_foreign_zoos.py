"""Zoos that no job made: labels, groups, splittings, sources, missing values, several sizes."""

import hashlib
import json
import shutil
import warnings
from pathlib import Path

import datasets
import h5py
import numpy as np
import pytest
import torch

import zoo
from data_gen.integrity.repair import repair_zoo
from data_gen.integrity.verify import verify_zoo
from metanet import Metanet
from tests.zoo.foreign import (
    COLUMNS,
    MOMENTS,
    SIZES,
    SOURCE,
    params_of,
    published_splitting,
    table_of,
    write_foreign,
)
from zoo.store.atomic import sha256
from zoo.store.entries import SPLITS, default_splitting, splitting_digest
from zoo.store.hdf5 import write_columns
from zoo.store.mapped import StoreError, open_mapped

NAMES = tuple(SIZES)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_foreign(tmp_path_factory.mktemp("zoos") / "foreign")


@pytest.fixture
def copy(folder, tmp_path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def rows_of(name: str, splitting: str, split: str) -> np.ndarray:
    """Ids of a split, from the table that was written."""
    ids = np.arange(sum(SIZES[name].values()))
    if splitting == "published":
        return ids[table_of(name)["published"] == split]
    first = sum(SIZES[name][s] for s in SPLITS[: SPLITS.index(split)])
    return ids[first : first + SIZES[name][split]]


@pytest.mark.parametrize("splitting", ["default", "published"])
@pytest.mark.parametrize("name", NAMES)
def test_every_way_to_read_gives_the_networks_of_the_splitting(folder, name, splitting):
    population = zoo.load(folder)[name].split_as(splitting)
    table, params, rows_read = table_of(name), params_of(name), []
    assert len(population) == sum(population.sizes.values())
    for split in population.splits:
        rows = rows_of(name, splitting, split)
        rows_read += rows.tolist()
        read = population.table(split)
        assert list(read) == list(COLUMNS)
        for column, values in table.items():
            np.testing.assert_array_equal(read[column].to_numpy(), values[rows])
        steps, trajectory = population.trajectory(split)
        assert steps.tolist() == [[0, 20, 40]] * len(rows)
        stored, batches = population.stored(split), population.batches(split, 3, columns=["label"])
        batches = list(batches)
        flat = np.concatenate([params[t][rows, -1].reshape(len(rows), -1) for t in params], axis=1)
        np.testing.assert_array_equal(population.flat(split), flat)
        for tensor, values in params.items():
            np.testing.assert_array_equal(trajectory[tensor], values[rows])
            np.testing.assert_array_equal(population.params(split)[tensor], values[rows, -1])
            every = stored.read(torch.arange(len(rows)))
            np.testing.assert_array_equal(every[tensor], values[rows, -1])
            batched = torch.cat([batch.params[tensor] for batch in batches])
            np.testing.assert_array_equal(batched, values[rows, -1])
        labels = torch.cat([torch.as_tensor(batch.columns["label"]) for batch in batches])
        np.testing.assert_array_equal(labels, table["label"][rows])
    left_out = SIZES[name]["validation"] if splitting == "published" else 0
    assert len(set(rows_read)) == len(rows_read) == sum(SIZES[name].values()) - left_out


def test_metrics_along_training(folder):
    steps, metrics = zoo.load(folder)["known"].checkpoint_metrics("test")
    rows = rows_of("known", "default", "test")
    assert steps.shape == metrics["reward"].shape == (len(rows), MOMENTS)
    expected = table_of("known")["reward"][rows, None] + [-2, -1, 0]
    np.testing.assert_array_equal(metrics["reward"], expected)


def test_columns_say_what_they_hold(folder):
    population = zoo.load(folder)["known"]
    assert population.columns == COLUMNS
    assert population.hyperparameters == ("config.lr",)
    reward = population.columns["reward"]
    assert (reward.unit, reward.direction, reward.nullable) == ("points", "higher", True)
    assert population.columns["config.lr"].bounds == (0, np.inf)
    assert zoo.load(folder).manifest.source == SOURCE


def test_a_view_is_all_its_populations(folder):
    z = zoo.load(folder)
    assert [population.name for population in z.views["all"]] == ["known", "unknown"]
    assert list(z.choose(["all"])) == list(z.choose(None)) == ["known", "unknown"]
    with pytest.raises(ValueError, match=r"no populations \['none'\].*'known', 'unknown', 'all'"):
        z.choose(["none"])


def test_a_splitting_that_is_not_there_is_named(folder):
    with pytest.raises(ValueError, match=r"no splitting 'other'; splittings are \['default', 'pub"):
        zoo.load(folder)["known"].split_as("other")


def test_the_digest_of_a_splitting_is_the_one_of_the_page():
    ids = {"train": np.array([2, 0]), "validation": np.array([], int), "test": np.array([1])}
    assert splitting_digest(ids) == hashlib.sha256(b"train 2 0\nvalidation\ntest 1\n").hexdigest()
    counted = default_splitting({"train": 2, "validation": 0, "test": 1}).sha256
    assert counted == hashlib.sha256(b"train 0 1\nvalidation\ntest 2\n").hexdigest()


def test_datasets_loads_every_configuration(folder, tmp_path):
    for name in NAMES:
        loaded = datasets.load_dataset(str(folder), name, cache_dir=str(tmp_path))
        assert {split: len(rows) for split, rows in loaded.items()} == {
            split: size for split, size in SIZES[name].items() if size
        }
        table, rows = table_of(name), rows_of(name, "default", "test")
        assert loaded["test"]["caption"][:] == table["caption"][rows].tolist()
        np.testing.assert_array_equal(loaded["test"]["reward"][:], table["reward"][rows])
        moments = datasets.load_dataset(str(folder), f"{name}.trajectory", cache_dir=str(tmp_path))
        assert np.array(moments["test"]["metric.reward"][:]).shape == (len(rows), MOMENTS)


def test_the_files_are_plain_hdf5(folder):
    with h5py.File(folder / "known/train-00000-of-00003.h5") as file:
        assert list(file)[:2] == list(COLUMNS)[:2]
        assert file["caption"].asstr()[:2].tolist() == ["", "a caption"]


def test_it_is_whole(folder):
    told = []
    assert verify_zoo(folder, report=told.append) == []
    assert "no job made the zoo" in told[1]


def change(folder: Path, column: str, at: object, value: object, files: str = "shards") -> str:
    """Change a value of the first test file of a population, under right hashes.

    Returns:
        Path of the file.
    """
    data = json.loads((folder / "zoo.json").read_text())
    entries = data["populations"]["known"][files]
    path = next(p for p in entries if "/test-" in p)
    checked = open_mapped(folder / path)
    columns = {key: np.array(checked.array(key)) for key in checked.columns}
    columns[column][at] = value
    write_columns(folder / path, columns, dict(checked.map.attributes))
    entries[path] |= {"bytes": (folder / path).stat().st_size, "sha256": sha256(folder / path)}
    (folder / "zoo.json").write_text(json.dumps(data))
    return path


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("config.lr", -1.0, "'config.lr' has values that are not finite, or not from 0 to inf"),
        ("config.lr", np.nan, "'config.lr' has values that are not finite"),
        ("reward", np.inf, "'reward' has values that are not finite"),
        ("label", 10, "'label' has values that are not finite, or not from 0 to 9"),
        ("run", "", "'run' has empty texts"),
        ("run", "run 0 0", "splitting 'default': group 'run' 'run 0 0' lies in two splits"),
        ("published", "test", "splitting 'published': its networks have other splits"),
        ("published", "dev", "splitting 'published': 'dev' is no split"),
    ],
)
def test_wrong_values_are_found(copy, column, value, reason):
    change(copy, column, 0, value)
    reasons = [fault.reason for fault in verify_zoo(copy)]
    assert any(reason in text for text in reasons), reasons


def test_values_that_may_be_missing_are_no_fault(copy):
    change(copy, "reward", 1, np.nan)
    change(copy, "caption", 1, "")
    reasons = [fault.reason for fault in verify_zoo(copy)]
    assert reasons
    assert all("README" in text or "the header" in text or "metric" in text for text in reasons)


def test_a_splitting_that_was_altered_is_refused_when_it_is_read(copy):
    change(copy, "published", 0, "test")
    population = zoo.load(copy)["known"]
    population.table("test")
    with pytest.raises(StoreError, match="'published' is not the splitting that the manifest"):
        population.split_as("published").table("test")


def test_a_wrong_last_metric_is_found(copy):
    path = change(copy, "metric.reward", (0, -1), 12.5, "trajectory")
    faults = [fault for fault in verify_zoo(copy) if fault.path == path]
    assert [fault.reason for fault in faults] == [
        "'metric.reward' does not end at the final metric"
    ]


def test_the_card_tells_where_networks_come_from(folder):
    text = (folder / "README.md").read_text()
    for part in (
        "license: cc-by-4.0",
        "Read by `test 1`. From `https://example.org/zoo`. Cite `@misc{zoo, title={A / zoo} }`.",
        "3 left out: `ended by NaN`.",
        "| `reward` | metric | float64 | points |  | higher | yes |",
        "| `label` | target | int64 |  | 0 to 9 |  |  |",
        "| `config.lr` | hyperparameter | float64 |  | 0 to |  |  |",
        "- `all` is all networks of `known, unknown`",
        "- `known`, `published`: 8 train, 0 validation, 12 test; published procedure",
        "## Reward\n",
    ):
        assert part in text, part
    assert "Make it again" not in text
    assert "Each population holds" not in text


def test_nothing_of_it_is_made_again(copy):
    (copy / "known/test-00000-of-00002.h5").write_bytes(b"")
    with pytest.raises(ValueError, match="no job made this zoo, so that no file of it can be made"):
        repair_zoo(copy)


def test_networks_of_an_unknown_function_have_weights_and_a_space(folder):
    population = zoo.load(folder)["unknown"]
    assert population.known_architecture() is None
    assert population.space.num_params == 7 * 4 + 2 * 8
    with pytest.raises(StoreError, match="does not say what its networks compute"):
        _ = population.architecture
    known = zoo.load(folder)["known"]
    assert known.known_architecture() is known.architecture


def test_metanets_learn_from_a_view_and_leave_networks_without_a_value_out(folder):
    populations = list(zoo.load(folder).views["all"])
    options = {"target": "reward", "epochs": 2, "seed": 0, "device": "cpu"}
    metanet = Metanet("gmn", **options)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        metanet.fit(populations)
    told = " ".join(str(warning.message) for warning in caught)
    assert "split 'train': dropped 4 of 12 networks that have no finite 'reward'" in told
    assert "split 'train': dropped 2 of 6 networks that have no finite 'reward'" in told
    assert np.isfinite(metanet.predict(populations[1], "test")).all()


def test_metanets_that_run_networks_say_why_they_cannot(folder):
    metanet = Metanet("probe", target="label", epochs=1, device="cpu")
    with pytest.raises(ValueError, match="expected a population whose `architecture` says"):
        metanet.fit(zoo.load(folder)["unknown"])


def test_a_zoo_of_thousands_of_architectures_has_a_manifest_in_bounds(folder):
    data = json.loads((folder / "zoo.json").read_text())
    one = data["populations"]["known"] | {"trajectory": {}}
    space = one["space"]
    more = {f"more.{i}": next(iter(space["tensors"].values())) for i in range(40)}
    one["space"] = space | {"tensors": space["tensors"] | more}
    populations = {}
    for number in range(2800):
        name = f"p{number}"
        shards = {path.replace("known", name): e for path, e in one["shards"].items()}
        shards = {path: e | {"bytes": 10**6} for path, e in shards.items()}
        populations[name] = one | {"shards": shards}
    data |= {"populations": populations, "views": {"all": list(populations)}}
    many = folder.parent / "many"
    many.mkdir()
    (many / "zoo.json").write_text(json.dumps(data))
    z = zoo.load(many)
    assert len(z.views["all"]) == 2800
    assert sum(map(len, z.values())) == 2800 * 24


def test_splittings_are_compared_with_a_second_formula():
    split_of = np.array(["test", "", "train", "test"], dtype=object)
    entry = published_splitting(split_of)
    assert entry.sizes == {"train": 1, "validation": 0, "test": 2}
    assert entry.sha256 == hashlib.sha256(b"train 2\nvalidation\ntest 0 3\n").hexdigest()
