"""What is read of a checkpoint, whatever its format."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from zoo.importers.arrays import Array
from zoo.importers.states import without_prefixes
from zoo.store.file_map import refuse

_WIDTHS = ("float16", "bfloat16", "float64")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint, read as data.

    Attributes:
        tensors: Arrays by name, in the order of the file; contiguous, in native byte order, their
            types as stored, but for floats, which are float32. Names that mean one tensor share it.
        notes: What was recognized and changed, a line each.
        record: All else of the file: dicts, lists, numbers, texts, `Passive`. None if there is
            nothing else.
    """

    tensors: Mapping[str, Array]
    notes: tuple[str, ...]
    record: object = None


def checkpoint_of(
    tensors: Mapping[str, Array], kinds: Iterable[str], notes: list[str], record: object = None
) -> Checkpoint:
    """A checkpoint from what a reader has found.

    Args:
        tensors: Tensors by name, as `decoded` gives them.
        kinds: Types that were stored.
        notes: What the reader has recognized.
        record: All else.

    Returns:
        The checkpoint, prefixes of all names removed.

    Raises:
        FormatError: If it has no tensors.
    """
    if not tensors:
        refuse("expected tensors, found none")
    named = without_prefixes(tensors, notes)
    stored = set(kinds)
    notes += [f"{kind} became float32" for kind in _WIDTHS if kind in stored]
    return Checkpoint(named, tuple(notes), record)
