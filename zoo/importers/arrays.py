"""Tensors and arrays that a pickle describes, as arrays of numpy."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Shaped

from zoo.importers.machine import Makers
from zoo.importers.numbers import BFLOAT16, DTYPES, check_length, decoded, kind_of, shape_of
from zoo.importers.passive import Passive, shown
from zoo.store.file_map import refuse

Array = Shaped[np.ndarray, "..."]
Bytes = memoryview | bytes
STORAGES = {
    "Double": "float64",
    "Float": "float32",
    "Half": "float16",
    "BFloat16": BFLOAT16,
    "Long": "int64",
    "Int": "int32",
    "Short": "int16",
    "Char": "int8",
    "Byte": "uint8",
    "Bool": "bool",
}
"""Types of torch's storages, without the word Storage."""
_TENSOR, _TENSOR_3 = "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor_v3"
_TENSOR_1, _OF_TYPE = "torch._utils._rebuild_tensor", "torch._tensor._rebuild_from_type_v2"
_PARAMETERS = ("torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state")
_NUMPY = ("numpy.core", "numpy._core")
_BYTES = tuple(
    f"{root}.{kind}" for root in ("builtins", "__builtin__") for kind in ("bytes", "bytearray")
)
_ARRAYS = (
    "torch._utils._rebuild_",
    "torch._tensor._rebuild_",
    *(f"{root}.multiarray._reconstruct" for root in _NUMPY),
    *(f"{root}.numeric._frombuffer" for root in _NUMPY),
)
_NESTED = 4
_TIMES = 4
"""How often the bytes of a file may occur in its tensors: tensors of one storage overlap."""
_KNOWN = {_TENSOR, _TENSOR_1, _TENSOR_3, _OF_TYPE, *_PARAMETERS, "torch.Size", "torch.device"}


class Arrays:
    """The arrays of one file.

    Each is built when it is asked for, and once: tensors that are one share their memory.

    Args:
        storage: The bytes of a storage of torch by its key.
        length: Bytes of the file, unpacked, which bound those of its tensors.
        order: Byte order of its storages, as numpy writes it.
    """

    def __init__(self, storage: Callable[[str], memoryview], length: int, order: str = "<") -> None:
        self._storage = storage
        self._left = _TIMES * length
        self._order = order
        self._contents: dict[str, memoryview] = {}
        self._built: dict[object, Array] = {}
        self.kinds: dict[str, None] = {}

    def of(self, value: object, name: str) -> Array | None:
        """The array that a record means.

        Args:
            value: Anything of a pickle.
            name: Its name, for errors.

        Returns:
            The array, floats as float32; None if the record means none. One that does not fit its
            bytes, or is of a type without numbers, raises FormatError.
        """
        for _ in range(_NESTED):
            if not isinstance(value, Passive) or value.args is None:
                return None
            if value.name in _PARAMETERS and value.args:
                value = value.args[0]
            elif value.name == _OF_TYPE and len(value.args) > 2:
                function, _, args = value.args[:3]
                if not isinstance(function, Passive) or not isinstance(args, tuple):
                    return None
                value = Passive(function.name, args)
            else:
                break
        return self._read(value, name) if isinstance(value, Passive) else None

    def _read(self, value: Passive, name: str) -> Array | None:
        args = value.args or ()
        if value.name in (_TENSOR, _TENSOR_1, _TENSOR_3):
            if len(args) < 4:
                refuse(f"{name!r:.200} is described by {len(args)} values; expected 4 or more")
            return self._tensor(name, args)
        if value.name in [f"{root}.multiarray._reconstruct" for root in _NUMPY]:
            if isinstance(value.state, tuple) and len(value.state) == 5:
                _, shape, dtype, is_fortran, content = value.state
                return self._array(name, content, dtype, shape, "F" if is_fortran else "C")
        elif value.name in [f"{root}.numeric._frombuffer" for root in _NUMPY] and len(args) == 4:
            content, dtype, shape, order = args
            return self._array(name, content, dtype, shape, "F" if order == "F" else "C")
        return None

    def _tensor(self, name: str, args: tuple[Any, ...]) -> Array:
        """A strided tensor in a storage."""
        reference, offset, sizes, steps = args[:4]
        storage, key = _storage_of(reference, name)
        told = args[6:7]
        kind = dtype_of(told[0]) if storage == "Untyped" and told else STORAGES.get(storage)
        if kind is None:
            refuse(f"{name!r:.200} is a tensor of type {storage!r:.80}; expected real numbers")
        shape, strides = shape_of(sizes, name), shape_of(steps, name)
        if len(shape) != len(strides) or type(offset) is not int or offset < 0:
            refuse(f"{name!r:.200} lies at {shown(offset)} with strides {strides}; shape {shape}")
        place = (key, kind, offset, shape, strides)
        if place not in self._built:
            stored = self._stored(name, *place)
            self._built[place] = self._decoded(stored, kind, name)
        return self._built[place]

    def _stored(
        self,
        name: str,
        key: str,
        kind: str,
        offset: int,
        shape: tuple[int, ...],
        strides: tuple[int, ...],
    ) -> Array:
        """A tensor as it lies in its storage."""
        content, dtype = self._content(key), np.dtype(self._order + DTYPES[kind])
        _check_place(name, len(content) // dtype.itemsize, offset, shape, strides)
        self._spend(name, math.prod(shape) * dtype.itemsize)
        steps = tuple(stride * dtype.itemsize for stride in strides)
        start = offset * dtype.itemsize if math.prod(shape) else 0
        return np.ndarray(shape, dtype, content, start, steps)

    def _content(self, key: str) -> memoryview:
        if key not in self._contents:
            self._contents[key] = self._storage(key)
        return self._contents[key]

    def _array(self, name: str, content: object, dtype: object, sizes: object, order: Any) -> Array:
        """An array of numpy."""
        stored, shape, raw = numpy_dtype(dtype), shape_of(sizes, name), bytes_of(content)
        kind = None if stored is None else kind_of(stored)
        if stored is None or raw is None or kind is None:
            refuse(f"{name!r:.200} is an array without numbers, or of a type that is not read")
        check_length(len(raw), shape, stored.itemsize, name)
        self._spend(name, len(raw))
        return self._decoded(np.ndarray(shape, stored, raw, order=order), kind, name)

    def _decoded(self, stored: Array, kind: str, name: str) -> Array:
        self.kinds[kind] = None
        return decoded(stored, kind, name)

    def _spend(self, name: str, length: int) -> None:
        self._left -= length
        if self._left < 0:
            refuse(
                f"{name!r:.200} is one tensor too many: all are more than {_TIMES} times as large "
                "as the file; save them contiguous and without overlap"
            )


def _storage_of(reference: object, name: str) -> tuple[str, str]:
    """Type and key of the storage that a tensor refers to."""
    kind, key = None, None
    if isinstance(reference, tuple) and len(reference) >= 5 and reference[0] == "storage":
        kind, key = reference[1], reference[2]
    if not isinstance(kind, Passive) or not isinstance(key, str):
        refuse(f"{name!r:.200} refers to {shown(reference)}; expected a storage of the file")
    return kind.name.rpartition(".")[2].removesuffix("Storage"), key


def _check_place(
    name: str, held: int, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]
) -> None:
    """Check that a tensor lies in its storage, and is not more than it."""
    count = math.prod(shape)
    last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
    if count and (last >= held or count > held):
        refuse(
            f"{name!r:.200} has shape {list(shape)}, strides {list(strides)} and offset {offset}: "
            f"not in its storage of {held} values; save it contiguous"
        )


