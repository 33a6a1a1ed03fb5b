"""Files of strangers: every construction of HDF5 that leads out of a file, or makes it large, is refused unread."""

import errno
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from zoo.hdf5_blocks import checksum
from zoo.store.columns import (
    read_attributes,
    read_columns,
    read_tensors,
    write_columns,
)
from zoo.store.mapped import Checked, StoreError, open_checked

COLUMN = np.arange(3.0)


def low_level(
    file: h5py.File,
    shape: tuple[int, ...],
    layout: int | None = None,
    late: bool = False,
    fill: float | None = None,
):
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_obj_track_times(False)
    if layout is not None:
        properties.set_layout(layout)
    if late:
        properties.set_alloc_time(h5py.h5d.ALLOC_TIME_LATE)
    if fill is not None:
        properties.set_fill_value(np.array(fill, "<f4"))
    return h5py.h5d.create(
        file.id, b"column", h5py.h5t.IEEE_F32LE, h5py.h5s.create_simple(shape), properties
    )


def external_link(file, folder):
    with h5py.File(folder / "secret.h5", "w") as other:
        other["column"] = COLUMN
    file["column"] = h5py.ExternalLink(str(folder / "secret.h5"), "/column")


def external_storage(file, folder):
    (folder / "secret").write_bytes(b"x" * 80)
    file.create_dataset(
        "column", (10,), "<f8", external=[(str(folder / "secret"), 0, 80)], track_times=False
    )


def virtual_dataset(file, folder):
    with h5py.File(folder / "secret.h5", "w") as other:
        other["column"] = COLUMN
    layout = h5py.VirtualLayout((3,), "<f8")
    layout[:] = h5py.VirtualSource(str(folder / "secret.h5"), "column", (3,))
    file.create_virtual_dataset("column", layout)


def committed_type(file, folder):
    file["type"] = np.dtype("<f4")
    file.create_dataset("column", data=COLUMN, dtype=file["type"], track_times=False)


def named_type(file, folder):
    file["column"] = np.dtype("<f4")


def many_names_of_one_column(file, folder):
    file.create_dataset("column", data=COLUMN, track_times=False)
    for i in range(50):
        file[f"alias{i}"] = h5py.h5o.open(file.id, b"column") and file["column"]


def cycle(file, folder):
    file["column"] = file["/"]


def plain(**options) -> Callable:
    return lambda file, _: file.create_dataset("column", track_times=False, **options)


def attribute(value) -> Callable:
    return lambda file, _: file.attrs.__setitem__("column", value)


