"""Code that a job names: `module:attribute`, imported by whoever wrote the job and by nobody else.

Readers of a zoo never come here: a manifest is data, and a name in it imports nothing.
"""

import importlib
import re
import sys
from collections.abc import Callable
from functools import reduce
from pathlib import Path
from types import ModuleType
from typing import Any

_NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


def names_code(name: str) -> bool:
    """Whether a name is one of code, not one of a table.

    Args:
        name: The name.

    Returns:
        Whether it has a colon.
    """
    return ":" in name


def check_code_name(name: str) -> None:
    """Check the form of a name of code; nothing is imported.

    Args:
        name: The name.

    Raises:
        ValueError: If it is not `module:attribute`.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"expected 'module:attribute', found {name!r:.200}")


def import_attribute(name: str, what: str) -> Callable[..., Any]:
    """Import what a name of code stands for.

    The current folder is searched last, so that a module beside a job is found and hides none that
    is installed.

    Args:
        name: `module:attribute`, both of which may be dotted.
        what: Key that holds the name, for errors.

    Returns:
        The attribute, a callable.

    Raises:
        ValueError: If the module cannot be imported, has no such attribute, or it is no callable.
    """
    try:
        check_code_name(name)
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from error
    path, _, attribute = name.partition(":")
    module = _import(path, f"{what}: {name!r}")
    try:
        value = reduce(getattr, attribute.split("."), module)
    except AttributeError as error:
        public = sorted(key for key in vars(module) if not key.startswith("_"))
        raise ValueError(
            f"{what}: {name!r}: module {path!r} ({getattr(module, '__file__', None)}) has no "
            f"{attribute!r}; it has {public}"
        ) from error
    if not callable(value):
        raise ValueError(f"{what}: {name!r}: expected a callable, found {type(value).__name__}")
    return value


def _import(path: str, where: str) -> ModuleType:
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.append(folder)
    importlib.invalidate_caches()  # the file may be newer than the last look into its folder
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError as error:
        places = [place or folder for place in sys.path]
        raise ValueError(f"{where}: {error}; looked in {places}") from error
    except Exception as error:  # a module runs any code
        told = f"{type(error).__name__}: {error}"
        raise ValueError(f"{where}: importing {path!r} raised {told}") from error
