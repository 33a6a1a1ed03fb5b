"""How a zoo is made: jobs, and the networks that they train. Names are loaded on first use."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from data_gen.config import Job, load_job
    from data_gen.generation import generate

__all__ = ["Job", "generate", "load_job"]

_MODULES = {
    "Job": "data_gen.config",
    "generate": "data_gen.generation",
    "load_job": "data_gen.config",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'data_gen' has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
