"""Data of a task that is the user's own: files of arrays, and functions that return them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file

from zoo.imports import import_attribute


def load_arrays(path: str) -> Mapping[str, Any]:
    """Read a file of arrays by name; nothing in it is run.

    Args:
        path: A file of numpy (`.npz`) or of safetensors.

    Returns:
        Its arrays.

    Raises:
        ValueError: If there is no such file, or it is none of these.
    """
    file = Path(path).expanduser()
    if file.suffix not in (".npz", ".safetensors"):
        raise ValueError(f"task.path: expected a .npz or .safetensors file, found {path!r}")
    if not file.is_file():
        raise ValueError(f"task.path: no such file: {path}; looked in {Path.cwd()}")
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        with np.load(file, allow_pickle=False) as arrays:
            return dict(arrays)
    except Exception as error:  # both libraries raise many kinds: cut, of objects, malformed
        raise ValueError(f"task.path: cannot read {path!r}: {error}") from error


def call(name: str, options: Mapping[str, Any] | None) -> Any:
    """Import a function and call it.

    Args:
        name: `module:attribute`.
        options: Its arguments.

    Returns:
        What it returns.

    Raises:
        ValueError: If it cannot be imported, or raises an error.
    """
    function = import_attribute(name, "task.name")
    try:
        return function(**(options or {}))
    except Exception as error:  # code of the user's own
        told = f"{type(error).__name__}: {error}"
        raise ValueError(f"task.name: {name!r} raised {told}") from error
