"""Manifests of strangers.

What they name stays in the folder, and what they declare is bounded before it costs anything.
"""

import json
import os
import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch

import zoo
from tests.studies.zoos import write_zoo
from zoo.architectures import build_architecture
from zoo.store.atomic import sha256
from zoo.store.bounds import MAX_JSON, MAX_VALUES, checked_space
from zoo.store.hdf5 import write_columns
from zoo.store.manifest import Manifest, rebuild
from zoo.store.mapped import StoreError, escape
from zoo.weight_space import NeuronGroup, WeightSpace

SHARD = "standard/train-00000-of-00001.h5"


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    return write_zoo(tmp_path_factory.mktemp("original") / "zoo", counts=(4, 2, 2))


@pytest.fixture
def folder(original, tmp_path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "zoo"))


def edit(folder: Path, change) -> None:
    data = json.loads((folder / "zoo.json").read_text())
    change(data)
    (folder / "zoo.json").write_text(json.dumps(data))


def standard(data):
    return data["populations"]["standard"]


def rename(data, new):
    standard(data)["shards"][new] = standard(data)["shards"].pop(SHARD)


def tensor(data, pattern):
    standard(data)["space"]["tensors"]["layers.0.weight"] = pattern


def sizes(data: dict) -> dict:
    """Networks of each split of the files of the standard population."""
    return standard(data)["splittings"]["default"]["sizes"]


def shrink(data: dict, name: str) -> None:
    """Leave the test networks of a population out."""
    entry = data["populations"][name]
    entry["splittings"]["default"]["sizes"]["test"] = 0
    entry["shards"] = {path: e for path, e in entry["shards"].items() if "/test-" not in path}


