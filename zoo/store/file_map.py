"""The map at the start of a file of columns.

Where each column lies, checked before any of it is read.

A file is `MAGIC`, the length of the map in 8 bytes, the map as JSON, codes of text columns, zeros
up to `start`, and from there plain HDF5, which the map describes and no reader of ours parses.
`docs/store_format.md` has the rules.
"""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, NoReturn

import numpy as np
from pydantic_core import from_json

FORMAT_VERSION = 2
MAGIC = b"\x89SYMZOO\n"
TEXT = "text"
DTYPES = ("<f4", "<f8", "<i4", "<i8", "|u1", "|b1", TEXT)
MAX_RANK = 6
MAX_NAME = 255
MAX_ATTRIBUTES = 8
MAX_COLUMNS = 4096
MAX_JSON = 16 * 2**20
"""Bytes of a manifest or a map."""
_MAX_MAP_VALUES = 2**20
_HEAD = len(MAGIC) + 8
_SMALLEST_BLOCK = 512
_CODE = np.dtype("<u4")
_COLUMN_KEYS = {"dtype", "shape", "offset"}
_TEXT_KEYS = {*_COLUMN_KEYS, "values"}
_MAP_KEYS = {"format_version", "start", "length", "attributes", "columns"}


class FormatError(ValueError):
    """Bytes that are not those of a file of a zoo; the message does not name the file yet."""


@dataclass(frozen=True)
class Column:
    """One column: what it holds, and which bytes of the file.

    Attributes:
        dtype: One of `DTYPES`.
        shape: Its shape, rows first.
        offset: Its first byte; of text, the first byte of its codes.
        values: Of text, the different texts: code `i` stands for `values[i]`.
    """

    dtype: str
    shape: tuple[int, ...]
    offset: int
    values: tuple[str, ...] = ()

    @property
    def is_text(self) -> bool:
        """Whether it holds text: codes, and what they stand for."""
        return self.dtype == TEXT

    @property
    def stored(self) -> np.dtype[Any]:
        """Type of its bytes; of text, that of its codes."""
        return _CODE if self.is_text else np.dtype(self.dtype)

    @property
    def length(self) -> int:
        """Number of its bytes."""
        return math.prod(self.shape) * self.stored.itemsize


@dataclass(frozen=True)
class FileMap:
    """All of a file but its data.

    Attributes:
        attributes: Metadata of the file.
        columns: By name, in order.
        start: Where HDF5 begins.
        length: Bytes of the file.
    """

    attributes: Mapping[str, str | int]
    columns: Mapping[str, Column]
    start: int
    length: int


def refuse(why: str) -> NoReturn:
    """Refuse the file.

    Args:
        why: What was expected and what was found.

    Raises:
        FormatError: Always.
    """
    raise FormatError(why)


def encode(described: FileMap) -> bytes:
    """The bytes of a map: all before HDF5, codes of text as zeros.

    Args:
        described: The map.

    Returns:
        `start` bytes.
    """
    text = _as_json(described)
    head = MAGIC + len(text).to_bytes(8, "little") + text
    return head.ljust(described.start, b"\0")


def place(
    attributes: Mapping[str, str | int], columns: Mapping[str, Column]
) -> tuple[int, dict[str, Column]]:
    """Plan the part of a file before HDF5: its length, and where the codes of text columns go.

    Args:
        attributes: Metadata of the file.
        columns: Columns by name, their offsets not known yet.

    Returns:
        Where HDF5 starts, a power of two, and the columns, those of text with their offsets.
    """
    far = FileMap(
        attributes, {n: replace(c, offset=2**62) for n, c in columns.items()}, 2**62, 2**62
    )
    at = _HEAD + len(_as_json(far))
    placed = {}
    for name, column in columns.items():
        placed[name] = column
        if column.is_text:
            placed[name] = replace(column, offset=at)
            at += column.length
    return max(_SMALLEST_BLOCK, 1 << (at - 1).bit_length()), placed


def _as_json(described: FileMap) -> bytes:
    columns = {}
    for name, column in described.columns.items():
        columns[name] = asdict(column)
        if not column.is_text:
            del columns[name]["values"]
    content = {
        "format_version": FORMAT_VERSION,
        "start": described.start,
        "length": described.length,
        "attributes": dict(described.attributes),
        "columns": columns,
    }
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()


def decode(data: memoryview) -> FileMap:
    """Read the map of a file of unknown origin; nothing else of it is read.

    Args:
        data: The whole file.

    Returns:
        Its map; every column lies inside the file, and no two overlap.

    Raises:
        FormatError: If it is anything but what the format allows.
    """
    text = _map_text(data)
    end, content = _HEAD + len(text), bounded_json(text, _MAX_MAP_VALUES, "a map")
    if not isinstance(content, dict) or type(content.get("format_version")) is not int:
        refuse("the map has no integer format_version: not a file of a zoo")
    check_version(content["format_version"])
    if set(content) != _MAP_KEYS or content["length"] != len(data):
        size = content.get("length")
        refuse(f"not a complete file: the map expects {size!r:.50} bytes, found {len(data)}")
    start = content["start"]
    if type(start) is not int or not end <= start <= len(data):
        refuse(f"the map says that HDF5 starts at {start!r:.50}")
    attributes, columns = _attributes(content["attributes"]), _columns(content["columns"])
    described = FileMap(attributes, columns, start, len(data))
    _check_places(described, end)
    return described


