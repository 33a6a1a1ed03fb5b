"""Metanets and treatments of your own in worker processes: found again by module and name.

A spawned worker knows the tables of this package only. Where a study uses an entry from elsewhere,
each of its tasks says where that entry can be imported from.
"""

import hashlib
import importlib
import sys
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any, Literal

from metanet.inputs.treatments import TREATMENTS
from metanet.models.table import METANETS

Kind = Literal["metanet", "treatment"]
OURS = "metanet"
_THIS_PROCESS = uuid.uuid4().hex


@dataclass(frozen=True)
class Plugin:
    """An entry of a table that is not ours.

    Attributes:
        kind: Which table.
        name: Its name there.
        module: Module that defines it.
        path: Its name in that module, dotted.
        code: SHA-256 of the module's file, or something no other process has if it cannot be
            imported.
    """

    kind: Kind
    name: str
    module: str
    path: str
    code: str

    @property
    def is_importable(self) -> bool:
        """Whether another process finds the same entry."""
        return self.code != _THIS_PROCESS

    def register(self) -> None:
        """Put the entry into its table.

        Nothing is to be done in the process that has it already.
        """
        if self.is_importable:
            _table(self.kind)[self.name] = _resolve(self.module, self.path)


def find_plugin(kind: Kind, name: str) -> Plugin | None:
    """Where an entry of a table comes from.

    Args:
        kind: Which table.
        name: A name in that table.

    Returns:
        The plugin, None for an entry of this package.
    """
    entry = _table(kind)[name]
    module, path = getattr(entry, "__module__", None) or "", getattr(entry, "__qualname__", "")
    if module == OURS or module.startswith(f"{OURS}."):
        return None
    return Plugin(kind, name, module, path, _code_of(entry, module, path))


def why_only_here(plugins: Iterable[Plugin]) -> str:
    """Why worker processes cannot use some entries.

    Args:
        plugins: The entries.

    Returns:
        The reason, naming the first that is not defined at the top of a module with a file, and
        what to do; empty if there is none.
    """
    for plugin in plugins:
        if not plugin.is_importable:
            defined = plugin.path or "an object without a name"
            return (
                f"{plugin.kind} {plugin.name!r} cannot be found by worker processes: it is not "
                f"defined at the top of a module with a file (it is {defined!r} of "
                f"{plugin.module or 'no module'!r}). Move it into a file that can be imported, or "
                f"measure in this process (--workers 0)"
            )
    return ""


def _table(kind: Kind) -> dict[str, Any]:
    tables: Mapping[Kind, dict[str, Any]] = {"metanet": METANETS, "treatment": TREATMENTS}
    return tables[kind]


def _resolve(module: str, path: str) -> Any:
    return reduce(getattr, path.split("."), importlib.import_module(module))


def _code_of(entry: Any, module: str, path: str) -> str:
    """Code of the entry's module."""
    # That of this process if the entry cannot be found there, or the module has no file.
    file = getattr(sys.modules.get(module), "__file__", None)
    if not path or file is None or not Path(file).is_file():
        return _THIS_PROCESS
    try:
        defined = _resolve(module, path)
    except AttributeError:  # defined inside a function
        return _THIS_PROCESS
    return (
        hashlib.sha256(Path(file).read_bytes()).hexdigest() if defined is entry else _THIS_PROCESS
    )
