"""What a zoo is: weight spaces, architectures, and the store. Names are loaded on first use."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo.architectures.base import Architecture
    from zoo.architectures.table import ARCHITECTURES
    from zoo.imports import import_plugin
    from zoo.modules.twins import asymmetric
    from zoo.params import Params
    from zoo.store.population import Population
    from zoo.store.zoo import Zoo, load
    from zoo.symmetry.action import act, sample
    from zoo.symmetry.alignment import align
    from zoo.symmetry.canonical import canonicalize
    from zoo.tracing.builders import from_module
    from zoo.tracing.tracer import trace
    from zoo.weight_space import NeuronGroup, WeightSpace
    from zoo.writing.memory import population
    from zoo.writing.on_disk import write

__all__ = [
    "ARCHITECTURES",
    "Architecture",
    "NeuronGroup",
    "Params",
    "Population",
    "WeightSpace",
    "Zoo",
    "act",
    "align",
    "asymmetric",
    "canonicalize",
    "from_module",
    "import_plugin",
    "load",
    "population",
    "sample",
    "trace",
    "write",
]

_MODULES = {
    "ARCHITECTURES": "zoo.architectures.table",
    "Architecture": "zoo.architectures.base",
    "NeuronGroup": "zoo.weight_space",
    "Params": "zoo.params",
    "Population": "zoo.store.population",
    "WeightSpace": "zoo.weight_space",
    "Zoo": "zoo.store.zoo",
    "act": "zoo.symmetry.action",
    "align": "zoo.symmetry.alignment",
    "asymmetric": "zoo.modules.twins",
    "canonicalize": "zoo.symmetry.canonical",
    "from_module": "zoo.tracing.builders",
    "import_plugin": "zoo.imports",
    "load": "zoo.store.zoo",
    "population": "zoo.writing.memory",
    "sample": "zoo.symmetry.action",
    "trace": "zoo.tracing.tracer",
    "write": "zoo.writing.on_disk",
}
_ROOMS = (
    "architectures",
    "config",
    "conservation",
    "dynamics",
    "importers",
    "imports",
    "modules",
    "options",
    "params",
    "pattern",
    "sharing",
    "state_dicts",
    "store",
    "symmetry",
    "testing",
    "tracing",
    "views",
    "weight_space",
    "writing",
)


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    if name in _ROOMS:
        return import_module(f"zoo.{name}")
    raise AttributeError(f"module 'zoo' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_ROOMS})
