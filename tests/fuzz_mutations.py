"""Mutations of a zoo: of bytes, of fields of the structure, of the manifest, the card and files."""

import json
import os
import random
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from zoo.store.atomic import sha256

NUMBERS = [
    0,
    1,
    2,
    3,
    7,
    8,
    255,
    256,
    4096,
    2**15,
    2**16 - 1,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**40,
    2**63 - 1,
    2**63,
    2**64 - 1,
]
VALUES: list[Any] = [
    *(
        -1,
        0,
        1,
        2.5,
        2**31,
        2**63,
        10**30,
        1e308,
        True,
        None,
        "",
        "a",
        "../../etc/passwd",
        "/etc/passwd",
        "https://example.org",
    ),
    *(
        "\x1b[2J",
        "\ud83d\ude00",
        "a" * 10**5,
        "{0.__class__}",
        "!!python/object/apply:os.system ['true']",
        [],
        {},
        [[]],
        [0] * 1000,
    ),
    *(
        {"name": "mlp", "hidden": [10**9]},
        {"name": "resnet", "width": 1e9},
        {"name": "transformer", "depth": 10**9},
    ),
    {"name": "gin"},
]
SIGNATURES = re.compile(rb"\x89SYMZOO|\x89HDF|OHDR|OCHK|FRHP|FHIB|FHDB|BTHD|BTLF|BTIN|GCOL")


def flip(rng: random.Random, data: bytearray) -> None:
    for _ in range(rng.choice([1, 1, 1, 4, 32])):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def metadata(rng: random.Random, data: bytearray) -> int:
    """A place in the structure of the file."""
    starts = [match.start() for match in SIGNATURES.finditer(data)] or [0]
    return min(rng.choice(starts) + rng.randrange(rng.choice([8, 48, 300])), len(data) - 8)


def flip_metadata(rng: random.Random, data: bytearray) -> None:
    for _ in range(rng.choice([1, 1, 2, 8])):
        data[metadata(rng, data)] ^= 1 << rng.randrange(8)


def overwrite(rng: random.Random, data: bytearray) -> None:
    """A size, address, count or type becomes another number, often an address of the same file."""
    for _ in range(rng.choice([1, 1, 2])):
        starts = [match.start() for match in SIGNATURES.finditer(data)]
        number = rng.choice([*NUMBERS, *starts, len(data), rng.randrange(2**16)])
        length = rng.choice([1, 2, 4, 8])
        at = metadata(rng, data)
        data[at : at + length] = (number % 2 ** (8 * length)).to_bytes(length, "little")


def truncate(rng: random.Random, data: bytearray) -> None:
    del data[rng.randrange(len(data)) :]


def extend(rng: random.Random, data: bytearray) -> None:
    data += rng.randbytes(rng.choice([1, 8, 4096]))


def splice(rng: random.Random, data: bytearray) -> None:
    length = rng.choice([4, 16, 64, 512])
    start, end = rng.randrange(len(data)), metadata(rng, data)
    data[end : end + length] = data[start : start + length]


def duplicate(rng: random.Random, data: bytearray) -> None:
    starts = [match.start() for match in SIGNATURES.finditer(data)] or [0]
    first, second = rng.choice(starts), rng.choice(starts)
    length = rng.choice([16, 64, 256])
    data[first : first + length] = data[second : second + length]


def delete(rng: random.Random, data: bytearray) -> None:
    start = metadata(rng, data)
    del data[start : start + rng.choice([1, 4, 64])]


def blank(rng: random.Random, data: bytearray) -> None:
    start, length = metadata(rng, data), rng.choice([1, 8, 64, 512])
    data[start : start + length] = bytes([rng.choice([0, 255])]) * len(data[start : start + length])


def map_fields(rng: random.Random, data: bytearray) -> None:
    """Values, keys and parts of the map change, as a stranger can do it."""
    length = int.from_bytes(data[8:16], "little")
    text = bytearray(data[16 : 16 + length])
    try:
        manifest(rng, text)
    except ValueError:  # it was changed before
        return flip(rng, data)
    if len(text) <= length:
        data[16 : 16 + length] = text.ljust(length)
    return None


def texts(rng: random.Random, data: bytearray) -> None:
    """Entries of text point elsewhere, or declare more."""
    heaps = [match.start() for match in re.finditer(b"GCOL", data)] or [0]
    for _ in range(rng.choice([1, 4])):
        at = rng.choice(heaps) + rng.randrange(256)
        struct.pack_into("<Q", data, min(at, len(data) - 8), rng.choice(NUMBERS))


