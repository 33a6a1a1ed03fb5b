"""Text in an HDF5 file: entries of fixed length that point into global heaps."""

import numpy as np

from zoo.hdf5_blocks import Blocks, refuse

TEXT_ENTRY = 16
"""Bytes of an entry: length, address of a heap, number of the object in it."""
_ENTRY = np.dtype([("length", "<u4"), ("heap", "<u8"), ("number", "<u4")])
_HEADER = 16


class Heap:
    """The global heaps of a file; text may not need more memory than the file has bytes.

    Args:
        blocks: The file.
        most: Texts that the file has, at most: there are no more objects in its heaps.
    """

    def __init__(self, blocks: Blocks, most: int):
        self._most = most
        self._blocks = blocks
        self._collections: dict[int, dict[int, tuple[int, int]]] = {}

    def texts(self, entries: bytes | memoryview, what: str) -> list[str]:
        """The texts that entries point to.

        Args:
            entries: Entries of 16 bytes each.
            what: Who asks, for errors.

        Returns:
            One text for each entry.
        """
        table = np.frombuffer(entries, _ENTRY)
        total = int(table["length"].sum(dtype=np.uint64))
        if total > len(self._blocks.data):
            refuse(f"{what} declares {total} bytes of text, more than the file holds")
        return [self._text(length, heap, number, what) for length, heap, number in table.tolist()]

    def _text(self, length: int, address: int, number: int, what: str) -> str:
        if length == 0:
            return ""
        if address not in self._collections:
            self._collections[address] = self._collection(address)
        offset, size = self._collections[address].get(number, (0, -1))
        if size != length:
            refuse(f"{what} points to a text that is not there")
        try:
            text = bytes(self._blocks.data[offset : offset + length]).decode("utf-8")
        except UnicodeDecodeError:
            refuse(f"{what} holds text that is not UTF-8")
        if "\0" in text:
            refuse(f"{what} holds text with a zero character")
        return text

    def _collection(self, address: int) -> dict[int, tuple[int, int]]:
        """Offset and length of the objects of a heap by their number."""
        what, data = "a heap of text", self._blocks.data
        if address + _HEADER > len(data) or bytes(data[address : address + 8]) != b"GCOL\1\0\0\0":
            refuse(f"{what} is not where it should be")
        size = int.from_bytes(data[address + 8 : address + 16], "little")
        self._blocks.take(address, size, what)
        objects: dict[int, tuple[int, int]] = {}
        at, stop = address + _HEADER, address + size
        while at + _HEADER <= stop:
            number, length = (
                int.from_bytes(data[at : at + 2], "little"),
                int.from_bytes(data[at + 8 : at + 16], "little"),
            )
            if number == 0:
                break  # the rest is free
            self._most -= 1
            if at + _HEADER + length > stop or number in objects or self._most < 0:
                refuse(f"{what} is damaged, or holds more texts than the columns of the file")
            objects[number] = (at + _HEADER, length)
            at += _HEADER + -(-length // 8) * 8
        return objects
