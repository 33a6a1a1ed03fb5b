"""Shards.

What comes back is what was written, a file exists whole or not at all, and a hostile file is
refused unread.
"""

import errno
import os
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.disks import small_disk
from tests.reference import store_reader
from tests.stored import read_attributes, read_columns, read_tensors
from zoo.store.atomic import publish, sha256, write_text
from zoo.store.hdf5 import write_columns
from zoo.store.mapped import StoreError, open_mapped

DTYPES = ["<f4", "<f8", "<i4", "<i8", "|u1", "|b1"]
COLUMNS = {
    "weight": np.arange(24, dtype=np.float32).reshape(4, 3, 2),
    "lr": np.array([0.1, np.nan, -np.inf, 1e-300]),
    "network_id": np.arange(4),
    "steps": np.arange(4, dtype=np.int32),
    "pixels": np.arange(8, dtype=np.uint8).reshape(4, 2),
    "diverged": np.array([True, False, False, True]),
    "optimizer": np.array(["sgd", "", "ädam ∇", "a" * 300]),
}


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "population" / "train-00000-of-00001.h5"


def assert_same(stored, expected) -> None:
    assert list(stored) == list(expected)
    for name, array in expected.items():
        if array.dtype.kind in "OU":
            assert stored[name].tolist() == array.tolist()
        else:
            assert stored[name].dtype == array.dtype
            np.testing.assert_array_equal(stored[name], array)


# round trips


def test_all_kinds_of_columns_come_back_in_order(path):
    write_columns(path, COLUMNS, {})
    assert_same(read_columns([path]), COLUMNS)


@given(st.data(), st.sampled_from(DTYPES), hnp.array_shapes(min_dims=1, max_dims=6, max_side=3))
def test_any_array_comes_back_bit_by_bit(tmp_path_factory, data, dtype, shape):
    array = data.draw(hnp.arrays(dtype, shape))
    path = tmp_path_factory.mktemp("any") / "a.h5"
    write_columns(path, {"column": array}, {})
    back = read_columns([path])["column"]
    assert (back.dtype, back.shape, back.tobytes()) == (array.dtype, array.shape, array.tobytes())


@given(
    st.lists(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
        min_size=1,
        max_size=5,
    )
)
def test_any_text_comes_back(tmp_path_factory, texts):
    path = tmp_path_factory.mktemp("text") / "a.h5"
    write_columns(path, {"text": np.array(texts, dtype=object)}, {})
    assert read_columns([path])["text"].tolist() == texts


@pytest.mark.parametrize(
    "array", [np.arange(6, dtype=">f4"), np.arange(12.0)[::2], np.asfortranarray(np.eye(3))]
)
def test_arrays_of_other_layouts_are_stored_in_the_one_layout(path, array):
    write_columns(path, {"column": array}, {})
    back = read_columns([path])["column"]
    np.testing.assert_array_equal(back, array)
    assert back.dtype == array.dtype.newbyteorder("<")
    assert back.flags.c_contiguous


def test_rows_of_files_follow_each_other(tmp_path):
    paths = [tmp_path / "a.h5", tmp_path / "b.h5"]
    for start, path in zip((0, 2), paths, strict=True):
        write_columns(path, {name: array[start : start + 2] for name, array in COLUMNS.items()}, {})
    assert_same(read_columns(paths), COLUMNS)
    assert_same(
        read_columns(paths, ["steps", "lr"]), {"steps": COLUMNS["steps"], "lr": COLUMNS["lr"]}
    )
    tensors = read_tensors(paths, {"weight": (3, 2)})
    assert torch.equal(tensors["weight"], torch.from_numpy(COLUMNS["weight"]))


def test_columns_of_unequal_length_where_they_are_allowed(path):
    columns = {"mask": np.array([[True, False]]), "fixed": np.arange(3.0)}
    write_columns(path, columns, {}, equal_rows=False)
    assert_same(read_columns([path]), columns)


