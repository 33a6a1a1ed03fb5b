"""What the manifest says of the files; one that was edited is refused."""

import hashlib

import pytest

import zoo
from tests.stored import read_columns
from tests.zoo.population.job import POPULATIONS, edit_manifest
from zoo.store.mapped import StoreError


def test_the_manifest_has_length_rows_and_hash_of_every_file(directory):
    manifest = zoo.load(directory).manifest
    entries = {}
    for name, population in manifest.populations.items():
        entries |= population.shards | population.trajectory
        if population.constants is not None:
            entries[f"constants/{name}.h5"] = population.constants
    assert set(entries) == {str(path.relative_to(directory)) for path in directory.rglob("*.h5")}
    for path, entry in entries.items():
        content = (directory / path).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (entry.bytes, entry.sha256)
        if not path.startswith("constants/"):
            assert entry.rows == len(read_columns([directory / path], ["network_id"])["network_id"])


def test_the_fingerprint_is_of_the_content(directory, copy):
    prints = [population.fingerprint for population in zoo.load(directory).values()]
    assert len(set(prints)) == len(POPULATIONS)
    assert [population.fingerprint for population in zoo.load(copy).values()] == prints
    shard = "standard/test-00000-of-00001.h5"
    edit_manifest(
        copy, lambda data: data["populations"]["standard"]["shards"][shard].update(sha256="0" * 64)
    )
    changed = [population.fingerprint for population in zoo.load(copy).values()]
    assert [new == old for new, old in zip(changed, prints, strict=True)] == [
        False,
        True,
        True,
        True,
    ]


@pytest.mark.parametrize(
    "name",
    [
        "/etc/passwd",
        "../other/train-00000-of-00001.h5",
        "standard/../../a.h5",
        "standard/a.txt",
        "",
    ],
)
@pytest.mark.parametrize("kind", ["shards", "trajectory"])
def test_a_manifest_cannot_lead_out_of_the_folder(copy, kind, name):
    def redirect(data):
        files = data["populations"]["standard"][kind]
        files[name] = files.pop(next(iter(files)))

    edit_manifest(copy, redirect)
    with pytest.raises(StoreError, match="is not the name of a shard") as error:
        zoo.load(copy)
    assert str(error.value).startswith(f"{copy / 'zoo.json'}: populations.standard.{kind}: ")
    assert repr(name) in str(error.value)


@pytest.mark.parametrize("name", ["../standard", "/standard", "Standard", "a.b", ""])
def test_a_population_cannot_lead_out_of_the_folder_by_its_name(copy, name):
    edit_manifest(
        copy, lambda data: data["populations"].update({name: data["populations"].pop("standard")})
    )
    with pytest.raises(StoreError, match="up to 100 lower-case letters, digits and '_'"):
        zoo.load(copy)


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (
            lambda d: d.update(version=3),
            "written by a newer symzoo (format 3; this one reads 2): upgrade symzoo",
        ),
        (lambda d: d.update(format="other"), "format: Input should be 'symzoo', found 'other'"),
        (lambda d: d.pop("columns"), "columns: Field required"),
        (lambda d: d["task"].pop("kind"), "task.kind: Field required"),
        (lambda d: d.update(extra=1), "extra: Extra inputs are not permitted, found 1"),
        (
            lambda d: d["populations"]["standard"].pop("space"),
            "populations.standard.space: Field required",
        ),
        (
            lambda d: d["populations"]["standard"]["splittings"]["default"]["sizes"].update(dev=3),
            "populations.standard.splittings.default.sizes: ",
        ),
    ],
)
def test_an_edited_manifest_names_the_key(copy, change, part):
    edit_manifest(copy, change)
    with pytest.raises(StoreError) as error:
        zoo.load(copy)
    assert str(error.value).startswith(f"{copy / 'zoo.json'}: ")
    assert part in str(error.value)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff"])
def test_a_manifest_that_is_not_json_is_refused(copy, content):
    (copy / "zoo.json").write_bytes(content)
    with pytest.raises(StoreError, match=r"zoo\.json: "):
        zoo.load(copy)


def test_a_manifest_whose_space_is_not_that_of_its_architecture_is_refused(copy):
    def wider(data):
        data["populations"]["standard"]["architecture"]["hidden"] = [9]

    edit_manifest(copy, wider)
    with pytest.raises(
        StoreError,
        match=r"the stored weight space is not that of architecture "
        r"{'name': 'mlp', 'hidden': \[9\]}",
    ):
        _ = zoo.load(copy)["standard"].architecture


def test_a_shard_that_does_not_fit_its_space_is_refused(copy):
    def wider(data):
        data["populations"]["standard"]["space"]["groups"]["h1"]["size"] = 9

    edit_manifest(copy, wider)
    with pytest.raises(
        StoreError,
        match=r"'layers.0.weight': expected shape \[3, 9, 64\] float32, found \[3, 8, 64\] float32",
    ):
        zoo.load(copy)["standard"].params("train")
