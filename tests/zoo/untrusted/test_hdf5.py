"""What HDF5 hides behind a sound map, `prove` finds."""

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from zoo.store import proof
from zoo.store.file_map import DTYPES, Column, FileMap, encode
from zoo.store.mapped import open_mapped

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
        "'column' must be contiguous, without filters, inside the file",
    ),
    "virtual": (virtual_dataset, "'column' must be contiguous, without filters, inside the file"),
    "compact": (
        lambda f, _: low_level(f, (3,), h5py.h5d.COMPACT),
        "'column' must be contiguous, without filters, inside the file",
    ),
    "chunked": (
        plain(data=COLUMN, chunks=(3,)),
        "'column' must be contiguous, without filters, inside the file",
    ),
    "compressed": (
        plain(data=COLUMN, compression=9),
        "'column' must be contiguous, without filters, inside the file",
    ),
    "checksummed": (
        plain(data=COLUMN, fletcher32=True),
        "'column' must be contiguous, without filters, inside the file",
    ),
    "scale-offset": (
        plain(data=np.arange(9), scaleoffset=4),
        "'column' must be contiguous, without filters, inside the file",
    ),
    "times": (
        lambda f, _: f.create_dataset("column", data=COLUMN, track_times=True),
        "'column' has attributes or times",
    ),
    "group": (
        lambda f, _: f.create_group("column"),
        "'column' is a group or a named type; expected datasets at the root",
    ),
    "cycle of groups": (
        cycle,
        "'column' is a group or a named type; expected datasets at the root",
    ),
    "many names of one column": (
        many_names_of_one_column,
        "HDF5 has columns ['innocent', 'column', 'alias0', 'alias1'",
    ),
    "named type": (
        named_type,
        "'column' is a group or a named type; expected datasets at the root",
    ),
    "committed type": (
        committed_type,
        "HDF5 has columns ['innocent', 'type', 'column'], not those of the map",
    ),
    "float16": (plain(data=np.zeros(3, "<f2")), "'column' has type '<f2', the map says '<f8'"),
    "big-endian": (plain(data=np.zeros(3, ">f4")), "'column' has type '>f4', the map says '<f8'"),
    "uint64": (plain(data=np.zeros(3, "<u8")), "'column' has type '<u8', the map says '<f8'"),
    "references": (
        plain(shape=(3,), dtype=h5py.ref_dtype),
        "'column' has type 'special |O', the map says '<f8'",
    ),
    "region references": (
        plain(shape=(3,), dtype=h5py.regionref_dtype),
        "'column' has type 'special |O', the map says '<f8'",
    ),
    "ragged": (
        plain(shape=(3,), dtype=h5py.vlen_dtype("<i4")),
        "'column' has type 'special |O', the map says '<f8'",
    ),
    "opaque": (plain(data=np.zeros(3, "V4")), "'column' has type '|V4', the map says '<f8'"),
    "compound": (
        plain(data=np.zeros(3, [("a", "<f4")])),
        "'column' has type 'compound', the map says '<f8'",
    ),
    "array": (
        plain(shape=(3,), dtype=np.dtype(("<f4", (2,)))),
        "'column' has type 'special |V8', the map says '<f8'",
    ),
    "fixed-length text": (
        plain(data=np.zeros(3, "S8")),
        "'column' has type 'other text', the map says '<f8'",
    ),
    "ascii text": (
        plain(data=["a"] * 3, dtype=h5py.string_dtype("ascii")),
        "'column' has type 'other text', the map says '<f8'",
    ),
    "other enumeration": (
        plain(data=[0, 1, 1], dtype=h5py.enum_dtype({"NO": 0, "YES": 1}, "i1")),
        "'column' has type 'special |i1', the map says '<f8'",
    ),
    "swapped booleans": (
        plain(data=[0, 1, 1], dtype=h5py.enum_dtype({"TRUE": 0, "FALSE": 1}, "i1")),
        "'column' has type 'special |i1', the map says '<f8'",
    ),
    "scalar": (plain(data=3.0), "'column' has shape (), at most ()"),
    "no data space": (plain(data=h5py.Empty("<f4")), "'column' has shape None"),
    "rank 7": (plain(data=np.zeros((1,) * 7)), "'column' has shape (1, 1, 1, 1, 1, 1, 1)"),
    "text of rank 2": (
        plain(data=[["a"]], dtype=h5py.string_dtype()),
        "'column' has type 'text', the map says '<f8'",
    ),
    "no rows": (plain(data=np.zeros((0, 3))), "'column' has shape (0, 3)"),
    "resizable": (
        plain(data=COLUMN, maxshape=(None,)),
        "'column' must be contiguous, without filters, inside the file",
    ),
    "a terabyte": (
        lambda f, _: low_level(f, (10**12,), late=True),
        "'column' has shape (1000000000000,)",
    ),
    "a terabyte of text": (
        plain(shape=(10**12,), dtype=h5py.string_dtype()),
        "'column' has shape (1000000000000,)",
    ),
    "more bytes than 64 bits": (
        lambda f, _: low_level(f, (2**31, 2**29), late=True),
        "'column' has shape (2147483648, 536870912)",
    ),
    "nothing allocated": (
        lambda f, _: low_level(f, (3,), late=True),
        "'column' lies at 4095, the map says",
    ),
    "fill value": (lambda f, _: low_level(f, (3,), fill=1.5), "'column' has a fill value"),
    "attribute of a column": (
        lambda f, _: f.create_dataset("column", data=COLUMN, track_times=False).attrs.__setitem__(
            "a", 1
        ),
        "'column' has attributes or times",
    ),
    "array attribute": (
        attribute(np.arange(3)),
        "HDF5 has attributes {'format_version': 2, 'column': '<i8'}, not those of the map",
    ),
    "large attribute": (
        attribute(np.zeros(8000)),
        "HDF5 has attributes {'format_version': 2, 'column': '<f8'}, not those of the map",
    ),
    "huge attribute": (
        attribute(np.zeros(50000)),
        "HDF5 has attributes {'format_version': 2, 'column': '<f8'}, not those of the map",
    ),
    "float attribute": (
        attribute(0.5),
        "HDF5 has attributes {'format_version': 2, 'column': '<f8'}, not those of the map",
    ),
    "compound attribute": (
        attribute(np.zeros((), [("a", "<f4")])),
        "HDF5 has attributes {'format_version': 2, 'column': '|V4'}, not those of the map",
    ),
    "reference attribute": (
        lambda f, _: f.attrs.create("column", f.ref, (), h5py.ref_dtype),
        "HDF5 has attributes {'format_version': 2, 'column': '|O'}, not those of the map",
    ),
    "many attributes": (
        lambda f, _: [f.attrs.__setitem__(f"a{i}", i) for i in range(30)],
        "HDF5 has attributes {'format_version': 2, 'a0': 0, 'a1': 1",
    ),
    "control characters": (
        lambda f, _: f.__setitem__("\x1b[2Jcolumn", COLUMN),
        r"HDF5 has columns ['innocent', '\x1b[2Jcolumn'], not those of the map",
    ),
    "odd name of an attribute": (
        lambda f, _: f.attrs.__setitem__("a\x07", 1),
        r"HDF5 has attributes {'format_version': 2, 'a\x07': 1}, not those of the map",
    ),
    "name that is not UTF-8": (
        lambda f, _: h5py.h5o.link(f["innocent"].id, f.id, b"\xff\xfe"),
        r"HDF5 has columns ['innocent', b'\xff\xfe'], not those of the map",
    ),
    "long name": (
        lambda f, _: f.__setitem__("a" * 5000, COLUMN),
        "HDF5 has columns ['innocent', 'aaa",
    ),
    "no columns": (
        lambda f, _: f.__delitem__("innocent"),
        "HDF5 has columns [], not those of the map",
    ),
    "newer": (
        lambda f, _: f.attrs.__setitem__("format_version", 3),
        "HDF5 has attributes {'format_version': 3}, not those of the map",
    ),
    "older": (
        lambda f, _: f.attrs.__setitem__("format_version", 0),
        "HDF5 has attributes {'format_version': 0}, not those of the map",
    ),
    "newer and of another kind": (
        lambda f, folder: (
            f.attrs.__setitem__("format_version", 3),
            plain(data=COLUMN, compression=9)(f, folder),
        ),
        "HDF5 has attributes {'format_version': 3}, not those of the map",
    ),
    "text as version": (
        lambda f, _: f.attrs.__setitem__("format_version", "1"),
        "HDF5 has attributes {'format_version': '1'}, not those of the map",
    ),
    "array as version": (
        lambda f, _: f.attrs.__setitem__("format_version", [1, 2]),
        "HDF5 has attributes {'format_version': '<i8'}, not those of the map",
    ),
    "no version": (
        lambda f, _: f.attrs.__delitem__("format_version"),
        "HDF5 has attributes {}, not those of the map",
    ),
}


