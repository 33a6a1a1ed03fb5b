"""Zip files of unknown origin, read where they lie: no name in them is ever a path on the disk."""

import zlib
from collections.abc import Mapping
from struct import Struct
from struct import error as StructError
from typing import NamedTuple

from zoo.store.file_map import FormatError, refuse

_END, _END_64, _LOCATOR = b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07"
_END_FORM, _LOCATOR_FORM = Struct("<4s4H2IH"), Struct("<4sIQI")
_END_64_FORM = Struct("<4sQ2H2I4Q")
_ENTRY, _LOCAL = Struct("<4s6H3I5H2I"), Struct("<4s5H3I2H")
_EXTRA, _WIDE, _IS_WIDE = Struct("<HH"), Struct("<Q"), 2**32 - 1
_LONGEST_END = 2**16 + _END_FORM.size
_STORED, _DEFLATED = 0, 8
_INFLATED, _RATIO = 2**27, 32
"""Bytes that any archive may grow to, and how often its own length more."""


class Member(NamedTuple):
    """One file in an archive.

    Attributes:
        method: How it is compressed.
        crc: Its checksum.
        packed: Its bytes in the archive.
        size: Its bytes.
        offset: Where its header lies.
    """

    method: int
    crc: int
    packed: int
    size: int
    offset: int


class Archive(NamedTuple):
    """A zip file.

    Attributes:
        data: All of it.
        members: By name, in its order.
    """

    data: memoryview
    members: Mapping[str, Member]

    def read(self, name: str) -> memoryview:
        """The bytes of a member: those of the file where they are stored, else unpacked.

        Args:
            name: Its name.

        Returns:
            As many bytes as the directory says, of its checksum. One that is missing, cut or
            damaged raises FormatError.
        """
        if name not in self.members:
            refuse(f"the archive has no member {name!r:.200}")
        member = self.members[name]
        content = _packed(self.data, name, member)
        if member.method == _DEFLATED:
            content = _inflated(content, name, member.size)
        elif member.method != _STORED or member.packed != member.size:
            refuse(f"{name!r:.200} is compressed by method {member.method}; expected deflate")
        if zlib.crc32(content) != member.crc:
            refuse(
                f"{name!r:.200} has another checksum than the archive says: it is damaged, or was "
                "written without checksums; write it again"
            )
        return content


def read_archive(data: memoryview) -> Archive:
    """Read the directory of a zip file.

    Args:
        data: The file.

    Returns:
        Its members, none of them read yet.

    Raises:
        FormatError: If it is damaged, its members overlap, or they would grow too much.
    """
    try:
        count, offset = _directory(data)
        members: dict[str, Member] = {}
        for _ in range(count):
            name, member, offset = _entry(data, offset)
            if name in members:
                refuse(f"the archive has {name!r:.200} twice")
            members[name] = member
    except StructError as error:
        raise FormatError("the directory of the archive is cut") from error
    if sum(member.packed for member in members.values()) > len(data):
        refuse("members of the archive overlap")
    inflated = sum(member.size for member in members.values() if member.method != _STORED)
    most = _INFLATED + _RATIO * len(data)
    if inflated > most:
        refuse(f"the archive grows to {inflated} bytes; expected at most {most} (a zip bomb?)")
    return Archive(data, members)


def _directory(data: memoryview) -> tuple[int, int]:
    """Number of entries of the directory, and where it lies."""
    tail = bytes(data[-_LONGEST_END:])
    place = tail.rfind(_END)
    if place < 0:
        refuse("the archive has no directory: it is cut")
    end = len(data) - len(tail) + place
    _, _, _, _, count, _, offset, _ = _END_FORM.unpack_from(data, end)
    locator = end - _LOCATOR_FORM.size
    if locator >= 0 and data[locator : locator + 4] == _LOCATOR:
        far = _LOCATOR_FORM.unpack_from(data, locator)[2]
        if far > len(data) or data[far : far + 4] != _END_64:
            refuse("the directory of the archive is not where it should be")
        *_, count, _, offset = _END_64_FORM.unpack_from(data, far)
    if count * _ENTRY.size > len(data):
        refuse(f"the archive has {count} members in {len(data)} bytes")
    return count, offset


def _entry(data: memoryview, at: int) -> tuple[str, Member, int]:
    """One entry of the directory, and where the next one lies."""
    if at > len(data):
        refuse("the directory of the archive is not in it")
    fields = _ENTRY.unpack_from(data, at)
    magic, _, _, flags, method, _, _, crc, packed, size, *lengths = fields[:13]
    start = at + _ENTRY.size
    end_of_name = start + lengths[0]
    stop = start + sum(lengths)
    if magic != b"PK\x01\x02" or flags & 1 or stop > len(data):
        refuse("the directory of the archive is damaged, or its members are encrypted")
    name = str(data[start:end_of_name], "utf-8", "backslashreplace")
    extra = bytes(data[end_of_name : end_of_name + lengths[1]])
    size, packed, offset = _wide(extra, [size, packed, fields[16]])
    return name, Member(method, crc, packed, size, offset), stop


def _wide(extra: bytes, numbers: list[int]) -> list[int]:
    """Numbers of an entry, those too large for it from its extra field."""
    if _IS_WIDE not in numbers:
        return numbers
    at = 0
    while at + 4 <= len(extra):
        kind, length = _EXTRA.unpack_from(extra, at)
        if kind == 1:
            words = iter(range(at + 4, at + 4 + length, _WIDE.size))
            return [
                _WIDE.unpack_from(extra, next(words, len(extra)))[0] if n == _IS_WIDE else n
                for n in numbers
            ]
        at += 4 + length
    return numbers


def _packed(data: memoryview, name: str, member: Member) -> memoryview:
    start = member.offset
    if start + _LOCAL.size > len(data):
        refuse(f"{name!r:.200} is not in the archive")
    fields = _LOCAL.unpack_from(data, start)
    start += _LOCAL.size + fields[-2] + fields[-1]
    if fields[0] != b"PK\x03\x04" or start + member.packed > len(data):
        refuse(f"{name!r:.200} is not in the archive")
    return data[start : start + member.packed]


def _inflated(packed: memoryview, name: str, size: int) -> memoryview:
    machine = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        content = machine.decompress(packed, size + 1)
    except zlib.error as error:
        raise FormatError(f"{name!r:.200} cannot be unpacked: it is damaged") from error
    if len(content) != size:
        refuse(f"{name!r:.200} unpacks to other than {size} bytes")
    return memoryview(content)
