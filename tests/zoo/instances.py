"""Small networks of every architecture of the table, for tests of what holds for all of them."""

from typing import Any

from zoo.architectures import ARCHITECTURES, Architecture, build_architecture

CLASSES = 3
INPUTS: dict[str, tuple[int, ...]] = dict.fromkeys(ARCHITECTURES, (1, 6, 6))
OPTIONS: dict[str, dict[str, Any]] = {name: {} for name in ARCHITECTURES}


def instance(name: str) -> Architecture:
    """A network that every kind of asymmetry fits with its default options."""
    return build_architecture(name, OPTIONS[name], INPUTS[name], CLASSES)