def is_array(value: object) -> bool:
    """Whether a record means a tensor or an array, be it of a kind that is not read.

    Args:
        value: Anything of a pickle.

    Returns:
        Whether its name says so.
    """
    return isinstance(value, Passive) and value.args is not None and value.name.startswith(_ARRAYS)


def dtype_of(value: object) -> str | None:
    """The type that a global of torch means.

    Args:
        value: A record.

    Returns:
        One of `DTYPES`, or None.
    """
    name = value.name.removeprefix("torch.") if isinstance(value, Passive) else None
    return name if name in DTYPES else None


def numpy_dtype(value: object) -> np.dtype | None:
    """The type that a record of numpy means.

    Args:
        value: A record.

    Returns:
        A type of plain numbers, or None.
    """
    if not isinstance(value, Passive) or value.name != "numpy.dtype" or not value.args:
        return None
    code, order = value.args[0], ""
    if isinstance(value.state, tuple) and len(value.state) > 1 and value.state[1] in ("<", ">"):
        order = str(value.state[1])
    if not isinstance(code, str) or code not in [*DTYPES.values(), "?"]:
        return None
    return np.dtype(order + code)


def bytes_of(value: object) -> Bytes | None:
    """Bytes in any of the forms that pickles have for them.

    Args:
        value: A record.

    Returns:
        The bytes, or None.
    """
    if isinstance(value, Passive) and value.args is not None:
        is_text = value.name == "_codecs.encode" and value.args[1:] in (("latin1",), ("latin-1",))
        if value.name in _BYTES and not value.args:
            return b""
        is_whole = is_text or value.name in _BYTES
        return bytes_of(value.args[0]) if is_whole and value.args else None
    if isinstance(value, str):
        return value.encode("latin-1", "ignore")
    return value if isinstance(value, bytes) else None


def _scalar(args: tuple[Any, ...]) -> object:
    """A number of numpy as one of Python."""
    dtype = numpy_dtype(args[0]) if len(args) == 2 else None
    raw = bytes_of(args[1]) if dtype is not None else None
    if dtype is None or raw is None or len(raw) != dtype.itemsize:
        return Passive("numpy.core.multiarray.scalar", args)
    return np.frombuffer(raw, dtype)[0].item()


def _dict(args: tuple[Any, ...]) -> object:
    del args
    return {}


MAKERS: Makers = {
    "collections.OrderedDict": _dict,
    "collections.defaultdict": _dict,
    **{f"{root}.multiarray.scalar": _scalar for root in _NUMPY},
}
"""What is more than a record: ordered dicts, and numbers."""


def is_harmless(name: str) -> bool:
    """Whether a global is one of those that every checkpoint has, so that nobody needs be told.

    Args:
        name: Its full name.

    Returns:
        Whether it describes tensors, arrays or dicts.
    """
    is_storage = name.startswith("torch.") and name.endswith("Storage")
    is_numpy = name.startswith("numpy.") and name != "numpy.random"
    return is_storage or is_numpy or name in {*_KNOWN, *MAKERS, *_BYTES, "_codecs.encode"}