def test_attributes_come_back(path):
    write_columns(path, COLUMNS, {"population": "standard", "shard": 3})
    assert read_attributes(path) == {"population": "standard", "shard": 3}


def test_the_same_content_is_the_same_bytes(tmp_path):
    for name in ("a.h5", "b.h5"):
        write_columns(tmp_path / name, COLUMNS, {"population": "standard", "shard": 3})
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()
    assert sha256(tmp_path / "a.h5") == sha256(tmp_path / "b.h5")
    write_columns(tmp_path / "c.h5", COLUMNS, {"population": "standard", "shard": 4})
    assert sha256(tmp_path / "c.h5") != sha256(tmp_path / "a.h5")


def test_sha256_of_a_known_text(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    assert (
        sha256(tmp_path / "abc")
        == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )


def test_the_layout_is_one_contiguous_dataset_for_each_column_at_the_root(path):
    write_columns(path, COLUMNS, {})
    with h5py.File(path) as file:
        assert list(file) == list(COLUMNS)  # in the order in which they were written
        for name in file:
            properties = file[name].id.get_create_plist()
            assert properties.get_layout() == h5py.h5d.CONTIGUOUS
            assert properties.get_nfilters() == 0
            assert (
                not properties.get_obj_track_times()
            )  # a time would make the bytes of equal shards differ


# what is not written


@pytest.mark.parametrize(
    ("columns", "part"),
    [
        ({}, "at least one, got {}"),
        (
            {"a": np.zeros(3), "b": np.zeros(4)},
            "equally many rows, at least one, got {'a': 3, 'b': 4}",
        ),
        ({"a": np.zeros(0)}, "got {'a': 0}"),
        ({"a": np.zeros((0, 3), dtype=np.float32)}, "got {'a': 0}"),
        ({"a": np.array(1.0)}, "got {'a': 0}"),
        ({"a": np.zeros(3, dtype=np.float16)}, "column 'a': expected dtype in"),
        ({"a": np.zeros(3, dtype=np.complex64)}, "column 'a': expected dtype in"),
        ({"a": np.zeros(3, dtype=np.uint16)}, "got uint16, 1"),
        ({"a": np.zeros((1,) * 7)}, "rank <= 6, got float64, 7"),
        ({"a/b": np.zeros(3)}, "column 'a/b': expected a name without '/'"),
        ({"": np.zeros(3)}, "column '': expected a name of 1 to 255 bytes of printable characters"),
        ({"a\nb": np.zeros(3)}, "column 'a\\nb': expected a name of 1 to 255 bytes"),
        ({"a\ud800": np.zeros(3)}, "column 'a\\ud800': expected a name of 1 to 255 bytes"),
        ({"a" * 256: np.zeros(3)}, "expected a name of 1 to 255 bytes"),
    ],
)
def test_columns_that_the_format_cannot_hold_leave_no_file(path, columns, part):
    with pytest.raises(ValueError) as error:
        write_columns(path, columns, {})
    assert part in str(error.value)
    assert not path.parent.exists() or not list(path.parent.iterdir())


def test_unequal_rows_are_refused_only_where_rows_matter_but_empty_columns_always(path):
    with pytest.raises(ValueError, match="at least one"):
        write_columns(path, {"a": np.zeros(0), "b": np.zeros(3)}, {}, equal_rows=False)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("broken"), MemoryError()])
@pytest.mark.parametrize("existed", [False, True])
def test_an_exception_in_the_middle_leaves_what_was_there(path, monkeypatch, error, existed):
    if existed:
        write_columns(path, {"old": np.zeros(3)}, {})
    before = {file.name: file.read_bytes() for file in path.parent.iterdir()} if existed else {}
    create = h5py.File.create_dataset

    def fail_at_the_third(self, name, *args, **kwargs):
        if len(self) == 2:
            raise error
        return create(self, name, *args, **kwargs)

    monkeypatch.setattr(h5py.File, "create_dataset", fail_at_the_third)
    with pytest.raises(type(error)):
        write_columns(path, COLUMNS, {})
    assert {file.name: file.read_bytes() for file in path.parent.iterdir()} == before


