"""Links of a group that has many: a fractal heap holds them, two B-trees find them by name and by order of creation."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from zoo.hdf5_blocks import UNDEFINED, Blocks, checked, checksum, refuse

MAX_COLUMNS = 4096
_WIDTH, _FIRST_BLOCK, _LARGEST_BLOCK = 4, 512, 65536
_ROWS_OF_BLOCKS = 9  # rows of the heap's table whose blocks hold links themselves, not other blocks
_BLOCK_HEADER = 21
_NODE = 512
_MAX_DEPTH = 3
_HEAP_ID = 7
_BY_NAME, _BY_ORDER = 5, 6
_RECORD = {_BY_NAME: 4 + _HEAP_ID, _BY_ORDER: 8 + _HEAP_ID}


@dataclass(frozen=True)
class LinkInfo:
    """Where the links of a group are, if they are not in its header."""

    heap: int
    by_name: int
    by_order: int

    @classmethod
    def parse(cls, body: bytes) -> "LinkInfo":
        """Read a link info message.

        Args:
            body: Its bytes.

        Returns:
            The three addresses.
        """
        if len(body) != 34 or body[:2] != b"\x00\x03":
            refuse("the root group does not track and index the order of creation of its columns")
        heap, by_name, by_order = (int.from_bytes(body[i : i + 8], "little") for i in (10, 18, 26))
        if len({heap == UNDEFINED, by_name == UNDEFINED, by_order == UNDEFINED}) != 1:
            refuse("the root group has only a part of a heap of links")
        return cls(heap, by_name, by_order)


def dense_links(blocks: Blocks, info: LinkInfo) -> list[bytes]:
    """The link messages of a group that keeps them in a heap.

    Args:
        blocks: The file.
        info: Where they are.

    Returns:
        Link messages in order of creation; none if the group keeps them in its header.
    """
    if info.heap == UNDEFINED:
        return []
    heap = _heap(blocks, info.heap)
    by_order = [record[8:] for record in _records(blocks, info.by_order, _BY_ORDER)]
    by_name = [record[4:] for record in _records(blocks, info.by_name, _BY_NAME)]
    if len(set(by_order)) != len(by_order) or sorted(by_order) != sorted(by_name):
        refuse(
            "the two indices of columns, by name and by order, do not name the same columns once each"
        )
    return [_object(heap, identity) for identity in by_order]


def _heap(blocks: Blocks, address: int) -> list[tuple[int, bytes]]:
    """The blocks of a heap with their places in it, in order."""
    what = "the heap of links"
    header = checked(blocks.block(address, 146, what), what)
    expected = b"FRHP\0" + bytes([_HEAP_ID, 0, 0, 0, 2]) + (4096).to_bytes(4, "little")
    table = b"".join(
        n.to_bytes(k, "little")
        for n, k in ((_WIDTH, 2), (_FIRST_BLOCK, 8), (_LARGEST_BLOCK, 8), (32, 2), (1, 2))
    )
    huge_and_tiny = header[14:22] + header[78:110]
    if header[:14] != expected or any(huge_and_tiny) or header[110:132] != table:
        refuse(f"{what} is not as the format wants it")
    root, rows = (
        int.from_bytes(header[132:140], "little"),
        int.from_bytes(header[140:142], "little"),
    )
    if rows == 0:
        return [(0, _heap_block(blocks, address, root, 0, _FIRST_BLOCK))]
    if rows > _ROWS_OF_BLOCKS:
        refuse(f"{what} has {rows} rows of blocks; expected at most {_ROWS_OF_BLOCKS}")
    what = "the table of the heap of links"
    entries = checked(blocks.block(root, 17 + 8 * _WIDTH * rows + 4, what), what)
    if entries[:17] != b"FHIB\0" + address.to_bytes(8, "little") + bytes(4):
        refuse(f"{what} is not as the format wants it")
    found, place = [], 0
    for k in range(_WIDTH * rows):
        size = _FIRST_BLOCK * 2 ** max(0, k // _WIDTH - 1)
        child = int.from_bytes(entries[17 + 8 * k : 25 + 8 * k], "little")
        if child != UNDEFINED:
            found.append((place, _heap_block(blocks, address, child, place, size)))
        place += size
    return found


def _heap_block(blocks: Blocks, heap: int, address: int, place: int, size: int) -> bytes:
    block = blocks.block(address, size, "a block of the heap of links")
    start = b"FHDB\0" + heap.to_bytes(8, "little") + place.to_bytes(4, "little")
    stored = int.from_bytes(block[17:21], "little")
    if block[:17] != start or checksum(block[:17] + bytes(4) + block[_BLOCK_HEADER:]) != stored:
        refuse("a block of the heap of links is not where it should be, or its checksum is wrong")
    return block


def _object(heap: list[tuple[int, bytes]], identity: bytes) -> bytes:
    """An object of a heap."""
    place, length = int.from_bytes(identity[1:5], "little"), int.from_bytes(identity[5:7], "little")
    for start, block in heap:
        if (
            identity[0] == 0
            and start + _BLOCK_HEADER <= place
            and place + length <= start + len(block)
        ):
            return block[place - start : place - start + length]
    return refuse(f"no object {identity.hex()} in the heap of links")


def _records(blocks: Blocks, address: int, kind: int) -> list[bytes]:
    """The records of a B-tree, version 2, in their order."""
    what = "an index of columns"
    header = checked(blocks.block(address, 38, what), what)
    size, depth = _RECORD[kind], int.from_bytes(header[12:14], "little")
    expected = b"BTHD\0" + bytes([kind]) + _NODE.to_bytes(4, "little") + size.to_bytes(2, "little")
    total = int.from_bytes(header[26:34], "little")
    if header[:12] != expected or depth > _MAX_DEPTH or not 0 < total <= MAX_COLUMNS:
        refuse(
            f"{what} is not as the format wants it: depth {depth}, {total} columns; at most {MAX_COLUMNS} are allowed"
        )
    root, count = int.from_bytes(header[16:24], "little"), int.from_bytes(header[24:26], "little")
    records = list(_walk(blocks, root, kind, depth, count))
    if len(records) != total:
        refuse(f"{what} says {total} columns and holds {len(records)}")
    return records


def _walk(blocks: Blocks, address: int, kind: int, depth: int, count: int) -> Iterator[bytes]:
    size, what = _RECORD[kind], "a node of an index of columns"
    capacity, pointer = _capacity(size, depth)
    if not 0 < count <= capacity:
        refuse(f"{what} says {count} records; expected 1 to {capacity}")
    node = blocks.block(address, _NODE, what)
    used = 6 + size * count + (pointer * (count + 1) if depth else 0)
    body = checked(node[: used + 4], what)
    if body[:6] != (b"BTIN\0" if depth else b"BTLF\0") + bytes([kind]):
        refuse(f"{what} is not as the format wants it")
    for i in range(count + 1):
        if depth:
            child = body[6 + size * count + pointer * i :][:pointer]
            yield from _walk(blocks, int.from_bytes(child[:8], "little"), kind, depth - 1, child[8])
        if i < count:
            yield body[6 + size * i : 6 + size * (i + 1)]


def _capacity(size: int, depth: int) -> tuple[int, int]:
    """Records that a node can hold, and bytes of each of its pointers: an address, a count, and from depth 2 a total."""
    capacity, total, pointer = (_NODE - 10) // size, (_NODE - 10) // size, 0
    for level in range(1, depth + 1):
        pointer = 9 + (int(math.log2(total)) // 8 + 1 if level > 1 else 0)
        capacity = (_NODE - 10 - pointer) // (size + pointer)
        total = (capacity + 1) * total + capacity
    return capacity, pointer
