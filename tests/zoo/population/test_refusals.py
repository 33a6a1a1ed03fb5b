"""Names that are not there, and files that are missing or damaged."""

import re

import pytest

import zoo
from zoo.store.mapped import StoreError


def test_an_unknown_population_is_named_with_those_there_are(directory):
    with pytest.raises(
        KeyError,
        match=r"no population 'syre' in .*; "
        r"populations are \['standard', 'w_asymmetric', 'small_cnn'",
    ):
        zoo.load(directory)["syre"]


def test_populations_are_chosen_by_name(directory):
    opened = zoo.load(directory)
    assert list(opened.choose(None)) == list(opened)
    assert list(opened.choose(["w_asymmetric", "standard"])) == ["w_asymmetric", "standard"]
    with pytest.raises(ValueError, match=r"no populations \['syre'\] in .*; populations are \['st"):
        opened.choose(["standard", "syre"])


@pytest.mark.parametrize("read", ["params", "table", "trajectory"])
def test_an_unknown_split_is_named_with_those_there_are(directory, read):
    with pytest.raises(
        ValueError,
        match=r"population 'standard': no split 'dev'; "
        r"splits are \['train', 'validation', 'test'\]",
    ):
        getattr(zoo.load(directory)["standard"], read)("dev")


def test_an_unknown_view_is_refused(directory, unchecked):
    population = zoo.load(directory)["standard"]
    message = "view: expected one of ['full', 'free'], found 'frozen'"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        population.params("train", view="frozen")


SHARD = "standard/train-00001-of-00002.h5"


@pytest.mark.parametrize(
    "read", [lambda p: p.params("train"), lambda p: p.table("train")], ids=["params", "table"]
)
def test_a_missing_or_truncated_shard_is_named_with_the_bytes_expected_and_found(copy, read):
    path = copy / SHARD
    size = path.stat().st_size
    for damage, size_told in (
        (lambda: path.write_bytes(path.read_bytes()[:100]), "100 bytes"),
        (path.unlink, "missing"),
    ):
        damage()
        with pytest.raises(StoreError) as error:
            read(zoo.load(copy)["standard"])
        assert str(error.value).startswith(
            f"{path}: expected {size} bytes, found {size_told}; run symzoo repair on the zoo"
        )
    assert len(zoo.load(copy)["standard"].params("test")) > 0  # other splits stay readable
    assert len(zoo.load(copy)["w_asymmetric"].params("train")) > 0


def test_a_damaged_file_of_constants_or_trajectory_is_named(copy):
    for file, read in (
        ("constants/w_asymmetric.h5", lambda p: p.params("train", view="free")),
        ("w_asymmetric.trajectory/train-00000-of-00002.h5", lambda p: p.trajectory("train")),
    ):
        (copy / file).write_bytes(b"")
        with pytest.raises(
            StoreError, match=rf"{re.escape(str(copy / file))}: expected \d+ bytes, found 0 bytes"
        ):
            read(zoo.load(copy)["w_asymmetric"])


def test_a_shard_of_the_right_length_with_the_wrong_content_is_refused(copy):
    path = copy / SHARD
    path.write_bytes(b"\0" * path.stat().st_size)
    with pytest.raises(StoreError, match=f"{re.escape(SHARD)}: no map at its start"):
        zoo.load(copy)["standard"].params("train")


def test_a_folder_that_is_missing_or_not_complete_is_refused(copy, tmp_path):
    with pytest.raises(StoreError, match="nowhere: no such folder"):
        zoo.load(tmp_path / "nowhere")
    (copy / "zoo.json").unlink()
    with pytest.raises(
        StoreError, match=r"not a complete zoo, zoo.json is missing; generate-zoo writes it last"
    ):
        zoo.load(copy)
