"""Readers of checkpoints by format, and which file is of which."""

from collections.abc import Callable
from pathlib import Path

from zoo.importers.archives import read_archive
from zoo.importers.checkpoint import Checkpoint
from zoo.importers.numpy_files import read_npz
from zoo.importers.safetensors_files import read_safetensors
from zoo.importers.torch_files import MAGIC, read_torch
from zoo.store.file_map import refuse
from zoo.store.mapped import map_file, refusals

READERS: dict[str, Callable[[memoryview], Checkpoint]] = {
    "torch": read_torch,
    "safetensors": read_safetensors,
    "npz": read_npz,
}
"""By format."""
_LFS = b"version https://git-lfs"


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint of unknown origin; nothing of it is run or imported.

    Args:
        path: The file: of `torch.save` (before 1.6 too), safetensors or `.npz`, told apart by its
            first bytes, and where these do not tell by its name.

    Returns:
        Its tensors, what was recognized, and all else as data.

    Raises:
        StoreError: If it is damaged, hostile or of no such format.
    """
    data = map_file(path)
    with refusals(path):
        return READERS[_format(path, data)](data)


def _format(path: Path, data: memoryview) -> str:
    start = bytes(data[: len(_LFS)])
    if start == _LFS:
        refuse("a pointer of git-lfs; fetch the file that it stands for")
    if start.startswith(b"PK"):
        return _format_of_archive(data)
    if start.startswith(MAGIC[:8]):
        return "torch"
    if path.suffix != ".safetensors" and start[8:9] != b"{":
        refuse(f"expected a checkpoint of {sorted(READERS)}, found {start[:16]!r}")
    return "safetensors"


def _format_of_archive(data: memoryview) -> str:
    names = list(read_archive(data).members)
    if any(name.rpartition("/")[2] == "data.pkl" for name in names):
        return "torch"
    if not names or not all(name.endswith(".npy") for name in names):
        refuse(f"expected an archive of torch or numpy, found one with {names[:5]!r:.200}")
    return "npz"
