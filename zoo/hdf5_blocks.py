"""Bytes of an HDF5 file of unknown origin: every block is read once, inside the file, with its checksum checked.

The layouts are those of the HDF5 File Format Specification, version 3.0; `docs/store_format.md`
names the part that a zoo uses.
"""

import struct
from bisect import bisect
from typing import NoReturn

MAX_METADATA = 2 * 2**20
"""Bytes of structure (not data, not text) that a file may have."""
UNDEFINED = 2**64 - 1
"""The address of what does not exist."""
_MASK = 2**32 - 1


class FormatError(ValueError):
    """Bytes that are not those of a file of a zoo; the message does not name the file yet."""


def refuse(why: str) -> NoReturn:
    """Refuse the file.

    Args:
        why: What was expected and what was found.

    Raises:
        FormatError: Always.
    """
    raise FormatError(why)


class Blocks:
    """The bytes of one file, handed out in blocks that may not overlap.

    Args:
        data: The file.
    """

    def __init__(self, data: memoryview):
        self.data = data
        self._taken: list[tuple[int, int, str]] = []  # start, stop and what it holds, in order
        self._metadata = 0

    def take(self, offset: int, length: int, what: str) -> None:
        """Mark a range as used; bytes that counted twice would make a small file large in memory.

        Args:
            offset: Where it starts.
            length: How long it is.
            what: What it holds, for errors.
        """
        if length < 1 or offset + length > len(self.data):
            refuse(
                f"{what} lies at bytes {offset} to {offset + length} of a file of {len(self.data)}"
            )
        place = bisect(self._taken, (offset, offset + length, what))
        for start, stop, other in self._taken[max(0, place - 1) : place + 1]:
            if start < offset + length and offset < stop:
                refuse(f"{what} overlaps {other}")
        self._taken.insert(place, (offset, offset + length, what))

    def block(self, offset: int, length: int, what: str) -> bytes:
        """Take a range of structure and read it.

        Args:
            offset: Where it starts.
            length: How long it is.
            what: What it holds, for errors.

        Returns:
            Its bytes.
        """
        self._metadata += length
        if self._metadata > MAX_METADATA:
            refuse(f"more than {MAX_METADATA} bytes of structure")
        self.take(offset, length, what)
        return bytes(self.data[offset : offset + length])


def checked(block: bytes, what: str) -> bytes:
    """A block without the checksum at its end.

    Args:
        block: Its bytes.
        what: What it is, for errors.

    Returns:
        The bytes before the checksum.
    """
    body, stored = block[:-4], block[-4:]
    if checksum(body) != int.from_bytes(stored, "little"):
        refuse(f"the checksum of {what} is wrong: the file is damaged")
    return body


def checksum(data: bytes) -> int:
    """Jenkins' lookup3 with initial value 0, the checksum of HDF5's metadata.

    Args:
        data: Any bytes.

    Returns:
        A number of 32 bits.

    >>> hex(checksum(b"Four score and seven years ago"))
    '0x17770551'
    """
    a = b = c = (0xDEADBEEF + len(data)) & _MASK
    words = struct.unpack(f"<{(len(data) + 11) // 12 * 3}I", data + bytes(-len(data) % 12))
    if not words:
        return c
    # rotations are written out: a call for each took most of the time of opening a file
    for i in range(0, len(words) - 3, 3):
        a, b, c = a + words[i], b + words[i + 1], (c + words[i + 2]) & _MASK
        a = ((a - c) ^ (c << 4 | c >> 28)) & _MASK
        c = (c + b) & _MASK
        b = ((b - a) ^ (a << 6 | a >> 26)) & _MASK
        a = (a + c) & _MASK
        c = ((c - b) ^ (b << 8 | b >> 24)) & _MASK
        b = (b + a) & _MASK
        a = ((a - c) ^ (c << 16 | c >> 16)) & _MASK
        c = (c + b) & _MASK
        b = ((b - a) ^ (a << 19 | a >> 13)) & _MASK
        a = (a + c) & _MASK
        c = ((c - b) ^ (b << 4 | b >> 28)) & _MASK
        b = (b + a) & _MASK
    a, b, c = (a + words[-3]) & _MASK, (b + words[-2]) & _MASK, (c + words[-1]) & _MASK
    c = ((c ^ b) - (b << 14 | b >> 18)) & _MASK
    a = ((a ^ c) - (c << 11 | c >> 21)) & _MASK
    b = ((b ^ a) - (a << 25 | a >> 7)) & _MASK
    c = ((c ^ b) - (b << 16 | b >> 16)) & _MASK
    a = ((a ^ c) - (c << 4 | c >> 28)) & _MASK
    b = ((b ^ a) - (a << 14 | a >> 18)) & _MASK
    return ((c ^ b) - (b << 24 | b >> 8)) & _MASK