def _map_text(data: memoryview) -> bytes:
    """The JSON at the start of a file."""
    if bytes(data[: len(MAGIC)]) != MAGIC:
        refuse(
            "no map at its start: damaged, no file of a zoo, or of format 1, which this symzoo "
            "does not read (generate it again)"
        )
    length = int.from_bytes(data[len(MAGIC) : _HEAD], "little")
    if length > min(MAX_JSON, len(data) - _HEAD):
        refuse(f"a map of {length} bytes; expected at most {MAX_JSON}, inside the file")
    return bytes(data[_HEAD : _HEAD + length])


def bounded_json(raw: bytes, most: int, what: str) -> object:
    """Read JSON of unknown origin, unless it would be large in memory.

    Args:
        raw: The text.
        most: Numbers, texts, lists and objects in it, at most.
        what: What it is, for errors.

    Returns:
        The values.

    Raises:
        FormatError: If it is not JSON, or too large.
    """
    values = sum(raw.count(character) for character in (b",", b"[", b"{"))
    if values > most:
        refuse(f"{values} values; expected at most {most} in {what}")
    try:
        return from_json(raw, allow_inf_nan=False)
    except ValueError as error:
        refuse(f"{what} is not JSON: {error}")


def check_version(version: int) -> None:
    """Refuse files that another version of symzoo wrote.

    Args:
        version: Format version of a file.
    """
    writer, cure = "a newer", "upgrade symzoo"
    if version < FORMAT_VERSION:
        writer, cure = "an older", "generate it again"
    if version != FORMAT_VERSION:
        refuse(
            f"written by {writer} symzoo (format {version}; this one reads {FORMAT_VERSION}): "
            f"{cure}"
        )


def check_name(name: str, what: str) -> None:
    """Refuse names that a table or a terminal cannot show, or that mean something to HDF5.

    Args:
        name: Name of a column or attribute.
        what: What it names, for errors.
    """
    if not name.isprintable() or not 0 < len(name.encode()) <= MAX_NAME or name == ".":
        refuse(
            f"{what} {name[:80]!r}: expected a name of 1 to {MAX_NAME} bytes of printable "
            "characters"
        )
    if "/" in name:
        refuse(f"{what} {name!r}: expected a name without '/', HDF5 would make groups of it")


def check_texts(texts: Iterable[object], what: str) -> None:
    """Refuse what is not text, and the one character that HDF5 cannot hold.

    Args:
        texts: The texts.
        what: What has them, for errors.
    """
    for text in texts:
        if not isinstance(text, str) or "\0" in text:
            refuse(f"{what}: expected text without zero characters, found {text!r:.80}")


def _attributes(content: object) -> dict[str, str | int]:
    if not isinstance(content, dict) or len(content) > MAX_ATTRIBUTES:
        refuse(f"the map has more than {MAX_ATTRIBUTES} attributes, or none that can be read")
    for name, value in content.items():
        check_name(name, "attribute")
        if isinstance(value, str):
            check_texts([value], f"attribute {name!r}")
        elif type(value) is not int or not -(2**63) <= value < 2**63:
            refuse(f"attribute {name!r} is {value!r:.80}; expected an int64 or a text")
    return content


def _columns(content: object) -> dict[str, Column]:
    if not isinstance(content, dict) or not 1 <= len(content) <= MAX_COLUMNS:
        refuse(f"the map has no columns, or more than {MAX_COLUMNS}")
    return {name: _column(name, column) for name, column in content.items()}


def _column(name: str, content: object) -> Column:
    check_name(name, "column")
    if not isinstance(content, dict) or not _COLUMN_KEYS <= set(content) <= _TEXT_KEYS:
        refuse(f"{name!r}: expected {sorted(_COLUMN_KEYS)}, of text also 'values'")
    dtype, offset = content["dtype"], content["offset"]
    is_text = dtype == TEXT
    if is_text != ("values" in content):
        refuse(f"{name!r}: expected 'values' of text, and of nothing else")
    if dtype not in DTYPES:
        refuse(f"{name!r} has type {dtype!r:.80}; expected one of {list(DTYPES)}")
    if type(offset) is not int or offset < 0:
        refuse(f"{name!r} lies at {offset!r:.80}")
    shape = _shape(name, content["shape"])
    if not is_text:
        return Column(dtype, shape, offset)
    return Column(dtype, shape, offset, _texts(name, content["values"], shape))


def _texts(name: str, content: object, shape: tuple[int, ...]) -> tuple[str, ...]:
    if len(shape) != 1 or not isinstance(content, list) or len(content) > shape[0]:
        refuse(f"{name!r}: text has rank 1, and a list of at most as many values as rows")
    check_texts(content, f"{name!r}")
    return tuple(content)


def _shape(name: str, sizes: object) -> tuple[int, ...]:
    if not isinstance(sizes, list) or not 1 <= len(sizes) <= MAX_RANK:
        refuse(f"{name!r} has shape {sizes!r:.80}; expected 1 to {MAX_RANK} sizes")
    if not all(type(size) is int and 0 < size < 2**63 for size in sizes):
        refuse(f"{name!r} has shape {sizes!r:.80}; expected positive sizes")
    return tuple(sizes)


def _check_places(described: FileMap, first: int) -> None:
    """Refuse columns outside their part of the file, and bytes that would count twice."""
    ends = {True: (first, "the map"), False: (described.start, "the map")}
    for name, column in sorted(described.columns.items(), key=lambda item: item[1].offset):
        end, before = ends[column.is_text]
        stop = column.offset + column.length
        if stop > (described.start if column.is_text else described.length):
            refuse(f"{name!r} declares {column.length} bytes at {column.offset}: not in the file")
        if column.offset < end:
            refuse(f"{name!r} overlaps {before}")
        ends[column.is_text] = (stop, repr(name))