RAW = [flip, truncate, extend]
STRUCTURED = [
    flip_metadata,
    overwrite,
    overwrite,
    overwrite,
    splice,
    duplicate,
    delete,
    blank,
    map_fields,
    map_fields,
    map_fields,
    texts,
]


def places(value: Any, matches: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """All containers of a JSON value with their keys."""
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, inner in items:
        matches.append((value, key))
        places(inner, matches)
    return matches


def manifest(rng: random.Random, data: bytearray) -> None:
    """Values, keys and parts of the manifest change."""
    tree = json.loads(data)
    for _ in range(rng.choice([1, 1, 2, 5])):
        container, key = rng.choice(places(tree, []))
        kind = rng.randrange(5)
        if kind == 0:
            del container[key]
        elif kind == 1 and isinstance(container, dict):
            container[rng.choice([str(value)[:50] for value in VALUES])] = container.pop(key)
        elif kind == 2:
            other, place = rng.choice(places(tree, []))
            container[key] = json.loads(json.dumps(other[place]))
        else:
            container[key] = json.loads(json.dumps(rng.choice([*VALUES, rng.choice(NUMBERS)])))
    data[:] = json.dumps(tree).encode()


def manifest_text(rng: random.Random, data: bytearray) -> None:
    """Its text is deep, long, or not JSON."""
    kind = rng.randrange(5)
    if kind == 0:
        data[:] = b"[" * 10**6
    elif kind == 1:
        data[:] = b'{"config": ' * 10**5 + b"1" + b"}" * 10**5
    elif kind == 2:
        at = rng.choice([m.start() for m in re.finditer(rb"\d", data)])
        data[at:at] = b"9" * rng.choice([20, 400, 10**6])
    elif kind == 3:
        data[:] = b"[" + b"{}," * 10**6 + b"0]"
    else:
        flip(rng, data)


def card(rng: random.Random, data: bytearray) -> None:
    rng.choice([flip, truncate, splice, delete])(rng, data)


def folder(rng: random.Random, path: Path) -> None:
    """The file becomes a link, a pipe, a folder, nothing, or very long."""
    kind = rng.randrange(6)
    size = path.stat().st_size
    if kind == 0:
        with path.open("r+b") as file:
            file.truncate(2**40)  # has holes: no byte of it is on disk
        return
    path.unlink()
    if kind == 1:
        path.symlink_to("/etc/passwd")
    elif kind == 2:
        os.mkfifo(path)
    elif kind == 3:
        path.mkdir()
    elif kind == 4:
        path.symlink_to(path)
    else:
        outside = path.parents[2] / "outside.h5"
        outside.write_bytes(b"\0" * size)
        path.symlink_to(outside)


def mutate(rng: random.Random, directory: Path) -> tuple[str, bool]:
    """Change a zoo.

    Returns:
        What was done; whether the manifest knows of the change.
    """
    group = rng.choices(
        ["raw", "structured", "manifest", "text", "card", "folder"], [15, 60, 15, 3, 2, 5]
    )[0]
    if group in ("manifest", "text", "card"):
        path = directory / ("README.md" if group == "card" else "zoo.json")
        change: Callable[..., None] = {"manifest": manifest, "text": manifest_text, "card": card}[
            group
        ]
        data = bytearray(path.read_bytes())
        change(rng, data)
        path.write_bytes(data)
        return change.__name__, False
    path = rng.choice(sorted(directory.glob("*/*.h5")))
    if group == "folder":
        folder(rng, path)
        return "folder", False
    data = bytearray(path.read_bytes())
    before = bytes(data)
    changes = [
        rng.choice(RAW if group == "raw" else STRUCTURED) for _ in range(rng.choice([1, 1, 1, 3]))
    ]
    for change in changes:
        if len(data) > 512:
            change(rng, data)
    path.write_bytes(data)
    told = rng.random() < 0.6 and len(data) > 0
    if told or bytes(data) == before:
        tell(directory, path)
    return changes[0].__name__, told or bytes(data) == before


def tell(directory: Path, path: Path) -> None:
    """Write length and hash of a file into the manifest, as a stranger would."""
    tree = json.loads((directory / "zoo.json").read_text())
    name = str(path.relative_to(directory))
    for population, entry in tree["populations"].items():
        files = (
            entry["shards"]
            | entry["trajectory"]
            | {f"constants/{population}.h5": entry["constants"]}
        )
        if files.get(name):
            files[name].update(bytes=path.stat().st_size, sha256=sha256(path))
    (directory / "zoo.json").write_text(json.dumps(tree))