REFUSED = {
    "newer, of another schema": (
        lambda d: d.update(version=3, other={}),
        r"written by a newer symzoo \(format 3; .*: upgrade",
    ),
    "older": (
        lambda d: d.update(version=0),
        r"written by an older symzoo \(format 0; this one reads 2\): generate it again",
    ),
    "version as text": (lambda d: d.update(version="2"), "version: Input should be 2"),
    "unknown key with control characters": (
        lambda d: d.update({"\x1b[2J": 1}),
        r"zoo.json: \\x1b\[2J: Extra inputs",
    ),
    "numbers as text": (lambda d: standard(d)["shards"][SHARD].update(rows="4"), "valid integer"),
    "negative rows": (
        lambda d: standard(d)["shards"][SHARD].update(rows=-4),
        "greater than or equal to 1",
    ),
    "huge rows": (
        lambda d: standard(d)["shards"][SHARD].update(rows=10**30),
        "less than or equal|valid integer|parse",
    ),
    "more rows than fit": (
        lambda d: standard(d)["shards"][SHARD].update(rows=10**6),
        "do not fit in",
    ),
    "negative bytes": (
        lambda d: standard(d)["shards"][SHARD].update(bytes=-1),
        "greater than or equal to 1",
    ),
    "hash": (
        lambda d: standard(d)["shards"][SHARD].update(sha256="x" * 64),
        "String should match pattern",
    ),
    "hash with a line end": (
        lambda d: d.update(config_sha256="0" * 64 + "\n"),
        "String should match pattern",
    ),
    "negative split": (
        lambda d: sizes(d).update(test=-2),
        "greater than or equal to 0",
    ),
    "empty": (
        lambda d: sizes(d).update(dict.fromkeys(sizes(d), 0)),
        "expected numbers of networks of",
    ),
    "other splits": (
        lambda d: sizes(d).update(dev=sizes(d).pop("validation")),
        "expected numbers of networks of",
    ),
    "split of other counts": (
        lambda d: sizes(d).update(train=5),
        "of 4 train networks; expected all shards of a row, of 5 networks",
    ),
    "paired populations of other sizes": (
        lambda d: shrink(d, "w_asymmetric"),
        "paired: expected populations of one size",
    ),
    "hash of a splitting": (
        lambda d: standard(d)["splittings"]["default"].update(sha256="0"),
        "String should match pattern",
    ),
    "splitting without a column": (
        lambda d: standard(d)["splittings"].update(other=standard(d)["splittings"]["default"]),
        r"population 'standard': expected splittings \['default'\], found \['default', 'other'\]",
    ),
    "column of a splitting that nobody describes": (
        lambda d: d["columns"].update(other={"role": "splitting", "dtype": "text"}),
        r"expected splittings \['default', 'other'\]",
    ),
    "shard of another population": (
        lambda d: rename(d, "w_asymmetric/train-00000-of-00001.h5"),
        "is not a file of 'standard'",
    ),
    "shard of another folder": (
        lambda d: rename(d, "other/train-00000-of-00001.h5"),
        "is not a file of 'standard'",
    ),
    "constants as shards": (
        lambda d: rename(d, "constants/standard.h5"),
        "is not the name of a shard",
    ),
    "absolute": (
        lambda d: rename(d, "/standard/train-00000-of-00001.h5"),
        "is not the name of a shard",
    ),
    "parent": (
        lambda d: rename(d, "../standard/train-00000-of-00001.h5"),
        "is not the name of a shard",
    ),
    "address": (
        lambda d: rename(d, "https://example.org/train-00000-of-00001.h5"),
        "is not the name of a shard",
    ),
    "line end": (lambda d: rename(d, f"{SHARD}\n"), "is not the name of a shard"),
    "digits of another script": (
        lambda d: rename(d, "standard/train-0000\u0660-of-00001.h5"),
        "is not the name of a shard",
    ),
    "a shard missing in a row": (
        lambda d: rename(d, "standard/train-00001-of-00002.h5"),
        "expected all shards of a row",
    ),
    "population named constants": (
        lambda d: d["populations"].update(constants=standard(d)),
        "population name 'constants'",
    ),
    "no populations": (lambda d: d.update(populations={}), "at least 1 item"),
    "input": (
        lambda d: d["task"].update(input_shape=[10**5, 10**5]),
        "expected an input of at most",
    ),
    "negative input": (lambda d: d["task"].update(input_shape=[-3]), "greater than or equal to 1"),
    "no input": (lambda d: d["task"].update(input_shape=[]), "at least 1 item"),
    "unknown input": (
        lambda d: d["task"].update(input_shape=None),
        "expected input_shape and output_shape",
    ),
    "classes": (lambda d: d["task"].update(output_shape=[10**12]), "less than or equal"),
    "kind of task": (lambda d: d["task"].update(kind="cooking"), "task.kind: Input should be"),
    "loss": (lambda d: d["task"].update(loss="\x1b[2J"), "printable characters"),
    "name of a column": (
        lambda d: d["columns"].update({"../lr": d["columns"]["lr"]}),
        "column '../lr': expected up to 64 of",
    ),
    "column that is a tensor": (
        lambda d: d["columns"].update({"layers.0.bias": d["columns"]["lr"]}),
        "'layers.0.bias' is a column and a tensor",
    ),
    "no ids": (lambda d: d["columns"].pop("network_id"), "expected a column 'network_id'"),
    "ids of another role": (
        lambda d: d["columns"]["network_id"].update(role="info"),
        "expected a column 'network_id' of role 'id'",
    ),
    "role": (lambda d: d["columns"]["lr"].update(role="king"), "columns.lr.role: Input should be"),
    "group of numbers": (
        lambda d: d["columns"]["lr"].update(role="group"),
        "expected a type of",
    ),
    "nullable integer": (
        lambda d: d["columns"]["seed"].update(nullable=True),
        "no way to hold nothing",
    ),
    "range of text": (
        lambda d: d["columns"]["lr"].update(dtype="text", range=[0, 1]),
        "has no range",
    ),
    "range that is upside down": (
        lambda d: d["columns"]["lr"].update(range=[1, 0]),
        "expected least <= largest",
    ),
    "unit": (lambda d: d["columns"]["lr"].update(unit="\x07"), "printable characters"),
    "diverged as text": (lambda d: d["columns"]["diverged"].update(dtype="text"), "'bool'"),
    "many columns": (
        lambda d: d["columns"].update({f"c{i}": d["columns"]["lr"] for i in range(300)}),
        "at most 256 items",
    ),
    "view of nothing": (lambda d: d.update(views={"all": []}), "view 'all': expected a name"),
    "view of strangers": (lambda d: d.update(views={"all": ["../x"]}), "names of populations"),
    "view named like a population": (
        lambda d: d.update(views={"standard": ["standard"]}),
        "view 'standard': expected a name of its own",
    ),
    "name of a view": (lambda d: d.update(views={"\x1b": ["standard"]}), "population name"),
    "job without a hash": (lambda d: d.update(config={}), "expected both or neither"),
    "source": (
        lambda d: d.update(source={"importer": "x", "version": "1", "url": "\x1b]8;;evil"}),
        "source.url: expected at most",
    ),
    "source that is long": (
        lambda d: d.update(source={"importer": "x", "version": "1", "citation": "x" * 10**5}),
        "source.citation: expected at most 10000",
    ),
    "environment": (lambda d: d["environment"].update(torch="\x1b[31m2"), "printable characters"),
    "space without tensors": (
        lambda d: standard(d).update(space={"groups": {}, "tensors": {}}),
        "1 to 4000",
    ),
    "space of another form": (
        lambda d: standard(d).update(space={"groups": []}),
        "expected the keys 'groups' and 'tensors'",
    ),
    "pattern that nests": (
        lambda d: tensor(d, "(" * 300 + "x" + ")" * 200),
        "expected a pattern of at most",
    ),
    "long pattern": (lambda d: tensor(d, "x " * 300), "expected a pattern of at most"),
    "no pattern": (lambda d: tensor(d, "((("), "is never closed|must follow"),
    "huge group": (
        lambda d: standard(d)["space"]["groups"]["h1"].update(size=10**15),
        "do not fit in",
    ),
    "unused group": (
        lambda d: standard(d)["space"]["groups"].update(z={"size": 10**15}),
        "'z' is no axis of a tensor",
    ),
    "unknown key of a group": (
        lambda d: standard(d)["space"]["groups"]["h1"].update(z=1),
        "not the JSON of a weight space",
    ),
    "name of a tensor": (
        lambda d: standard(d)["space"]["tensors"].update({"a\x07": "x"}),
        r"tensor 'a\\x07': expected a name",
    ),
}


