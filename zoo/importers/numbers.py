"""Arrays as symzoo takes them: native, contiguous, floats of 32 bits."""

import math

import numpy as np
from jaxtyping import Shaped

from zoo.importers.passive import shown
from zoo.store.file_map import refuse

DTYPES = {
    **{f"float{8 * size}": f"f{size}" for size in (2, 4, 8)},
    **{f"int{8 * size}": f"i{size}" for size in (1, 2, 4, 8)},
    **{f"uint{8 * size}": f"u{size}" for size in (1, 2, 4, 8)},
    "bool": "b1",
    "bfloat16": "u2",
}
"""Types of numbers that are read, and how numpy names their bytes."""
BFLOAT16 = "bfloat16"
_MAX_RANK = 32
_LARGEST = 2**48


def decoded(
    array: Shaped[np.ndarray, "*shape"], kind: str, name: str
) -> Shaped[np.ndarray, "*shape"]:
    """A copy of stored values.

    Args:
        array: The values as they lie in the file, of any strides and byte order.
        kind: One of `DTYPES`.
        name: What they are, for errors.

    Returns:
        The values, contiguous, in native byte order; floats of any width as float32.

    Raises:
        FormatError: If they are booleans that are neither true nor false.
    """
    if kind == BFLOAT16:
        wide = array.astype(np.uint32, order="C")
        wide <<= 16  # in place: an array of rank 0 stays one
        return wide.view(np.float32)
    if kind == "bool" and array.size and array.view(np.uint8).max() > 1:
        refuse(f"{name!r:.200} holds bytes that are neither False nor True")
    if array.dtype.kind == "f":
        with np.errstate(all="ignore"):  # what is too large for float32 is infinite
            return array.astype(np.float32, order="C")
    return array.astype(array.dtype.newbyteorder("="), order="C")


def kind_of(dtype: np.dtype) -> str | None:
    """The name of a type of numbers in `DTYPES`, if it is one.

    Args:
        dtype: Type of an array, of any byte order.

    Returns:
        Its name, or None.
    """
    return dtype.name if dtype.name in DTYPES and dtype.kind in "fiub" else None


def shape_of(sizes: object, name: str) -> tuple[int, ...]:
    """Check the shape of an array.

    Args:
        sizes: What should be its sizes.
        name: What it is, for errors.

    Returns:
        The sizes.

    Raises:
        FormatError: If it is no shape, or one that no memory holds.
    """
    if not isinstance(sizes, list | tuple) or len(sizes) > _MAX_RANK:
        refuse(f"{name!r:.200}: expected a shape of at most {_MAX_RANK} sizes")
    if not all(type(size) is int and 0 <= size <= _LARGEST for size in sizes):
        refuse(
            f"{name!r:.200} has shape {', '.join(map(shown, sizes)):.100}; expected natural numbers"
        )
    if math.prod(max(size, 1) for size in sizes) > _LARGEST:
        refuse(f"{name!r:.200} has shape {list(sizes)!r:.100}: more values than memory holds")
    return tuple(sizes)


def check_length(length: int, shape: tuple[int, ...], itemsize: int, name: str) -> None:
    """Check that bytes are as many as a shape needs.

    Args:
        length: Their number.
        shape: The shape, checked.
        itemsize: Bytes of one value.
        name: What they are, for errors.

    Raises:
        FormatError: If they are not.
    """
    expected = math.prod(shape) * itemsize
    if expected != length:
        refuse(
            f"{name!r:.200} has shape {list(shape)!r:.100}: expected {expected} bytes, found "
            f"{length}"
        )
