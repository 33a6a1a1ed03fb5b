"""Small networks of every architecture of the table, for tests of what holds for all of them."""

from typing import Any

from zoo.architectures import ARCHITECTURES, Architecture, build_architecture

CLASSES = 3
# Rows of masks must differ: no patch of 4 pixels for 32 rows, no node of 1 feature for 8.
INPUTS: dict[str, tuple[int, ...]] = dict.fromkeys(ARCHITECTURES, (1, 6, 6)) | {"gin": (6, 3, 3)}
OPTIONS: dict[str, dict[str, Any]] = {name: {} for name in ARCHITECTURES} | {
    "transformer": {"patch": 3},
    "gin": {"hidden": 8},
}


def instance(name: str) -> Architecture:
    """A network that every kind of asymmetry fits with its default options."""
    return build_architecture(name, OPTIONS[name], INPUTS[name], CLASSES)