@pytest.mark.parametrize(("change", "part"), REFUSED.values(), ids=REFUSED)
def test_hostile_manifests_are_refused(folder, change, part):
    zoo.load(folder)
    edit(folder, change)
    with pytest.raises(StoreError, match=part) as error:
        zoo.load(folder)
    assert str(error.value).startswith(f"{folder / 'zoo.json'}: ")
    assert str(error.value).isprintable()


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"[" * 10**5, "not JSON: recursion limit exceeded"),
        (b'{"config": ' * 10**5 + b"1" + b"}" * 10**5, "not JSON: recursion limit exceeded"),
        (b" " * (MAX_JSON + 1), f"expected at most {MAX_JSON} in a manifest"),
        (b"[" + b"{}," * MAX_VALUES + b"1]", f"expected at most {MAX_VALUES} in a manifest"),
        (
            b'{"format": "symzoo", "version": ' + b"9" * 10**5 + b"}",
            "not JSON|valid|Input should be 1|newer",
        ),
        (b'{"num_classes": NaN}', "not JSON"),
        (b'{"a": "\xff"}', "not JSON"),
    ],
    ids=[
        "deep list",
        "deep object",
        "long",
        "many values",
        "long number",
        "not a number",
        "not UTF-8",
    ],
)
def test_manifests_that_are_expensive_to_parse_are_refused(folder, content, part):
    (folder / "zoo.json").write_bytes(content)
    with pytest.raises(StoreError, match=part):
        zoo.load(folder)


@pytest.mark.parametrize("name", [SHARD, "standard", "zoo.json"])
def test_links_that_lead_out_of_the_zoo_are_refused(folder, tmp_path, name):
    (folder / name).rename(tmp_path / "outside")
    (folder / name).symlink_to(tmp_path / "outside")
    with pytest.raises(StoreError, match="a link that leads out of the zoo"):
        zoo.load(folder)["standard"].params("train")


