"""Files of `torch.save`: an archive since torch 1.6, one pickle after the other before."""

from typing import Any, NamedTuple

import numpy as np

from zoo.importers.archives import Archive, read_archive
from zoo.importers.arrays import MAKERS, STORAGES, Arrays, is_harmless
from zoo.importers.checkpoint import Checkpoint, checkpoint_of
from zoo.importers.inert import MAX_OPERATIONS, read_pickle
from zoo.importers.numbers import DTYPES
from zoo.importers.passive import Passive, shown
from zoo.importers.states import take_state
from zoo.store.file_map import refuse
from zoo.store.mapped import escape

MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""The first pickle of a file of torch before 1.6."""
_PICKLE = "data.pkl"
_PROTOCOL = 1001
_MOST_NAMES = 20
_LIGHTNING = "pytorch-lightning_version"


class Saved(NamedTuple):
    """All that `torch.save` was given, as a record.

    Attributes:
        root: The object.
        arrays: Gives the arrays of it.
        passive: Names of classes and functions that stayed names.
    """

    root: Any
    arrays: Arrays
    passive: tuple[str, ...]


def read_torch(data: memoryview) -> Checkpoint:
    """Read a checkpoint of torch.

    Args:
        data: The file.

    Returns:
        The state dict in it, and what else there is.
    """
    saved, notes = read_saved(data), []
    tensors, record = take_state(saved.root, saved.arrays, notes)
    if isinstance(saved.root, dict) and _LIGHTNING in saved.root:
        notes.append(f"a checkpoint of Lightning {shown(saved.root[_LIGHTNING])}")
    if saved.passive:
        names = ", ".join(escape(name)[:100] for name in saved.passive[:_MOST_NAMES])
        more = "" if len(saved.passive) <= _MOST_NAMES else f" and {len(saved.passive)} in all"
        notes.append(f"nothing was imported or called for: {names}{more}")
    return checkpoint_of(tensors, saved.arrays.kinds, notes, record)


def read_saved(data: memoryview, most: int = MAX_OPERATIONS) -> Saved:
    """Read a file of `torch.save`, whatever it was given.

    Args:
        data: The file.
        most: Operations of its pickle, at most.

    Returns:
        The object, as a record. A file that is damaged raises FormatError.
    """
    if data[: len(MAGIC)] == MAGIC:
        return _read_stream(data, most)
    return _read_archive(read_archive(data), most)


def _passive(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for name in names if not is_harmless(name))


def _read_archive(archive: Archive, most: int) -> Saved:
    pickles = [name for name in archive.members if name.rpartition("/")[2] == _PICKLE]
    if len(pickles) != 1:
        refuse(f"expected an archive with one {_PICKLE}, found {len(pickles)}")
    prefix = pickles[0].removesuffix(_PICKLE)
    if f"{prefix}constants.pkl" in archive.members:
        refuse("TorchScript, which is code; expected weights: save module.state_dict()")
    order = b"little"
    if f"{prefix}byteorder" in archive.members:
        order = bytes(archive.read(f"{prefix}byteorder"))
    pickle = read_pickle(archive.read(pickles[0]), MAKERS, most=most)
    arrays = Arrays(
        lambda key: archive.read(f"{prefix}data/{key}"),
        sum(member.size for member in archive.members.values()),
        ">" if order == b"big" else "<",
    )
    return Saved(pickle.root, arrays, _passive(pickle.names))


def _read_stream(data: memoryview, most: int) -> Saved:
    """Pickles of a number, the protocol, the machine, the object and the keys; then storages."""
    protocol = read_pickle(data, {}, len(MAGIC), most)
    machine = read_pickle(data, {}, protocol.end, most)
    if protocol.root != _PROTOCOL or not isinstance(machine.root, dict):
        refuse(f"expected protocol {_PROTOCOL} of torch, found {shown(protocol.root)}")
    pickle = read_pickle(data, MAKERS, machine.end, most)
    keys = read_pickle(data, {}, pickle.end, most)
    storages = _storages(data, keys.end, keys.root, _item_sizes(pickle.external))
    order = "<" if machine.root.get("little_endian", True) else ">"

    def storage(key: str) -> memoryview:
        if key not in storages:
            refuse(f"storage {key!r:.80} is not in the file")
        return storages[key]

    return Saved(pickle.root, Arrays(storage, len(data), order), _passive(pickle.names))


def _item_sizes(external: list[Any]) -> dict[object, int]:
    """Bytes of a value of each storage by its key."""
    sizes = {}
    for reference in external:
        if not isinstance(reference, tuple) or len(reference) != 6 or reference[0] != "storage":
            refuse("the file refers to something else than its storages")
        if reference[5] is not None:
            refuse("views of storages, of torch before 0.4; save it with a newer torch")
        _, kind, key, *_ = reference
        if not isinstance(kind, Passive) or not isinstance(key, str):
            refuse("the file refers to a storage without type or key")
        name = kind.name.rpartition(".")[2].removesuffix("Storage")
        sizes[key] = np.dtype(DTYPES[STORAGES[name]]).itemsize if name in STORAGES else 1
    return sizes


def _storages(
    data: memoryview, at: int, keys: object, sizes: dict[object, int]
) -> dict[str, memoryview]:
    """Where each storage lies: its number of values, and these."""
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        refuse("the file lists no storages")
    found = {}
    for key in keys:
        start = at + 8
        at = start + int.from_bytes(data[at:start], "little") * sizes.get(key, 1)
        if at > len(data):
            refuse(f"storage {key!r:.80} is not in the file: it is cut")
        found[key] = data[start:at]
    return found