MAKERS = {
    "soft link": (
        lambda f, _: f.__setitem__("column", h5py.SoftLink("/innocent")),
        "a soft or external link",
    ),
    "external link": (external_link, "a soft or external link"),
    "external storage": (
        external_storage,
        "'column' must be contiguous, without filters, attributes and times, inside the file",
    ),
    "virtual": (virtual_dataset, "'column' has another kind of header"),
    "compact": (lambda f, _: low_level(f, (3,), h5py.h5d.COMPACT), "'column' must be contiguous"),
    "chunked": (plain(data=COLUMN, chunks=(3,)), "'column' must be contiguous"),
    "compressed": (plain(data=COLUMN, compression=9), "'column' must be contiguous"),
    "checksummed": (plain(data=COLUMN, fletcher32=True), "'column' must be contiguous"),
    "scale-offset": (plain(data=np.arange(9), scaleoffset=4), "'column' must be contiguous"),
    "times": (
        lambda f, _: f.create_dataset("column", data=COLUMN, track_times=True),
        "'column' has another kind of header",
    ),
    "group": (
        lambda f, _: f.create_group("column"),
        "'column' is a group or a named type; expected datasets at the root",
    ),
    "cycle of groups": (cycle, "the root group has a message of kind 22"),
    "many names of one column": (many_names_of_one_column, "'column' must be contiguous"),
    "named type": (named_type, "'column' has another kind of header"),
    "committed type": (committed_type, "has another kind of header"),
    "float16": (plain(data=np.zeros(3, "<f2")), "'column' has type float"),
    "big-endian": (plain(data=np.zeros(3, ">f4")), "'column' has type float"),
    "uint64": (plain(data=np.zeros(3, "<u8")), "'column' has type integer"),
    "references": (plain(shape=(3,), dtype=h5py.ref_dtype), "'column' has type reference"),
    "region references": (
        plain(shape=(3,), dtype=h5py.regionref_dtype),
        "'column' has type reference",
    ),
    "ragged": (
        plain(shape=(3,), dtype=h5py.vlen_dtype("<i4")),
        "'column' has type variable-length",
    ),
    "opaque": (plain(data=np.zeros(3, "V4")), "'column' has type opaque"),
    "compound": (plain(data=np.zeros(3, [("a", "<f4")])), "'column' has type compound"),
    "array": (plain(shape=(3,), dtype=np.dtype(("<f4", (2,)))), "'column' has type array"),
    "fixed-length text": (plain(data=np.zeros(3, "S8")), "'column' has type fixed-length"),
    "ascii text": (
        plain(data=["a"] * 3, dtype=h5py.string_dtype("ascii")),
        "'column' has type variable-length",
    ),
    "other enumeration": (
        plain(data=[0, 1], dtype=h5py.enum_dtype({"NO": 0, "YES": 1}, "i1")),
        "'column' has type enum",
    ),
    "swapped booleans": (
        plain(data=[0, 1], dtype=h5py.enum_dtype({"TRUE": 0, "FALSE": 1}, "i1")),
        "'column' has type enum",
    ),
    "scalar": (plain(data=3.0), "'column' has rank 0; expected 1 to 6"),
    "no data space": (plain(data=h5py.Empty("<f4")), "'column' has rank 0"),
    "rank 7": (plain(data=np.zeros((1,) * 7)), "'column' has rank 7; expected 1 to 6"),
    "text of rank 2": (
        plain(data=[["a"]], dtype=h5py.string_dtype()),
        "'column' is text of rank 2",
    ),
    "no rows": (plain(data=np.zeros((0, 3))), "'column' declares 0 bytes"),
    "resizable": (plain(data=COLUMN, maxshape=(None,)), "'column' must be contiguous"),
    "a terabyte": (
        lambda f, _: low_level(f, (10**12,), late=True),
        "'column' declares 4000000000000 bytes, more than the file",
    ),
    "a terabyte of text": (
        plain(shape=(10**12,), dtype=h5py.string_dtype()),
        "'column' declares 16000000000000 bytes",
    ),
    "more bytes than 64 bits": (
        lambda f, _: low_level(f, (2**31, 2**29), late=True),
        "'column' declares",
    ),
    "nothing allocated": (
        lambda f, _: low_level(f, (3,), late=True),
        "'column' declares 12 bytes, more than the file holds",
    ),
    "fill value": (lambda f, _: low_level(f, (3,), fill=1.5), "'column' has a fill value"),
    "attribute of a column": (
        lambda f, _: f.create_dataset("column", data=COLUMN, track_times=False).attrs.__setitem__(
            "a", 1
        ),
        "'column' must be contiguous, without filters, attributes",
    ),
    "array attribute": (attribute(np.arange(3)), "attribute 'column' is not a single value"),
    "large attribute": (
        attribute(np.zeros(8000)),
        "header of|header that goes on|not a single value",
    ),
    "huge attribute": (
        attribute(np.zeros(50000)),
        "no integer format_version in the header of the root group",
    ),
    "float attribute": (attribute(0.5), "attribute 'column' has type float"),
    "compound attribute": (
        attribute(np.zeros((), [("a", "<f4")])),
        "attribute 'column' has type compound",
    ),
    "reference attribute": (
        lambda f, _: f.attrs.create("column", f.ref, (), h5py.ref_dtype),
        "'column' has type ref",
    ),
    "many attributes": (
        lambda f, _: [f.attrs.__setitem__(f"a{i}", i) for i in range(30)],
        "in the header of the root group",
    ),
    "control characters": (
        lambda f, _: f.__setitem__("\x1b[2Jcolumn", COLUMN),
        r"a column '\\x1b\[2Jcolumn'",
    ),
    "odd name of an attribute": (
        lambda f, _: f.attrs.__setitem__("a\x07", 1),
        r"an attribute 'a\\x07'",
    ),
    "name that is not UTF-8": (
        lambda f, _: h5py.h5o.link(f["innocent"].id, f.id, b"\xff\xfe"),
        "a column is not UTF-8",
    ),
    "long name": (
        lambda f, _: f.__setitem__("a" * 5000, COLUMN),
        "expected a name of 1 to 255 bytes|header|link",
    ),
    "no columns": (lambda f, _: f.__delitem__("innocent"), "there must be one at least"),
    "newer": (
        lambda f, _: f.attrs.__setitem__("format_version", 2),
        r"written by a newer symzoo \(format 2; this one reads 1\): upgrade",
    ),
    "older": (
        lambda f, _: f.attrs.__setitem__("format_version", 0),
        r"written by an older symzoo \(format 0; this one reads 1\)",
    ),
    "newer and of another kind": (
        lambda f, folder: (
            f.attrs.__setitem__("format_version", 2),
            plain(data=COLUMN, compression=9)(f, folder),
        ),
        "written by a newer symzoo",
    ),
    "text as version": (
        lambda f, _: f.attrs.__setitem__("format_version", "1"),
        "no integer format_version in the header",
    ),
    "array as version": (
        lambda f, _: f.attrs.__setitem__("format_version", [1, 2]),
        "no integer format_version",
    ),
    "no version": (lambda f, _: f.attrs.__delitem__("format_version"), "no integer format_version"),
}
FILES = {
    "user block": ({"userblock_size": 512}, "no signature at its start"),
    "old superblock": ({"libver": "earliest"}, "the superblock has another version than 2 or 3"),
    "order of creation not kept": ({"track_order": False}, "the root group"),
    "free space kept": (
        {"fs_strategy": "page", "fs_persist": True},
        "the superblock: expected .* no extension",
    ),
}