def test_links_inside_the_zoo_and_to_the_zoo_are_fine(folder, tmp_path):
    (folder / SHARD).rename(folder / "standard" / ".file")
    (folder / SHARD).symlink_to(".file")
    (tmp_path / "link").symlink_to(folder)
    assert len(zoo.load(tmp_path / "link")["standard"].params("train")) > 0


def test_a_link_to_itself_is_refused(folder):
    (folder / SHARD).unlink()
    (folder / SHARD).symlink_to(Path(SHARD).name)
    with pytest.raises(StoreError, match=r"missing|cannot be followed"):
        zoo.load(folder)["standard"].params("train")


def test_a_pipe_in_the_place_of_a_shard_is_not_waited_for(folder):
    (folder / SHARD).unlink()
    os.mkfifo(folder / SHARD)
    with pytest.raises(StoreError, match="missing"):
        zoo.load(folder)["standard"].params("train")


# architectures


def mlp_space() -> WeightSpace:
    return build_architecture("mlp", {"hidden": [4]}, (3,), 2).space


TOO_LARGE = {
    "width": ({"name": "resnet", "width": 1e9}, "is not that of architecture|cannot be built"),
    "channels": (
        {"name": "resnet", "channels": [10**9, 10**9, 10**9]},
        "is not that of architecture|cannot be built",
    ),
    "infinite width": (
        {"name": "resnet", "width": 1e308},
        "is not that of architecture|cannot be built",
    ),
    "depth": (
        {"name": "resnet", "depth": 6 * 10**8 + 2},
        "'depth': 600000002 is more than the 4 tensors",
    ),
    "layers": ({"name": "gin", "layers": 10**9}, "'layers': 1000000000 is more than the 4 tensors"),
    "list": ({"name": "mlp", "hidden": [1] * 10**5}, "'hidden': 100000 is more than the 4 tensors"),
    "graph": ({"name": "gin"}, "a graph of 1000000 nodes; expected at most 4096"),
    "no name": ({}, "unknown architecture 'None'"),
    "name of another type": ({"name": ["mlp"]}, "unknown architecture"),
    "unknown": ({"name": "os.system"}, "unknown architecture 'os.system'; known are"),
    "unknown option": ({"name": "mlp", "path": "/etc/passwd"}, "unknown option 'path'"),
    "division by zero": ({"name": "transformer", "heads": 0}, "cannot be built"),
    "another width": ({"name": "mlp", "hidden": [5]}, "is not that of architecture"),
}


def described(architecture: dict, input_shape: tuple[int, ...]) -> dict:
    return {"architecture": architecture, "input_shape": input_shape, "num_classes": 2}


@pytest.mark.parametrize(("architecture", "part"), TOO_LARGE.values(), ids=TOO_LARGE)
def test_architectures_larger_than_their_space_cost_nothing(architecture, part):
    tracemalloc.start()
    with pytest.raises(StoreError, match=part):
        rebuild(described(architecture, (1, 1000, 1000)), mlp_space(), {})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10**8


def test_an_architecture_is_built_without_memory_before_it_is_built(monkeypatch):
    """Statistics of a batch norm are allocated when a resnet is built, whatever the stored space
    says.
    """
    ones = torch.ones
    sizes = []
    monkeypatch.setattr(
        torch, "ones", lambda *a, **k: (sizes.append(ones(0).device.type), ones(*a, **k))[1]
    )
    with pytest.raises(StoreError, match="is not that of architecture"):
        rebuild(described({"name": "resnet", "channels": [3, 3, 3]}, (1, 8, 8)), mlp_space(), {})
    assert set(sizes) == {"meta"}


def test_groups_that_are_no_axis_are_refused():
    space = WeightSpace({"x": NeuronGroup(3), "z": NeuronGroup(10**15)}, {"w": "x"})
    with pytest.raises(ValueError, match="'z' is no axis"):
        checked_space(json.loads(space.to_json()))


# what the files hold


def replace(folder: Path, change, population: str = "standard") -> None:
    """Write a shard anew and tell the manifest."""
    from tests.stored import read_columns

    columns = read_columns([folder / SHARD])
    change(columns)
    write_columns(folder / SHARD, columns, {}, equal_rows=False)
    path = folder / SHARD
    edit(
        folder,
        lambda d: standard(d)["shards"][SHARD].update(
            bytes=path.stat().st_size, sha256=sha256(path)
        ),
    )


