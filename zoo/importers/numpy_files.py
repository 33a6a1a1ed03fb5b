"""Archives of numpy, `.npz`: an array a member, none of them a pickle."""

import re

import numpy as np

from zoo.importers.archives import read_archive
from zoo.importers.arrays import Array
from zoo.importers.checkpoint import Checkpoint, checkpoint_of
from zoo.importers.numbers import check_length, decoded, kind_of, shape_of
from zoo.store.file_map import refuse

_MAGIC = b"\x93NUMPY"
_LONGEST_HEADER = 10_000
_HEADER = re.compile(
    r"\{'descr': '([<>|=]?[A-Za-z?][0-9]{0,9})', 'fortran_order': (True|False), "
    r"'shape': \(([0-9, ]*)\),? *\}\s*"
)
_MOST_TEXTS = 2**20


def read_npz(data: memoryview) -> Checkpoint:
    """Read an archive of numpy.

    Args:
        data: The file.

    Returns:
        Its arrays of numbers; those of texts are the record, as lists.

    Raises:
        FormatError: If it is damaged, or holds objects.
    """
    archive = read_archive(data)
    kinds: dict[str, None] = {}
    tensors: dict[str, Array] = {}
    texts: dict[str, object] = {}
    for member in archive.members:
        name = member.removesuffix(".npy")
        stored = _stored(name, archive.read(member))
        kind = kind_of(stored.dtype)
        if kind is not None:
            kinds[kind] = None
            tensors[name] = decoded(stored, kind, name)
        elif stored.dtype.kind in "SU" and stored.size <= _MOST_TEXTS:
            texts[name] = stored.tolist()
        else:
            refuse(f"{name!r:.200} is an array of {stored.dtype}; expected real numbers")
    return checkpoint_of(tensors, kinds, [], texts or None)


def _stored(name: str, content: memoryview) -> Array:
    """An array as it lies in the file."""
    if content[: len(_MAGIC)] != _MAGIC or content[6:7].tobytes() not in (b"\1", b"\2", b"\3"):
        refuse(f"{name!r:.200} is no array of numpy")
    match, start = _header_of(name, content)
    code, is_fortran, sizes = match.groups()
    shape = shape_of([int(size) for size in sizes.replace(",", " ").split()], name)
    values = content[start:]
    dtype = _dtype(name, code)
    check_length(len(values), shape, dtype.itemsize, name)
    return np.ndarray(shape, dtype, values, order="F" if is_fortran == "True" else "C")


def _header_of(name: str, content: memoryview) -> tuple[re.Match[str], int]:
    """Type, order and shape of an array, and where its values start."""
    width = 2 if content[6] == 1 else 4
    start = 8 + width
    length = int.from_bytes(content[8:start], "little")
    if length > _LONGEST_HEADER:
        refuse(f"{name!r:.200} has a header of {length} bytes; expected {_LONGEST_HEADER} at most")
    header = str(content[start : start + length], "latin-1")
    match = _HEADER.fullmatch(header)
    if match is None:
        refuse(f"{name!r:.200} has the header {header!r:.200}; expected an array of numbers")
    return match, start + length


def _dtype(name: str, code: str) -> np.dtype:
    try:
        dtype = np.dtype(code)
    except (TypeError, ValueError):
        refuse(f"{name!r:.200} is an array of {code!r}, which is not read")
    if dtype.kind not in "fiubSU" or not dtype.itemsize:
        refuse(f"{name!r:.200} is an array of {code!r}; expected real numbers")
    return dtype
