"""Code that a job names: `module:attribute`, imported for whoever asked for that job.

A manifest is data, and a name in it imports nothing: only modules that were allowed in this process
are imported. `generate` allows those of its job, `--plugin` and `import_plugin` those that a user
names.
"""

import importlib
import re
import sys
from collections.abc import Callable, Iterable
from functools import reduce
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from zoo.options import checked

_NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


_allowed: set[str] = set()
_plugins: set[str] = set()


def allow(modules: Iterable[str]) -> None:
    """Let names of code in some modules be imported in this process.

    Args:
        modules: Names of the modules.
    """
    _allowed.update(modules)


class Trust(NamedTuple):
    """What a process trusts, for its workers.

    Attributes:
        modules: Modules whose names in files may be imported.
        plugins: Those of them that were imported to add rows to tables.
    """

    modules: tuple[str, ...] = ()
    plugins: tuple[str, ...] = ()

    def take_over(self) -> None:
        """Trust the same in this process, plugins imported; one that fails raises ValueError."""
        allow(self.modules)
        for plugin in self.plugins:
            import_plugin(plugin)


def trust() -> Trust:
    """What this process trusts."""
    return Trust(tuple(sorted(_allowed)), tuple(sorted(_plugins)))


def is_allowed(name: str) -> bool:
    """Whether a name of code may be imported in this process."""
    return name.partition(":")[0] in _allowed


@checked
def import_plugin(module: str) -> ModuleType:
    """Import a module of your own, which adds rows to tables, and trust names of code in it.

    Args:
        module: Its name; the current folder is searched, too.

    Returns:
        The module.

    Raises:
        ValueError: If it cannot be imported.
    """
    allow([module])
    imported = _import(module, f"plugin {module!r}")
    _plugins.add(module)
    return imported


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
        ValueError: If the module is not allowed or cannot be imported, has no such attribute, or
            it is no callable.
    """
    try:
        check_code_name(name)
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from error
    path, _, attribute = name.partition(":")
    if not is_allowed(name):
        raise ValueError(
            f"{what}: {name!r} is code, which is not imported because a file says so; if you trust "
            f"it, give --plugin {path}, or call zoo.import_plugin({path!r})"
        )
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
