"""Files of columns as HDF5: written with h5py, and compared with their map.

Only this file imports it.

One HDF5 dataset holds each column at the root, contiguous and little-endian, without filters, so
that Hugging Face `datasets` loads the file as it is. Reading a zoo needs nothing of this: libhdf5
was not made for files of strangers. `differences` runs it on one, in a process that may die
(`data_gen.integrity.proof`).
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np
from jaxtyping import Shaped

from zoo.store.atomic import atomic_write
from zoo.store.file_map import (
    DTYPES,
    FORMAT_VERSION,
    MAX_RANK,
    TEXT,
    Column,
    FileMap,
    check_name,
    check_texts,
    encode,
    place,
)
from zoo.store.mapped import MappedFile, StoreError, open_mapped

Columns = Mapping[str, Shaped[np.ndarray, "..."]]
_BLOCK_BYTES = 2**22


def write_columns(
    path: Path, columns: Columns, attributes: Mapping[str, str | int], equal_rows: bool = True
) -> None:
    """Write one file; it appears under its name only when it is complete and on disk.

    Args:
        path: Where the file goes; its folder is made if it is missing.
        columns: Arrays by name: numbers, booleans, or text (object or str dtype), at least one axis
            each.
        attributes: Metadata of the file.
        equal_rows: Whether all columns must have the same first axis, as a table does.

    Raises:
        ValueError: If a column cannot be stored in the format.
        StoreError: If what was written is not what was given.
        OSError: If the disk is full or the folder cannot be written; no file is left under the
            name.
    """
    _check_rows(path, columns, equal_rows)
    arrays = {name: _storable(name, array) for name, array in columns.items()}
    described, codes = _described(arrays)
    start, described = place(attributes, described)
    with atomic_write(path) as temporary:
        content, offsets = _image(arrays, attributes, start)
        for name, column in described.items():
            if not column.is_text:
                described[name] = replace(column, offset=offsets[name])
        whole = FileMap(attributes, described, start, start + len(content))
        with temporary.open("wb") as file:
            file.write(head_of(whole, codes))
            file.write(content)
        _check_written(open_mapped(temporary), arrays)


def _check_rows(path: Path, columns: Columns, equal: bool) -> None:
    rows = {name: len(array) if array.ndim else 0 for name, array in columns.items()}
    if not columns or 0 in rows.values() or (equal and len(set(rows.values())) != 1):
        raise ValueError(
            f"{path}: expected columns with equally many rows, at least one, got {rows}"
        )


def _described(arrays: Columns) -> tuple[dict[str, Column], dict[str, np.ndarray]]:
    """Columns of which it is not known yet where they will lie, and codes of those of text."""
    described, codes = {}, {}
    for name, array in arrays.items():
        described[name] = Column(array.dtype.str, array.shape, 0)
        if array.dtype.kind == "O":
            texts = array.tolist()
            numbers = {text: code for code, text in enumerate(dict.fromkeys(texts))}
            described[name] = Column(TEXT, array.shape, 0, tuple(numbers))
            codes[name] = np.array([numbers[text] for text in texts], "<u4")
    return described, codes


def head_of(described: FileMap, codes: Mapping[str, np.ndarray]) -> bytearray:
    """All of a file before its HDF5.

    Args:
        described: Its map.
        codes: Codes of text columns by name.

    Returns:
        The bytes.
    """
    head = bytearray(encode(described))
    for name, column in described.columns.items():
        if column.is_text:
            head[column.offset : column.offset + column.length] = codes[name].tobytes()
    return head


def _storable(name: str, array: Shaped[np.ndarray, "..."]) -> Shaped[np.ndarray, "..."]:
    """A column as it is stored: little-endian in C order, text as objects."""
    check_name(name, "column")
    if array.dtype.kind in "OU":
        if array.ndim != 1:
            raise ValueError(f"column {name!r}: expected text of rank 1, got {array.ndim}")
        check_texts(array.tolist(), f"column {name!r}")
        return array.astype(object)
    stored = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    if stored.dtype.str not in DTYPES or stored.ndim > MAX_RANK:
        raise ValueError(
            f"column {name!r}: expected dtype in {DTYPES} and rank <= {MAX_RANK}, "
            f"got {array.dtype}, {array.ndim}"
        )
    return stored


def _check_written(written: MappedFile, arrays: Columns) -> None:
    """Refuse a file that does not hold what was given: libhdf5 may lay files out otherwise."""
    same = (_same_values(written, name, array) for name, array in arrays.items())
    if list(written.columns) != list(arrays) or not all(same):
        raise StoreError(f"{written.path}: wrote columns that are not those that were given")


def _image(
    columns: Columns, attributes: Mapping[str, str | int], start: int
) -> tuple[bytes, dict[str, int]]:
    """HDF5 of columns, to stand after `start` other bytes, and where each of them lies."""
    # In memory: libhdf5 crashes the process when a disk fills up under a column of text.
    with h5py.File(
        "image",
        "w",
        driver="core",
        backing_store=False,
        libver="v110",
        track_order=True,
        userblock_size=start,
    ) as file:
        file.attrs["format_version"] = FORMAT_VERSION
        for name, value in attributes.items():
            file.attrs[name] = value
        for name, array in columns.items():
            dtype = h5py.string_dtype("utf-8") if array.dtype.kind == "O" else array.dtype
            file.create_dataset(name, data=array, dtype=dtype, track_times=False)
        file.flush()
        offsets = {name: file[name].id.get_offset() for name in columns}
        return file.id.get_file_image(), offsets


def differences(mapped: MappedFile, stream: BinaryIO) -> Iterator[str]:
    """What HDF5 in a file says otherwise than its map.

    Args:
        mapped: The file.
        stream: The same file, open for reading; libhdf5 reads through it.

    Yields:
        What is wrong.
    """
    with h5py.File(stream, "r") as file:
        if file.userblock_size != mapped.map.start:
            yield f"HDF5 starts at {file.userblock_size}, the map says {mapped.map.start}"
            return
        attributes = {name: _attribute(file, name) for name in file.attrs}
        if attributes != {"format_version": FORMAT_VERSION, **mapped.map.attributes}:
            yield f"HDF5 has attributes {attributes!r:.500}, not those of the map"
        names = list(file)
        if names != list(mapped.columns):
            yield f"HDF5 has columns {names!r:.500}, not those of the map in its order"
            return
        for name in names:
            if not isinstance(file.get(name, getlink=True), h5py.HardLink):
                yield f"{name!r} is a soft or external link"  # never followed: it may lead out
                continue
            dataset = file[name]
            if isinstance(dataset, h5py.Dataset):
                yield from _compare(mapped, name, dataset)
            else:
                yield f"{name!r} is a group or a named type; expected datasets at the root"


def _attribute(file: h5py.File, name: str) -> object:
    attribute = file.attrs.get_id(name)
    plain = attribute.shape == () and attribute.get_type().get_class() in (
        h5py.h5t.INTEGER,
        h5py.h5t.STRING,
    )
    value = file.attrs[name] if plain else attribute.dtype.str
    return int(value) if isinstance(value, np.integer) else value


def _compare(mapped: MappedFile, name: str, dataset: h5py.Dataset) -> Iterator[str]:
    """Compare one column; its layout first, so that nothing outside the file is ever read."""
    column, properties = mapped.columns[name], dataset.id.get_create_plist()
    is_contiguous = properties.get_layout() == h5py.h5d.CONTIGUOUS
    if not is_contiguous or properties.get_nfilters() or properties.get_external_count():
        yield f"{name!r} must be contiguous, without filters, inside the file"
        return
    yield from (f"{name!r} has {extra}" for extra in _extras(dataset, properties))
    kind = _kind(dataset)
    if dataset.shape != column.shape or dataset.maxshape != column.shape:
        shapes = f"{dataset.shape}, at most {dataset.maxshape}"
        yield f"{name!r} has shape {shapes}, the map says {column.shape}"
    elif kind != column.dtype:
        yield f"{name!r} has type {kind!r}, the map says {column.dtype!r}"
    elif not column.is_text and (offset := dataset.id.get_offset()) != column.offset:
        yield f"{name!r} lies at {offset}, the map says {column.offset}"
    elif not _same_values(mapped, name, dataset.asstr() if column.is_text else dataset):
        yield f"{name!r} has other values in HDF5 than in the map"


def _extras(dataset: h5py.Dataset, properties: h5py.h5p.PropDCID) -> Iterator[str]:
    """What a dataset has besides shape, type and values."""
    if dataset.id.get_type().committed():
        yield "a named type"
    if h5py.h5a.get_num_attrs(dataset.id) or properties.get_obj_track_times():
        yield "attributes or times"
    if properties.fill_value_defined() == h5py.h5d.FILL_VALUE_USER_DEFINED:
        yield "a fill value"


def _kind(dataset: h5py.Dataset) -> str:
    """Type of a dataset as a map names it."""
    text = h5py.check_string_dtype(dataset.dtype)
    if text is not None:
        return TEXT if (text.encoding, text.length) == ("utf-8", None) else "other text"
    if dataset.dtype.metadata is not None or dataset.dtype.subdtype is not None:
        return f"special {dataset.dtype.str}"
    return dataset.dtype.str if dataset.dtype.names is None else "compound"


def _same_values(mapped: MappedFile, name: str, values: Any) -> bool:
    """Whether a column holds the values of an array, or of something that slices give arrays of."""
    column = mapped.columns[name]
    expected = mapped.array(name) if column.is_text else mapped.view(name)
    rows = max(1, _BLOCK_BYTES * column.shape[0] // column.length)
    for start in range(0, column.shape[0], rows):
        part = slice(start, start + rows)
        pair = np.asarray(values[part]), expected[part]
        first, second = (block.tolist() if column.is_text else block.tobytes() for block in pair)
        if first != second:
            return False
    return True
