"""The part of HDF5 that a zoo uses, read without libhdf5: files of strangers never reach its C code.

`parse` checks the whole structure of a file before any of its data is read, and says where each
column lies. It accepts what `zoo.store.columns.write_columns` writes and refuses everything else;
`docs/store_format.md` has the rules.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from zoo.hdf5_blocks import Blocks, FormatError, checked, refuse
from zoo.hdf5_links import LinkInfo, dense_links
from zoo.hdf5_text import TEXT_ENTRY, Heap

FORMAT_VERSION = 1
MAX_RANK = 6
MAX_NAME = 255
MAX_ATTRIBUTES = 8
TEXT = "text"

_DATASPACE, _LINK_INFO, _DATATYPE, _FILL, _LINK, _LAYOUT, _GROUP_INFO = 1, 2, 3, 5, 6, 8, 10
_ATTRIBUTE, _CONTINUATION, _ATTRIBUTE_INFO, _NIL = 12, 16, 21, 0
_CONSTANT = 1  # flag of a message that does not change
_MAX_HEADER = 4096
_SCALAR = bytes([2, 0, 0, 0])
_TEXT_TYPE = bytes.fromhex("19010100100000001000000001000000000008 00")
_INTEGER = bytes.fromhex("100800000800000000004000")
# datatype messages, byte for byte
DTYPES = {
    bytes.fromhex("11201f00040000000000200017080017 7f000000"): "<f4",
    bytes.fromhex("11203f000800000000004000340b0034 ff030000"): "<f8",
    bytes.fromhex("100800000400000000002000"): "<i4",
    _INTEGER: "<i8",
    bytes.fromhex("100000000100000000000800"): "|u1",
    bytes.fromhex("3802000001000000 100800000100000000000800") + b"FALSE\0TRUE\0\0\1": "|b1",
    _TEXT_TYPE: TEXT,
}
_CLASSES = [
    "integer", "float", "time", "fixed-length-text", "bitfield", "opaque",
    "compound", "reference", "enum", "variable-length", "array",
]  # fmt: skip


@dataclass(frozen=True)
class Column:
    """One column: what it holds, and which bytes of the file.

    Attributes:
        dtype: `"<f4"`, `"<f8"`, `"<i4"`, `"<i8"`, `"|u1"`, `"|b1"` or `"text"`.
        shape: Its shape, rows first.
        offset: Its first byte.
    """

    dtype: str
    shape: tuple[int, ...]
    offset: int

    @property
    def length(self) -> int:
        """Its bytes in the file; of text, those of the entries that point to it."""
        return math.prod(self.shape) * (
            TEXT_ENTRY if self.dtype == TEXT else np.dtype(self.dtype).itemsize
        )


@dataclass(frozen=True)
class Structure:
    """All of a file but its data."""

    attributes: dict[str, str | int]
    columns: dict[str, Column]
    heap: Heap


@dataclass(frozen=True)
class _Message:
    kind: int
    flags: int
    body: bytes


def parse(data: memoryview) -> Structure:
    """Check the structure of a file; no data is read.

    Args:
        data: The whole file.

    Returns:
        Its attributes and columns.

    Raises:
        FormatError: If it is anything but what the format allows.
    """
    blocks = Blocks(data)
    messages = list(_messages(blocks, _root(blocks), "the root group"))
    raw = [message.body for message in messages if message.kind == _ATTRIBUTE]
    _check_version(raw)
    expected = {_LINK_INFO: 1, _GROUP_INFO: 1, _ATTRIBUTE_INFO: 1}
    if any(sum(m.kind == kind for m in messages) != count for kind, count in expected.items()):
        raise FormatError("the root group has another kind of header than the format wants")
    info = LinkInfo.parse(next(m.body for m in messages if m.kind == _LINK_INFO))
    for message in messages:
        _check_root_message(message)
    if len(raw) > MAX_ATTRIBUTES:
        refuse(f"{len(raw)} attributes; expected at most {MAX_ATTRIBUTES}")
    inline = [message.body for message in messages if message.kind == _LINK]
    links = [_link(body) for body in inline + dense_links(blocks, info)]
    order = [place for place, _, _ in links]
    if (
        len(set(order)) != len(order)
        or len({name for _, name, _ in links}) != len(links)
        or not links
    ):
        refuse("columns must have different names and places, and there must be one at least")
    columns = {name: _column(blocks, address, name) for _, name, address in sorted(links)}
    heap = Heap(
        blocks,
        len(raw) + sum(column.shape[0] for column in columns.values() if column.dtype == TEXT),
    )
    attributes = dict(_attribute(body, heap) for body in raw)
    if len(attributes) != len(raw):
        refuse("an attribute stands twice")
    return Structure(attributes, columns, heap)


def _root(blocks: Blocks) -> int:
    """Check the superblock; address of the root group."""
    if bytes(blocks.data[:8]) != b"\x89HDF\r\n\x1a\n":
        refuse("not an HDF5 file: no signature at its start")
    if len(blocks.data) < 48 or blocks.data[8] not in (2, 3):
        refuse("the superblock has another version than 2 or 3")
    block = checked(blocks.block(0, 48, "the superblock"), "the superblock")
    base, extension, end, root = (
        int.from_bytes(block[i : i + 8], "little") for i in (12, 20, 28, 36)
    )
    if block[9:12] != bytes([8, 8, 0]) or base != 0 or extension != 2**64 - 1:
        refuse(
            "the superblock: expected 8-byte addresses, a closed file, base address 0 and no extension"
        )
    if end != len(blocks.data):
        refuse(f"not a complete file: expected {end} bytes, found {len(blocks.data)}")
    return root


def _messages(blocks: Blocks, address: int, what: str) -> Iterator[_Message]:
    """The messages of an object header, version 2, and of its continuations."""
    start = blocks.block(address, 8, what)
    flags = start[5]
    if start[:5] != b"OHDR\2" or flags & 0xF2 or flags & 3 > 1:
        refuse(f"{what} has another kind of header than the format wants")
    head = 6 + (1 << (flags & 3))
    length = int.from_bytes(start[6:head], "little")
    if length > _MAX_HEADER:
        refuse(f"{what} has a header of {length} bytes; expected at most {_MAX_HEADER}")
    block = start + blocks.block(address + 8, head + length + 4 - 8, what)
    chunks = [checked(block, what)[head:]]
    while chunks:
        for message in _split(chunks.pop(0), bool(flags & 4), what):
            if message.kind == _CONTINUATION:
                chunks.append(_continuation(blocks, message.body, what))
            elif message.kind != _NIL:
                yield message


def _continuation(blocks: Blocks, body: bytes, what: str) -> bytes:
    if len(body) != 16:
        refuse(f"{what} has a damaged header")
    offset, length = int.from_bytes(body[:8], "little"), int.from_bytes(body[8:], "little")
    if not 8 <= length <= _MAX_HEADER:
        refuse(
            f"{what} has a header that goes on for {length} bytes; expected at most {_MAX_HEADER}"
        )
    chunk = checked(blocks.block(offset, length, what), what)
    if chunk[:4] != b"OCHK":
        refuse(f"{what} has a damaged header")
    return chunk[4:]


def _split(chunk: bytes, ordered: bool, what: str) -> Iterator[_Message]:
    head, at = 6 if ordered else 4, 0
    while at + head <= len(chunk):
        kind, length, flags = (
            chunk[at],
            int.from_bytes(chunk[at + 1 : at + 3], "little"),
            chunk[at + 3],
        )
        if at + head + length > len(chunk):
            refuse(f"{what} has a damaged header")
        yield _Message(kind, flags, chunk[at + head : at + head + length])
        at += head + length
    if any(chunk[at:]):
        refuse(f"{what} has a damaged header")


def _check_version(attributes: list[bytes]) -> None:
    """Refuse another format version before anything else: all other rules may be different there."""
    start = b"\3\0" + bytes([15, 0, 12, 0, 4, 0, 0]) + b"format_version\0" + _INTEGER + _SCALAR
    found = [
        int.from_bytes(body[len(start) :], "little", signed=True)
        for body in attributes
        if body.startswith(start)
    ]
    if len(found) != 1:
        refuse("no integer format_version in the header of the root group: not a file of a zoo")
    check_version(found[0])


def check_version(found: int) -> None:
    """Refuse files that another version of symzoo wrote.

    Args:
        found: Format version of a file.
    """
    if found > FORMAT_VERSION:
        refuse(
            f"written by a newer symzoo (format {found}; this one reads {FORMAT_VERSION}): upgrade symzoo"
        )
    if found < FORMAT_VERSION:
        refuse(
            f"written by an older symzoo (format {found}; this one reads {FORMAT_VERSION}): generate it again"
        )


def _check_root_message(message: _Message) -> None:
    plain = {_LINK_INFO: 0, _GROUP_INFO: _CONSTANT, _ATTRIBUTE_INFO: 4, _ATTRIBUTE: 0, _LINK: 0}
    if plain.get(message.kind) != message.flags:
        refuse(
            f"the root group has a message of kind {message.kind} with flags {message.flags}; the format has none"
        )
    if message.kind == _ATTRIBUTE_INFO and (
        message.body[:2] != b"\0\3" or message.body[4:] != b"\xff" * 24
    ):
        refuse(
            f"more than {MAX_ATTRIBUTES} attributes, or attributes that are not in the header of the root group"
        )
    if message.kind == _GROUP_INFO and message.body != b"\0\0":
        refuse("the root group has another kind of header than the format wants")


def _attribute(body: bytes, heap: Heap) -> tuple[str, str | int]:
    lengths = [int.from_bytes(body[i : i + 2], "little") for i in (2, 4, 6)]
    at, parts = 9, []
    for length in lengths:
        parts.append(body[at : at + length])
        at += length
    name = _name(parts[0].removesuffix(b"\0"), "an attribute")
    value = body[at:]
    if body[:2] != b"\3\0" or parts[2] != _SCALAR:
        refuse(f"attribute {name!r} is not a single value")
    if parts[1] == _INTEGER and len(value) == 8:
        return name, int.from_bytes(value, "little", signed=True)
    if parts[1] != _TEXT_TYPE or len(value) != TEXT_ENTRY:
        refuse(f"attribute {name!r} has type {_shown(parts[1])}; expected an int64 or a text")
    return name, heap.texts(value, f"attribute {name!r}")[0]


def _link(body: bytes) -> tuple[int, str, int]:
    """Order, name and address of a hard link."""
    flags = body[1] if len(body) > 1 else 0
    if flags & 8 and len(body) > 2 and body[2] != 0:
        refuse("a soft or external link; only hard links are allowed")
    at = 11 if flags & 16 else 10
    if (
        len(body) < at + 1
        or body[0] != 1
        or flags & 0xEB
        or not flags & 4
        or (flags & 16 and body[10] != 1)
    ):
        refuse("a link of another kind than the format wants")
    length = body[at]
    if len(body) != at + 1 + length + 8:
        refuse("a damaged link")
    order = int.from_bytes(body[2:10], "little")
    return (
        order,
        _name(body[at + 1 : at + 1 + length], "a column"),
        int.from_bytes(body[-8:], "little"),
    )


def _name(raw: bytes, what: str) -> str:
    try:
        name = raw.decode("utf-8")
    except UnicodeDecodeError:
        refuse(f"the name of {what} is not UTF-8: {raw[:80]!r}")
    check_name(name, what)
    return name


def check_name(name: str, what: str) -> None:
    """Refuse names that a table or a terminal cannot show, or that mean something to HDF5.

    Args:
        name: Name of a column or attribute.
        what: What it names, for errors.
    """
    if not name.isprintable() or not 0 < len(name.encode()) <= MAX_NAME or name == ".":
        refuse(
            f"{what} {name[:80]!r}: expected a name of 1 to {MAX_NAME} bytes of printable characters"
        )
    if "/" in name:
        refuse(f"{what} {name!r}: expected a name without '/', HDF5 would make groups of it")


def _column(blocks: Blocks, address: int, name: str) -> Column:
    what = f"{name!r}"
    messages = list(_messages(blocks, address, what))
    kinds = sorted(message.kind for message in messages)
    if _LINK_INFO in kinds or (_DATATYPE in kinds and _LAYOUT not in kinds):
        refuse(f"{what} is a group or a named type; expected datasets at the root")
    if kinds != [_DATASPACE, _DATATYPE, _FILL, _LAYOUT]:
        refuse(
            f"{what} must be contiguous, without filters, attributes and times, inside the file (messages {kinds})"
        )
    found = {message.kind: message for message in messages}
    if [found[kind].flags for kind in (_DATASPACE, _DATATYPE, _FILL, _LAYOUT)] != [
        0,
        _CONSTANT,
        _CONSTANT,
        0,
    ]:
        refuse(f"{what} shares a part of its header with other columns")
    offset = _offset(found[_LAYOUT].body, what)
    dtype = DTYPES.get(found[_DATATYPE].body)
    if dtype is None:
        refuse(
            f"{what} has type {_shown(found[_DATATYPE].body)}; expected one of {list(DTYPES.values())}"
        )
    shape = _shape(found[_DATASPACE].body, what)
    if dtype == TEXT and len(shape) != 1:
        refuse(f"{what} is text of rank {len(shape)}; expected rank 1")
    if found[_FILL].body not in (b"\3\x0a", b"\3\x02"):
        refuse(f"{what} has a fill value")
    column = Column(dtype, shape, offset)
    size = int.from_bytes(found[_LAYOUT].body[10:18], "little")
    if column.length != size:
        refuse(f"{what} declares {column.length} bytes and stores {size}")
    if not column.length or column.offset + column.length > len(blocks.data):
        refuse(f"{what} declares {column.length} bytes, more than the file holds, or none")
    blocks.take(column.offset, column.length, what)
    return column


def _shape(body: bytes, what: str) -> tuple[int, ...]:
    if len(body) < 4 or body[0] != 2:
        refuse(f"{what} has a damaged shape")
    rank = body[1]
    if body[3] != 1 or not 1 <= rank <= MAX_RANK:
        refuse(f"{what} has rank {rank}; expected 1 to {MAX_RANK}")
    sizes = [int.from_bytes(body[i : i + 8], "little") for i in range(4, len(body), 8)]
    if body[2] != 1 or len(body) != 4 + 16 * rank or sizes[:rank] != sizes[rank:]:
        refuse(f"{what} has a shape that may change")
    return tuple(sizes[:rank])


def _offset(body: bytes, what: str) -> int:
    if len(body) != 18 or body[0] not in (3, 4) or body[1] != 1:
        refuse(f"{what} must be contiguous, without filters, inside the file")
    return int.from_bytes(body[2:10], "little")


def _shown(datatype: bytes) -> str:
    """A datatype message for people."""
    kind = datatype[0] & 15 if datatype else len(_CLASSES)
    name = _CLASSES[kind] if kind < len(_CLASSES) else "unknown"
    return f"{name} {datatype[:24].hex()}"
