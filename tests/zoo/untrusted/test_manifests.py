"""What a manifest declares is bounded before it costs anything."""

import pytest

import zoo
from tests.zoo.untrusted.edits import SHARD, edit, standard
from zoo.store.bounds import MAX_JSON, MAX_VALUES
from zoo.store.manifest import Manifest
from zoo.store.mapped import StoreError, escape


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
        "expected integers of 64 bits",
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
    "size of a group of no axis": (
        lambda d: standard(d)["space"]["groups"]["h1"].update(size=2**63),
        "a manifest holds 9223372036854775808; expected integers of 64 bits",
    ),
    "option of an architecture": (
        lambda d: standard(d)["architecture"].update(hidden=[-(10**40)]),
        "a manifest holds -1000.*; expected integers of 64 bits",
    ),
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


def test_a_number_that_json_has_and_floats_have_not_is_refused(folder):
    text = (folder / "zoo.json").read_text()
    (folder / "zoo.json").write_text(text.replace('"version"', '"other": -1e999, "version"', 1))
    with pytest.raises(StoreError, match="a manifest holds a number that is not finite"):
        zoo.load(folder)
