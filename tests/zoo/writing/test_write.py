"""A zoo of networks that anyone has: what is stored, and that it is all that a zoo is."""

import json
from collections.abc import Sequence

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from datasets import load_dataset

import zoo
from data_gen.integrity.verify import verify_zoo
from metanet import Metanet
from tests.zoo.writing.networks import COUNT, MLP, ROLES, W_MLP, state_dicts, table, trained
from zoo.sharing.export import export_zoo
from zoo.store.entries import SourceEntry

SPLITS = ("train", "validation", "test")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    out = tmp_path_factory.mktemp("written") / "zoo"
    return zoo.write(out, {"mine": (MLP, state_dicts(), table())}, roles=ROLES)


def everything(population):
    """Params and table of all splits, sorted by a column that numbers the networks."""
    rows = pd.concat([population.table(split) for split in population.splits], ignore_index=True)
    params = [population.params(split) for split in population.splits]
    order = np.argsort(rows["epochs"].tolist())
    joined = {name: torch.cat([part[name] for part in params])[order] for name in params[0]}
    return joined, rows.iloc[order].reset_index(drop=True)


def test_rows_and_networks_stay_together(written):
    params, rows = everything(written["mine"])
    for name in params:
        assert torch.equal(params[name], torch.stack([n[name] for n in state_dicts()]))
    expected = table().fillna({"note": ""})
    pd.testing.assert_frame_equal(rows[list(expected)], expected, check_dtype=False)


def test_it_is_whole_and_says_what_nobody_can_prove(written):
    told = []
    assert verify_zoo(written.directory, report=told.append) == []
    assert "metrics not computed again: no job made the zoo" in told


def test_hdf5_and_datasets_load_it_as_it_is(written):
    population = written["mine"]
    loaded = load_dataset(str(written.directory), "mine")
    for split in population.splits:
        assert loaded[split]["network_id"] == population.table(split)["network_id"].tolist()
        bias = np.array(loaded[split]["layers.0.bias"], np.float32)
        assert np.array_equal(bias, population.params(split)["layers.0.bias"].numpy())
    (path,) = (written.directory / "mine").glob("train-*.h5")
    with h5py.File(path) as file:
        assert file["lr"].dtype == np.float64
        assert file["is_good"].dtype == bool


def test_columns_are_typed_by_their_values(written):
    found = {n: (c.role, c.dtype, c.nullable) for n, c in written["mine"].columns.items()}
    assert found == {
        "network_id": ("id", "int64", False),
        "lr": ("hyperparameter", "float64", False),
        "optimizer": ("hyperparameter", "text", False),
        "test_accuracy": ("metric", "float64", False),
        "run": ("group", "text", False),
        "epochs": ("info", "int64", False),
        "is_good": ("info", "bool", False),
        "note": ("info", "text", True),
    }


def test_whole_numbers_with_gaps_are_floating(tmp_path):
    rows = [{"epochs": i} if i % 2 else {} for i in range(8)]
    population = zoo.write(tmp_path / "z", {"a": (MLP, state_dicts(8), rows)}, split=(1, 0, 0))["a"]
    values = population.table("train")["epochs"].to_numpy()
    assert np.array_equal(values, [np.nan, 1, np.nan, 3, np.nan, 5, np.nan, 7], equal_nan=True)
    assert population.columns["epochs"].nullable


def test_groups_stay_in_one_split_and_shares_are_those_that_were_asked(written):
    of = {split: set(written["mine"].table(split)["run"]) for split in SPLITS}
    assert sum(map(len, of.values())) == len(set.union(*of.values())) == COUNT // 4
    assert written["mine"].sizes == {"train": 28, "validation": 8, "test": 4}


@pytest.mark.parametrize("count", [10, 33])
def test_a_draw_without_groups_has_the_nearest_sizes(count, tmp_path):
    given = {"a": (MLP, state_dicts(count), table(count))}
    sizes = zoo.write(tmp_path / "z", given, split={"train": 0.5, "test": 0.5})["a"].sizes
    assert sum(sizes.values()) == count
    assert abs(sizes["train"] - count / 2) <= 0.5
    assert sizes["validation"] == 0


def test_draws_depend_on_the_seed_alone(tmp_path):
    def ids(name, seed):
        given = {"a": (MLP, state_dicts(), table())}
        population = zoo.write(tmp_path / name, given, seed=seed)["a"]
        return population.table("test")["epochs"].tolist()

    assert ids("a", 0) == ids("b", 0) != ids("c", 1)


def test_a_column_may_say_the_split(tmp_path):
    rows = table().assign(part=np.array(SPLITS)[np.arange(COUNT) % 3], old="test")
    z = zoo.write(
        tmp_path / "z",
        {"a": (MLP, state_dicts(), rows)},
        split="part",
        roles={"old": "splitting"},
        origins={"part": "published file"},
    )
    for at, split in enumerate(SPLITS):
        assert z["a"].table(split)["epochs"].tolist() == list(range(at, COUNT, 3))
    assert "part" not in z["a"].columns
    assert z["a"].splittings["default"].origin == "published file"
    assert z["a"].split_as("old").sizes == {"train": 0, "validation": 0, "test": COUNT}
    assert verify_zoo(z.directory) == []


FORMS = {
    "a list": lambda nets: nets,
    "an iterator": iter,
    "stacked": lambda nets: {n: torch.stack([net[n] for net in nets]) for n in nets[0]},
    "float64": lambda nets: [{n: t.double() for n, t in net.items()} for net in nets],
    "numpy": lambda nets: [{n: t.numpy() for n, t in net.items()} for net in nets],
}