def refused_everywhere(path: Path, part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Checked, "array", lambda *_: pytest.fail("data was read"))
    for read in (
        lambda: read_columns([path]),
        lambda: read_columns([path], ["innocent"]),
        lambda: read_tensors([path], {"column": ()}),
        lambda: read_attributes(path),
    ):
        with pytest.raises(StoreError, match=part) as error:
            read()
        assert str(error.value).startswith(f"{path}: ")
        assert str(error.value).isprintable()


@pytest.mark.parametrize(("make", "part"), MAKERS.values(), ids=MAKERS)
def test_hostile_constructions_are_refused_before_any_column_is_read(
    tmp_path, monkeypatch, make, part
):
    path = tmp_path / "hostile.h5"
    with h5py.File(path, "w", track_order=True, libver="v110") as file:
        file.attrs["format_version"] = 1
        file.create_dataset("innocent", data=COLUMN, track_times=False)
        make(file, tmp_path)
    refused_everywhere(path, part, monkeypatch)


@pytest.mark.parametrize(("options", "part"), FILES.values(), ids=FILES)
def test_hostile_files_are_refused_before_any_column_is_read(tmp_path, monkeypatch, options, part):
    path = tmp_path / "hostile.h5"
    with h5py.File(path, "w", **{"track_order": True, "libver": "v110"} | options) as file:
        file.attrs["format_version"] = 1
        file.create_dataset("innocent", data=COLUMN, track_times=False)
    refused_everywhere(path, part, monkeypatch)


# bytes that no library writes


TEXTS = ["sgd", "adamw", "", "a" * 300]


@pytest.fixture
def good(tmp_path) -> Path:
    path = tmp_path / "good.h5"
    columns = {f"layers.{i}": np.full((4, 2), i, np.float32) for i in range(40)}
    write_columns(
        path,
        {"text": np.array(TEXTS), "diverged": np.arange(4) > 1, **columns},
        {"population": "standard"},
    )
    return path


def header(content: bytes, address: int) -> tuple[int, int]:
    """Start and end, before its checksum, of a data set's header."""
    return address, address + 8 + int.from_bytes(content[address + 6 : address + 8], "little")


def patch(path: Path, old: bytes, new: bytes, signature: bytes = b"OHDR") -> None:
    """Replace bytes in the header in which they stand, and make its checksum right again."""
    content = bytearray(path.read_bytes())
    at = content.index(old)
    content[at : at + len(old)] = new
    start, stop = header(content, content.rindex(signature, 0, at))
    content[stop : stop + 4] = struct.pack("<I", checksum(bytes(content[start:stop])))
    path.write_bytes(content)


def layout(checked: Checked, name: str) -> bytes:
    column = checked.columns[name]
    return struct.pack("<BBQQ", 3, 1, column.offset, column.length)


def test_columns_that_lie_over_each_other_or_over_the_structure_are_refused(good):
    checked = open_checked(good)
    first, second = layout(checked, "layers.0"), layout(checked, "layers.1")
    content = good.read_bytes()
    patch(good, first, second)
    with pytest.raises(StoreError, match=r"'layers.1' overlaps 'layers.0'"):
        read_columns([good])
    good.write_bytes(content)
    patch(good, first, struct.pack("<BBQQ", 3, 1, 0, 32))
    with pytest.raises(StoreError, match=r"'layers.0' overlaps the superblock"):
        read_columns([good])


