"""A file that becomes shorter while its map is in memory is an error, not zeros and no crash."""

import os

import numpy as np
import pytest

from zoo.store.columns import read_columns, read_flat, read_tensors
from zoo.store.hdf5 import write_columns
from zoo.store.mapped import MappedFile, StoreError, open_mapped

COLUMNS = {
    "weight": np.arange(1, 25, dtype=np.float32).reshape(4, 3, 2),
    "lr": np.array([0.1, np.nan, -np.inf, 1e-300]),
    "diverged": np.array([True, False, False, True]),
    "optimizer": np.array(["sgd", "", "ädam ∇", "a" * 300]),
}
READS = {
    "tensors": lambda file: read_tensors([file], {"weight": (3, 2)}),
    "one tensor": lambda file: read_flat([file], {"weight": (3, 2)}),
    "numbers": lambda file: file.array("lr"),
    "booleans": lambda file: file.array("diverged"),
    "text": lambda file: file.array("optimizer"),
    "table": lambda file: read_columns([file], ["lr", "optimizer"]),
}


@pytest.fixture
def checked(tmp_path) -> MappedFile:
    write_columns(tmp_path / "train-00000-of-00001.h5", COLUMNS, {})
    return open_mapped(tmp_path / "train-00000-of-00001.h5")


def cut(file: MappedFile, lost: int) -> None:
    os.truncate(file.path, len(file.data) - lost)


@pytest.mark.parametrize("lost", [1, None], ids=["one byte", "all bytes"])
@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_a_file_that_was_cut_since_it_was_checked_is_refused(checked, read, lost):
    cut(checked, lost or len(checked.data))
    with pytest.raises(StoreError, match=r"-of-00001.h5: the file was cut while it was read"):
        read(checked)


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_a_file_that_loses_a_byte_while_it_is_copied_is_refused(checked, read, monkeypatch):
    view = MappedFile.view

    def cut_afterwards(file, name):
        stored = view(file, name)
        cut(file, 1)
        return stored

    monkeypatch.setattr(MappedFile, "view", cut_afterwards)
    with pytest.raises(StoreError, match=r"-of-00001.h5: the file was cut while it was read"):
        read(checked)


def test_a_file_that_gets_a_new_one_under_its_name_stays_what_it_was(checked):
    checked.path.rename(checked.path.with_name("old.h5"))
    write_columns(checked.path, {"weight": COLUMNS["weight"] + 1}, {})
    np.testing.assert_array_equal(checked.array("weight"), COLUMNS["weight"])