START = 4096


def with_map(path: Path) -> None:
    """Put a map before hostile HDF5 that says of it what a sound map can."""
    data = bytearray(path.read_bytes())
    columns = {}
    with h5py.File(path) as file:
        for name in ("innocent", "column"):
            if file.get(name, getlink=True):
                place = START + 8 + 24 * len(columns)
                is_hard = isinstance(file.get(name, getlink=True), h5py.HardLink)
                columns[name] = sound(file[name] if is_hard else None, place, len(data))
    columns = columns or {"column": Column("<f8", (3,), START + 8)}
    data[:START] = encode(FileMap({}, columns, START, len(data)))
    path.write_bytes(data)


def sound(dataset: object, place: int, length: int) -> Column:
    """What HDF5 says, as far as a map may say it; else a column at some place in the file."""
    if not isinstance(dataset, h5py.Dataset) or not dataset.shape or len(dataset.shape) > 6:
        return Column("<f8", (3,), place)
    dtype = dataset.dtype.str if dataset.dtype.str in DTYPES else "<f8"
    offset = dataset.id.get_offset() or place
    column = Column(dtype, dataset.shape, offset if offset >= START else place)
    fits = 0 < column.length <= length - column.offset
    return column if fits else Column(dtype, (3,), place)


@pytest.mark.parametrize(("make", "part"), MAKERS.values(), ids=MAKERS)
def test_hostile_constructions_of_hdf5_are_faults_of_the_file(tmp_path, make, part):
    path = tmp_path / "hostile.h5"
    with h5py.File(path, "w", track_order=True, libver="v110", userblock_size=START) as file:
        file.attrs["format_version"] = 2
        file.create_dataset("innocent", data=COLUMN, track_times=False)
        make(file, tmp_path)
    with_map(path)
    open_mapped(path)  # the map is sound: nothing of HDF5 is looked at
    secret = tmp_path / "secret.h5"
    before = secret.stat().st_atime_ns if secret.exists() else None
    faults = proof.faults_of(path)
    assert any(part in fault for fault in faults), faults
    assert before is None or secret.stat().st_atime_ns == before