@pytest.mark.parametrize("offset", [10**6, 2**64 - 1, 2**63])
def test_columns_outside_the_file_are_refused(good, offset):
    patch(good, layout(open_checked(good), "layers.0"), struct.pack("<BBQQ", 3, 1, offset, 32))
    with pytest.raises(StoreError, match=r"'layers.0' declares 32 bytes, more than the file holds"):
        read_columns([good])


def test_a_wrong_checksum_is_refused(good):
    content = bytearray(good.read_bytes())
    content[content.index(layout(open_checked(good), "layers.0")) + 2] ^= 1
    good.write_bytes(content)
    with pytest.raises(
        StoreError, match=r"the checksum of 'layers.0' is wrong: the file is damaged"
    ):
        read_columns([good])


def entries(path: Path) -> tuple[int, list[tuple[int, int, int]]]:
    column = open_checked(path).columns["text"]
    content = path.read_bytes()
    return column.offset, [
        struct.unpack_from("<IQI", content, column.offset + 16 * i) for i in range(4)
    ]


def set_entry(path: Path, entry: tuple[int, int, int], row: int = 0) -> None:
    content = bytearray(path.read_bytes())
    struct.pack_into("<IQI", content, entries(path)[0] + 16 * row, *entry)
    path.write_bytes(content)


def test_texts_that_expand_are_refused_before_they_are_read(good, monkeypatch):
    """Many rows may point to one large text: what they declare is added up first."""
    found = entries(good)[1]
    long = found[3]
    content = bytearray(good.read_bytes())
    at = content.index(b"a" * 300) - 16
    struct.pack_into("<Q", content, at + 8, 3000)
    good.write_bytes(content)
    for row in range(4):
        set_entry(good, (len(content) // 3, *long[1:]), row)
    checked = open_checked(good)
    monkeypatch.setattr("zoo.hdf5_text.Heap._text", lambda *_: pytest.fail("a text was read"))
    with pytest.raises(StoreError, match=r"declares \d+ bytes of text, more than the file holds"):
        checked.array("text")


@pytest.mark.parametrize(
    "entry",
    [(3, 10**9, 1), (3, 2**64 - 1, 1), (3, 0, 1), (2**31, 2048, 1), (4, 2048, 2), (3, 2048, 999)],
)
def test_texts_that_point_elsewhere_are_refused(good, entry):
    set_entry(good, entry)
    with pytest.raises(StoreError, match=r"'text' (points to a text|declares)|a heap of text"):
        read_columns([good], ["text"])


@pytest.mark.parametrize(
    ("text", "part"), [(b"\xff\xfe\xfd", "not UTF-8"), (b"a\0b", "a zero character")]
)
def test_texts_of_odd_bytes_are_refused(good, text, part):
    content = good.read_bytes()
    at = content.rindex(b"sgd")
    good.write_bytes(content[:at] + text + content[at + 3 :])
    with pytest.raises(StoreError, match=part):
        read_columns([good], ["text"])


def test_a_heap_of_more_texts_than_rows_is_refused(good):
    content = bytearray(good.read_bytes())
    heap = content.index(b"GCOL")
    for i in range(200):
        struct.pack_into("<HHIQ", content, heap + 16 + 16 * i, i + 1, 0, 0, 0)
    good.write_bytes(content)
    with pytest.raises(StoreError, match="holds more texts than the columns"):
        read_columns([good])


def test_booleans_that_are_neither_are_refused(good):
    content = bytearray(good.read_bytes())
    content[open_checked(good).columns["diverged"].offset] = 2
    good.write_bytes(content)
    with pytest.raises(StoreError, match="'diverged' holds bytes that are neither False nor True"):
        read_columns([good])


# what is not a file inside the folder


def test_pipes_and_devices_and_folders_are_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe.h5")
    (tmp_path / "folder.h5").mkdir()
    for path in (tmp_path / "pipe.h5", tmp_path / "folder.h5", Path("/dev/zero")):
        with pytest.raises(StoreError, match="not a regular file"):
            read_columns([path])


def test_a_file_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(StoreError, match=r"a.h5: cannot be read \(Permission denied\)"):
        read_columns([tmp_path / "a.h5"])


def test_no_environment_variable_of_libhdf5_matters_since_it_does_not_read(good):
    code = f"""
import sys
from pathlib import Path
import h5py
h5py.File = h5py.h5f.open = lambda *_, **__: sys.exit("libhdf5 was asked to read")
from zoo.store.columns import read_columns
print(list(read_columns([Path({str(good)!r})], ["text"])["text"]))
"""
    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert shown.strip() == str(TEXTS)