@pytest.mark.parametrize("form", FORMS)
def test_whatever_holds_the_networks_gives_the_same_files(form, written, tmp_path):
    given = {"mine": (MLP, FORMS[form](state_dicts()), table())}
    again = zoo.write(tmp_path / "z", given, roles=ROLES)
    assert again.manifest.entries() == written.manifest.entries()


def test_fixed_entries_are_constants_and_networks_without_them_are_refused(tmp_path):
    networks = state_dicts(10, W_MLP)
    z = zoo.write(tmp_path / "z", {"w": (W_MLP, networks, table(10))})
    assert z["w"].num_free == W_MLP.num_free < MLP.num_free
    assert verify_zoo(z.directory) == []
    with pytest.raises(ValueError, match=r"network 0, 'layers.*fixed entries are not those"):
        zoo.write(tmp_path / "y", {"w": (W_MLP, state_dicts(10), table(10))})


def test_networks_of_a_module_compute_what_the_module_computes(tmp_path):
    modules = [trained(seed) for seed in range(8)]
    rows = [{"test_accuracy": i / 8} for i in range(8)]
    given = {"tied": (modules[0], (m.state_dict() for m in modules), rows)}
    x = torch.randn(4, 3)
    zoo.write(tmp_path / "z", given, split=(1, 0, 0), example_inputs=x)
    assert verify_zoo(tmp_path / "z") == []
    population = zoo.load(tmp_path / "z", modules={"tied": zoo.trace(modules[0], x)})["tied"]
    params = population.params("train")
    names = [name for name, _ in modules[0].named_parameters()]
    assert set(params) == {*names, "norm.running_mean", "norm.running_var"}
    for at, module in enumerate(modules):
        ours = population.architecture.apply({n: t[at] for n, t in params.items()}, x)
        torch.testing.assert_close(ours, module(x))


def test_a_space_alone_is_enough(tmp_path):
    z = zoo.write(tmp_path / "z", {"a": (MLP.space, state_dicts(), table())}, roles=ROLES)
    assert z["a"].known_architecture() is None
    fitted = Metanet("mlp", target="test_accuracy", epochs=2, width=8).fit(z["a"])
    assert fitted.predict(z["a"]).shape == (4,)
    assert verify_zoo(z.directory) == []


def test_populations_may_differ_in_size_and_columns(tmp_path):
    wide = zoo.architectures.build_architecture("mlp", {"hidden": [5]}, (6,), 2)
    z = zoo.write(
        tmp_path / "z",
        {
            "narrow": (MLP, state_dicts(12), table(12)[["lr", "epochs"]]),
            "wide": (wide, state_dicts(7, wide), table(7)[["epochs", "note"]]),
        },
        views={"all": ("narrow", "wide")},
        source=SourceEntry(importer="test", version="1", license="cc-by-4.0"),
    )
    assert [len(z[name]) for name in z] == [12, 7]
    assert np.isnan(z["wide"].table("train")["lr"]).all()
    assert [p.name for p in z.views["all"]] == ["narrow", "wide"]
    assert verify_zoo(z.directory) == []
    card = (z.directory / "README.md").read_text()
    assert "cc-by-4.0" in card


@pytest.mark.parametrize("form", ["parquet", "safetensors"])
def test_it_is_exported_as_any_zoo(form, written, tmp_path):
    export_zoo(written, tmp_path / "out", form)
    assert any(path.suffix == f".{form}" for path in (tmp_path / "out").rglob("*"))


def test_a_licence_that_nobody_named_is_unknown(written):
    assert "Licence: unknown" in (written.directory / "README.md").read_text()


class Watched(Sequence):
    """Networks that count how often each is asked for, and fail at one."""

    def __init__(self, networks, fails_at=None):
        self.networks, self.fails_at, self.asked = networks, fails_at, []

    def __len__(self):
        return len(self.networks)

    def __getitem__(self, at):
        if at == self.fails_at:
            raise KeyboardInterrupt
        self.asked.append(at)
        return self.networks[at]


def test_an_interrupted_run_goes_on(written, tmp_path, monkeypatch):
    monkeypatch.setattr("zoo.writing.on_disk._SHARD_BYTES", 4 * MLP.space.num_params * 6)
    whole = zoo.write(tmp_path / "whole", {"mine": (MLP, state_dicts(), table())}, roles=ROLES)
    last = whole["mine"].table("test")["epochs"].iloc[-1]
    broken = Watched(state_dicts(), fails_at=int(last))
    with pytest.raises(KeyboardInterrupt):
        zoo.write(tmp_path / "z", {"mine": (MLP, broken, table())}, roles=ROLES)
    assert not (tmp_path / "z" / "zoo.json").exists()
    with pytest.raises(ValueError, match=r"another zoo\.write"):
        zoo.write(tmp_path / "z", {"mine": (MLP, Watched(state_dicts()), table())})
    rest = Watched(state_dicts())
    again = zoo.write(tmp_path / "z", {"mine": (MLP, rest, table())}, roles=ROLES)
    assert 0 < len(rest.asked) <= 6
    assert again.manifest.entries() == whole.manifest.entries()
    done = Watched(state_dicts())
    zoo.write(tmp_path / "z", {"mine": (MLP, done, table())}, roles=ROLES)
    assert done.asked == []


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(ValueError, match="new or empty"):
        zoo.write(tmp_path, {"a": (MLP, state_dicts(), table())})
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_the_record_is_json_and_no_part_of_the_zoo(written):
    record = json.loads((written.directory / ".write.json").read_text())
    assert list(record) == ["sha256"]
