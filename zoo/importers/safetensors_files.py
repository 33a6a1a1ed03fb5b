"""Files of safetensors: the length of a header, JSON, and the bytes of tensors."""

from typing import Any

import numpy as np

from zoo.importers.arrays import Array
from zoo.importers.checkpoint import Checkpoint, checkpoint_of
from zoo.importers.numbers import BFLOAT16, DTYPES, check_length, decoded, shape_of
from zoo.store.file_map import bounded_json, refuse

_LONGEST_HEADER = 2**26
_MOST_VALUES = 2**22
_WORDS = {"F": "float", "I": "int", "U": "uint"}
_METADATA = "__metadata__"


def read_safetensors(data: memoryview) -> Checkpoint:
    """Read a file of safetensors.

    Args:
        data: The file.

    Returns:
        Its tensors, and its metadata as the record.
    """
    header, content = _header(data)
    record = header.pop(_METADATA, None)
    kinds: dict[str, None] = {}
    places = {name: _offsets(name, entry) for name, entry in header.items()}
    _check_places(places, len(content))
    tensors = {
        name: _tensor(name, header[name], content[start:end], kinds)
        for name, (start, end) in places.items()
    }
    return checkpoint_of(tensors, kinds, [], record or None)


def _check_places(places: dict[str, tuple[int, int]], length: int) -> None:
    """Check that tensors lie one behind the other and fill the file."""
    last = 0
    for name, (start, end) in sorted(places.items(), key=lambda item: item[1]):
        if start != last or end > length:
            refuse(
                f"{name!r:.200} lies at {start} to {end} of {length} bytes; expected it to start "
                f"at {last}, where the one before it ends"
            )
        last = end
    if last != length:
        refuse(f"expected {last} bytes of tensors, found {length}")


def _header(data: memoryview) -> tuple[dict[str, Any], memoryview]:
    length = int.from_bytes(data[:8], "little")
    most = min(_LONGEST_HEADER, len(data) - 8)
    if length > most:
        refuse(f"expected safetensors with a header of at most {most} bytes, found {length}")
    header = bounded_json(bytes(data[8 : 8 + length]), _MOST_VALUES, "the header")
    if not isinstance(header, dict):
        refuse("the header of safetensors is no object of JSON")
    return header, data[8 + length :]


def _offsets(name: str, entry: object) -> tuple[int, int]:
    offsets = entry.get("data_offsets") if isinstance(entry, dict) else None
    start, end = offsets if isinstance(offsets, list) and len(offsets) == 2 else (None, None)
    if type(start) is not int or type(end) is not int or not 0 <= start <= end:
        refuse(f"{name!r:.200} has offsets {offsets!r:.100}; expected where it starts and ends")
    return start, end


def _tensor(name: str, entry: dict[str, Any], content: memoryview, kinds: dict[str, None]) -> Array:
    code = entry.get("dtype")
    kind = _kind(code) if isinstance(code, str) else None
    if kind is None:
        refuse(f"{name!r:.200} is a tensor of type {code!r:.80}; expected real numbers")
    kinds[kind] = None
    shape, dtype = shape_of(entry.get("shape"), name), np.dtype(DTYPES[kind]).newbyteorder("<")
    check_length(len(content), shape, dtype.itemsize, name)
    return decoded(np.ndarray(shape, dtype, content), kind, name)


def _kind(code: str) -> str | None:
    """The type that safetensors calls F32, I64, BF16 or BOOL."""
    name = {"BF16": BFLOAT16, "BOOL": "bool"}.get(code, _WORDS.get(code[:1], "") + code[1:])
    return name if name in DTYPES else None