SCHEMA = {
    "no column": (lambda c: c.pop("lr"), "no column 'lr'"),
    "type": (
        lambda c: c.update(lr=c["lr"] > 0),
        "'lr': expected shape .4. float64, found .4. bool",
    ),
    "float32 metric": (
        lambda c: c.update(test_loss=c["test_loss"].astype("f4")),
        "'test_loss': expected shape .4. float64",
    ),
    "shape": (
        lambda c: c.update(lr=np.zeros((4, 2))),
        r"'lr': expected shape \[4\] .* found \[4, 2\] float64",
    ),
    "rows": (
        lambda c: c.update(lr=np.zeros(5)),
        r"'lr': expected shape \[4\] .* found \[5\] float64",
    ),
    "unknown column": (
        lambda c: c.update(other=np.zeros(4)),
        "column 'other' is none of the format",
    ),
    "gap": (
        lambda c: c.update(network_id=np.array([0, 1, 3, 4])),
        "'network_id': expected 0 to 3 in order",
    ),
    "repeat": (
        lambda c: c.update(network_id=np.array([0, 1, 1, 3])),
        "'network_id': expected 0 to 3 in order",
    ),
    "double params": (
        lambda c: c.update({"layers.0.bias": np.zeros((4, 4))}),
        "'layers.0.bias': expected shape .4, 4. float32",
    ),
}


@pytest.mark.parametrize(("change", "part"), SCHEMA.values(), ids=SCHEMA)
@pytest.mark.parametrize(
    "read", [lambda p: p.params("train"), lambda p: p.table("train"), lambda p: p.flat("train")]
)
def test_shards_of_another_schema_are_refused_by_whatever_reads_them(folder, change, part, read):
    replace(folder, change)
    with pytest.raises(StoreError, match=part):
        read(zoo.load(folder)["standard"])


def constants(folder: Path, columns) -> None:
    path = folder / "constants" / "standard.h5"
    write_columns(path, columns, {}, equal_rows=False)
    entry = {"rows": len(columns), "bytes": path.stat().st_size, "sha256": sha256(path)}
    edit(folder, lambda d: standard(d).update(constants=entry))


@pytest.mark.parametrize(
    "columns",
    [
        {"free.layers.0.bias": np.ones(3, bool), "fixed.layers.0.bias": np.zeros(3, np.float32)},
        {
            "free.layers.0.bias": np.ones(4, np.uint8),
            "fixed.layers.0.bias": np.zeros(4, np.float32),
        },
        {"free.layers.0.bias": np.ones(4, bool)},
        {"free.other": np.ones(4, bool), "fixed.other": np.zeros(4, np.float32)},
        {"mixing.h1": np.zeros((4, 3), np.float32)},
        {"mixing.other": np.zeros((4, 4), np.float32)},
        {"evil.h1": np.zeros((4, 4), np.float32)},
    ],
)
def test_constants_that_do_not_fit_are_refused(folder, columns):
    constants(folder, columns)
    with pytest.raises(
        StoreError, match=r"constants/standard.h5: .*(is no constant|must be of the same tensors)"
    ):
        zoo.load(folder)["standard"].params("train", view="free")


def test_constants_that_fit_are_read(folder):
    constants(
        folder,
        {"free.layers.0.bias": np.arange(4) > 1, "fixed.layers.0.bias": np.zeros(4, np.float32)},
    )
    assert zoo.load(folder)["standard"].params("train", view="free")["layers.0.bias"].shape == (
        4,
        2,
    )


def test_texts_are_escaped():
    assert escape("a\x1b[2J\n\u202eb") == r"a\x1b[2J\n\u202eb"
    assert escape("ä∇") == "ä∇"


def test_the_files_of_a_population_are_in_the_order_of_their_networks(folder):
    manifest = Manifest.model_validate_json((folder / "zoo.json").read_bytes())
    assert [(file.split, file.first, file.entry.rows) for file in manifest.files("standard")] == [
        ("train", 0, 4),
        ("validation", 4, 2),
        ("test", 6, 2),
    ]