def test_a_disk_that_fills_up_is_named_and_leaves_no_file(path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "Can't write data (errno = 28)")

    monkeypatch.setattr(h5py.File, "create_dataset", full)
    with pytest.raises(
        OSError,
        match=r"no space left on the disk for .*train-00000-of-00001.h5; free some and run again",
    ) as error:
        write_columns(path, COLUMNS, {})
    assert error.value.errno == errno.ENOSPC
    assert not list(path.parent.iterdir())


def test_a_disk_that_fills_up_under_text_does_not_crash_the_process(tmp_path):
    """As it did while HDF5 itself wrote to the disk."""
    with small_disk(tmp_path / "disk", 64 * 1024) as disk:
        with pytest.raises(
            OSError, match=r"no space left on the disk for .*; free some and run again"
        ) as error:
            write_columns(disk / "a.h5", {"column": np.array(["x" * 100] * 2000, dtype=object)}, {})
        assert error.value.errno == errno.ENOSPC
        assert not list(disk.iterdir())


def test_other_failures_of_the_disk_keep_their_message(path, monkeypatch):
    def broken(*args, **kwargs):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(h5py.File, "create_dataset", broken)
    with pytest.raises(OSError, match="Input/output error"):
        write_columns(path, COLUMNS, {})


def test_the_file_is_on_disk_before_it_has_its_name_and_the_folder_after(path, monkeypatch):
    events = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(
        os,
        "fsync",
        lambda fd: (
            events.append("folder" if Path(f"/dev/fd/{fd}").is_dir() else "file"),
            fsync(fd),
        ),
    )
    monkeypatch.setattr(
        Path, "replace", lambda self, target: (events.append("rename"), replace(self, target))[1]
    )
    write_columns(path, COLUMNS, {})
    assert events == ["file", "rename", "folder"]


def test_publish_replaces_the_old_file(tmp_path):
    (tmp_path / "new.tmp").write_text("new")
    (tmp_path / "name").write_text("old")
    publish(tmp_path / "new.tmp", tmp_path / "name")
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("name", "new")]


def test_text_files_are_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "folder" / "zoo.json"
    write_text(path, "ä\n")
    assert path.read_bytes() == "ä\n".encode()
    monkeypatch.setattr(
        "zoo.store.atomic.publish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt())
    )
    with pytest.raises(KeyboardInterrupt):
        write_text(path, "other")
    assert [file.name for file in path.parent.iterdir()] == ["zoo.json"]
    assert path.read_bytes() == "ä\n".encode()


# damaged files (hostile ones: untrusted/)


@pytest.mark.parametrize("keep", [0, 1, 100, -1, -40])
def test_a_truncated_file_is_refused(path, keep):
    write_columns(path, COLUMNS, {})
    content = path.read_bytes()
    path.write_bytes(content[:keep])
    with pytest.raises(
        StoreError,
        match=r"-of-00001.h5: (empty|no map at its start|not a complete file|a map of)",
    ):
        read_columns([path])


def test_a_missing_file_and_a_file_of_another_kind_are_refused(tmp_path):
    with pytest.raises(StoreError, match=r"none.h5: the file is missing"):
        read_columns([tmp_path / "none.h5"])
    (tmp_path / "text.h5").write_text("not HDF5")
    with pytest.raises(StoreError, match=r"text.h5: no map at its start"):
        read_columns([tmp_path / "text.h5"])


def test_what_cannot_be_read_again_does_not_get_its_name(path, monkeypatch):
    h5py_file = h5py.File
    monkeypatch.setattr(
        h5py, "File", lambda name, mode, **_: h5py_file(name, mode)
    )  # as a libhdf5 with other defaults would
    with pytest.raises(
        StoreError, match=r"columns that are not those|not in the file|overlaps|no map|HDF5 starts"
    ):
        write_columns(path, COLUMNS, {})
    assert not list(path.parent.iterdir())


