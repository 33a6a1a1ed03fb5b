"""A second reader of shards, written from `docs/store_format.md` alone: numpy, no HDF5 library, no checks, no speed."""

from pathlib import Path

import numpy as np

UNDEFINED = 2**64 - 1


def number(data: bytes, at: int, length: int = 8) -> int:
    return int.from_bytes(data[at : at + length], "little")


def messages(data: bytes, address: int) -> list[tuple[int, bytes]]:
    """Kind and content of the messages of an object header."""
    flags = data[address + 5]
    width = 1 << (flags & 3)
    start = address + 6 + width
    chunks = [(start, start + number(data, address + 6, width))]
    found = []
    for begin, stop in chunks:  # continuations are appended while this goes on
        at = begin
        while at + 4 <= stop:
            kind, length = data[at], number(data, at + 1, 2)
            at += 6 if flags & 4 else 4
            body = data[at : at + length]
            at += length
            if kind == 16:
                offset, size = number(body, 0), number(body, 8)
                chunks.append((offset + 4, offset + size - 4))
            else:
                found.append((kind, body))
    return found


def link(body: bytes) -> tuple[int, str, int]:
    """Creation order, name and address."""
    at = 11 if body[1] & 16 else 10
    return number(body, 2), body[at + 1 : at + 1 + body[at]].decode(), number(body, len(body) - 8)


def leaves(data: bytes, address: int, count: int, depth: int, record: int) -> list[bytes]:
    """Records of a B-tree in any order."""
    content = address + 6
    found = [data[content + record * i :][:record] for i in range(count)]
    if depth == 0:
        return found
    most = (512 - 10) // record
    pointer = 9
    for level in range(2, depth + 1):
        most = (502 - pointer) // (record + pointer) * (most + 1) + most
        pointer = 9 + (most.bit_length() - 1) // 8 + 1
        assert level < 3, "a hundred lines are enough for depth 2"
    for i in range(count + 1):
        child = content + record * count + pointer * i
        found += leaves(data, number(data, child), data[child + 8], depth - 1, record)
    return found


def heap_blocks(data: bytes, heap: int) -> list[tuple[int, int, int]]:
    """Place in the heap, length and address of its blocks."""
    root, rows = number(data, heap + 132), number(data, heap + 140, 2)
    if rows == 0:
        return [(0, 512, root)]
    sizes = [512 * 2 ** max(0, k // 4 - 1) for k in range(4 * rows)]
    places = np.cumsum([0, *sizes]).tolist()
    return [
        (place, size, number(data, root + 17 + 8 * k))
        for k, (place, size) in enumerate(zip(places, sizes, strict=False))
    ]


def links(data: bytes, root: list[tuple[int, bytes]]) -> list[tuple[int, str, int]]:
    info = next(body for kind, body in root if kind == 2)
    heap, by_order = number(info, 10), number(info, 26)
    if heap == UNDEFINED:
        return sorted(link(body) for kind, body in root if kind == 6)
    tree, depth = number(data, by_order + 16), number(data, by_order + 12, 2)
    blocks = heap_blocks(data, heap)
    found = []
    for record in leaves(data, tree, number(data, by_order + 24, 2), depth, 15):
        place, length = number(record, 9, 4), number(record, 13, 2)
        start, _, address = next(b for b in blocks if b[0] <= place < b[0] + b[1])
        found.append(link(data[address + place - start :][:length]))
    return sorted(found)


def texts(data: bytes, entries: bytes) -> list[str]:
    found = []
    for row in range(0, len(entries), 16):
        length, heap, wanted = (
            number(entries, row, 4),
            number(entries, row + 4),
            number(entries, row + 12, 4),
        )
        at = heap + 16
        while length and number(data, at, 2) != wanted:
            at += 16 + -(-number(data, at + 8) // 8) * 8
        found.append(data[at + 16 : at + 16 + length].decode() if length else "")
    return found


def read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str | int]]:
    """Columns and attributes of a file that `write_columns` wrote."""
    data = path.read_bytes()
    root = messages(data, number(data, 36))
    columns = {}
    for _, name, address in links(data, root):
        parts = dict(messages(data, address))
        shape = [number(parts[1], 4 + 8 * i) for i in range(parts[1][1])]
        raw = data[number(parts[8], 2) :][: number(parts[8], 10)]
        columns[name] = decode(data, parts[3], raw).reshape(shape)
    return columns, dict(attribute(data, body) for kind, body in root if kind == 12)


def decode(data: bytes, datatype: bytes, raw: bytes) -> np.ndarray:
    kind, size = datatype[0] & 15, datatype[4]
    if kind == 9:
        return np.array(texts(data, raw), dtype=object)
    code = {0: "i" if size > 1 else "u", 1: "f", 8: "b"}[kind]
    return np.frombuffer(raw, f"<{code}{size}")


def attribute(data: bytes, body: bytes) -> tuple[str, str | int]:
    name, datatype, space = (number(body, at, 2) for at in (2, 4, 6))
    start = 9 + name
    value = decode(data, body[start : start + datatype], body[start + datatype + space :])[0]
    return body[9 : start - 1].decode(), value if isinstance(value, str) else int(value)
