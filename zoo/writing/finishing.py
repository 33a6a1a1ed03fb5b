"""The end of writing a zoo: constants, card and, last, the manifest."""

import platform
from pathlib import Path

import numpy as np
import torch

from zoo.params import Params
from zoo.sharing.card import render_card
from zoo.store.atomic import sha256, write_text
from zoo.store.entries import ShardEntry
from zoo.store.hdf5 import write_columns
from zoo.store.manifest import CARD_NAME, MANIFEST_NAME, Manifest


def file_entry(path: Path, rows: int) -> ShardEntry:
    """What a manifest says of a file, which has rows or, of constants, columns."""
    return ShardEntry(rows=rows, bytes=path.stat().st_size, sha256=sha256(path))


def environment() -> dict[str, str]:
    """Versions and machine, for the manifest."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "machine": platform.machine(),
    }


def write_constants(path: Path, constants: Params, attributes: dict[str, str | int]) -> None:
    """Write masks, fixed entries and the like of a population.

    Args:
        path: Where the file goes.
        constants: Constants of an architecture.
        attributes: Metadata of the file.
    """
    arrays = {name: np.atleast_1d(value.numpy()) for name, value in constants.items()}
    write_columns(path, arrays, attributes, equal_rows=False)


def write_manifest(out: Path, manifest: Manifest) -> None:
    """Write card and manifest; the folder is a complete zoo then.

    Args:
        out: Folder of the zoo, with all other files.
        manifest: The manifest.
    """
    write_text(out / CARD_NAME, render_card(out, manifest))
    write_text(out / MANIFEST_NAME, manifest.model_dump_json(indent=1) + "\n")