@pytest.mark.parametrize("count", [1, 7, 8, 9, 60, 700])
def test_files_of_any_number_of_columns_are_read_as_h5py_reads_them(path, count):
    """Up to 8 links are in the header of the root group, more are in a heap, whose indices get
    deeper.
    """
    names = [f"layers.{i * 11 % count}.{'x' * (i % 50)}" for i in range(count)]
    write_columns(
        path,
        {name: np.full((2, i % 3 + 1), i, np.float32) for i, name in enumerate(names)},
        {"split": "train"},
    )
    checked = open_mapped(path)
    with h5py.File(path) as file:
        assert list(file) == list(checked.columns) == names
        assert dict(file.attrs) == {"format_version": 2, **checked.map.attributes}
        for name, column in checked.columns.items():
            assert (file[name].shape, file[name].id.get_offset()) == (column.shape, column.offset)
            np.testing.assert_array_equal(file[name][()], checked.array(name))


@pytest.mark.parametrize("values", [["a", "b\0c"], ["a", 3], ["a", None], ["a", b"b"]])
def test_what_is_no_text_is_not_written_as_one(path, values):
    with pytest.raises(ValueError, match="column 'word': expected text without zero characters"):
        write_columns(path, {"word": np.array(values, dtype=object)}, {})
    assert not path.exists()


@pytest.mark.parametrize("more", [0, 3, 200])
def test_a_reader_written_from_the_document_reads_the_same(path, more):
    columns = COLUMNS | {f"tensor.{i}": np.full((4, 2), i, np.float32) for i in range(more)}
    write_columns(path, columns, {"population": "standard", "shard": -3})
    stored, attributes = store_reader.read(path)
    assert_same(read_columns([path]), stored | {"diverged": stored["diverged"].astype(bool)})
    assert attributes == read_attributes(path)


# columns that are not what the reader was promised


@pytest.mark.parametrize(
    ("shapes", "part"),
    [
        (
            {"bias": (3,)},
            "no column 'bias'; columns are ['weight', 'lr', 'network_id', 'steps', 'pixels', "
            "'diverged', 'optimizer']",
        ),
        ({"weight": (2, 3)}, "'weight': expected shape [4, 2, 3] float32, found [4, 3, 2] float32"),
        ({"weight": ()}, "'weight': expected shape [4] float32, found [4, 3, 2] float32"),
        ({"lr": ()}, "'lr': expected shape [4] float32, found [4] float64"),
        ({"weight": (3, 2), "steps": ()}, "'steps': expected shape [4] float32, found [4] int32"),
        ({"optimizer": ()}, "'optimizer': expected shape [4] float32, found [4] text"),
    ],
)
def test_tensors_of_another_name_shape_or_dtype_are_refused(path, shapes, part):
    write_columns(path, COLUMNS, {})
    with pytest.raises(StoreError) as error:
        read_tensors([path], shapes)
    assert str(error.value) == f"{path}: {part}"


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_tensors_with_other_numbers_of_rows_than_the_first_are_refused(path, rows):
    write_columns(
        path,
        {"a": np.zeros((3, 2), np.float32), "b": np.zeros((rows, 2), np.float32)},
        {},
        equal_rows=False,
    )
    with pytest.raises(
        StoreError, match=rf"'b': expected shape \[3, 2\] float32, found \[{rows}, 2\] float32"
    ):
        read_tensors([path], {"a": (2,), "b": (2,)})


def test_a_missing_column_is_named_with_those_there_are(path):
    write_columns(path, {"a": np.zeros(3), "b": np.zeros(3)}, {})
    with pytest.raises(StoreError, match=r"no column 'c'; columns are \['a', 'b'\]"):
        read_columns([path], ["a", "c"])


def test_want_of_address_space_is_not_blamed_on_the_file(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    path = tmp_path / "file.h5"
    write_columns(path, {"a": np.arange(3)}, {})
    monkeypatch.setattr("mmap.mmap", refuse)
    with pytest.raises(OSError, match=r"Cannot allocate memory, to map \d+ bytes .*file\.h5"):
        open_mapped(path)
