"""Are weight spaces and constants those that a job, or a known architecture, gives?"""

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from jaxtyping import Shaped

from data_gen.config import Job
from data_gen.populations import build_module, twin_of
from zoo.architectures.base import MODULE, Architecture
from zoo.imports import is_allowed
from zoo.store.bounds import MANIFEST_NAME, rebuild, rebuild_standard
from zoo.store.manifest import Manifest, PopulationEntry
from zoo.store.mapped import escape
from zoo.store.modules import example_inputs_of
from zoo.weight_space import NeuronGroup, WeightSpace

Arrays = Mapping[str, Shaped[np.ndarray, "..."]]
_ROUNDING = 1e-5
"""How far constants that another machine drew may be from ours, relative to the largest."""


def compare_with_job(
    manifest: Manifest, name: str, job: Job, constants: Arrays
) -> Iterator[tuple[str, str]]:
    """Build a population of a job again, and compare weight space and constants whole.

    Args:
        manifest: Manifest of the zoo.
        name: Name of the population.
        job: The job, of these populations.
        constants: Constants as stored.

    Yields:
        File and difference. A population that cannot be built raises ValueError.
    """
    entry = manifest.populations[name]
    if not may_be_built(entry):
        return
    standard = _standard(manifest, entry)
    _check_mixing(standard, entry, constants)
    built = twin_of(job, name, standard)
    if entry.weight_space != built.space:
        difference = _difference(entry.weight_space, built.space)
        yield MANIFEST_NAME, f"population {name!r}: {difference}"
    expected = {key: value.numpy() for key, value in built.constants.items()}
    for key in sorted({*constants, *expected}):
        if not _are_close(constants.get(key), expected.get(key)):
            yield f"constants/{name}.h5", f"{escape(key)!r} is not what the job gives"


def compare_with_architecture(
    manifest: Manifest, name: str, constants: Arrays
) -> Iterator[tuple[str, str]]:
    """Refuse symmetry that the named architecture of a population, which no job made, lacks.

    Args:
        manifest: Manifest of the zoo.
        name: Name of the population.
        constants: Constants as stored.

    Yields:
        File and difference. A population that cannot be built raises ValueError.
    """
    entry = manifest.populations[name]
    if not _is_known(entry) or not may_be_built(entry):
        return
    space, standard = entry.weight_space, _standard(manifest, entry).space
    tensors = {key: torch.from_numpy(array) for key, array in constants.items()}
    if "module" not in (entry.architecture or {}):
        rebuild(entry.description(manifest.task), space, tensors)
    if space.tensors == standard.tensors:
        for key, group in space.groups.items():
            if _exceeds(group, standard.groups[key]):
                why = f"group {escape(key)!r} declares symmetry that the architecture does not have"
                yield MANIFEST_NAME, f"population {name!r}: {why}"


def not_compared(manifest: Manifest) -> Iterator[str]:
    """Say which populations of a job are not compared with it, as they are somebody's modules.

    Args:
        manifest: Manifest of the zoo.

    Yields:
        What was not checked, and why.
    """
    for name, entry in manifest.populations.items():
        if not may_be_built(entry):
            module = (entry.architecture or {})["module"]
            yield (
                f"weight space, constants and metrics of population {name!r} not computed again: "
                f"its networks are modules {escape(module)!r}; if you trust that code, give "
                f"symzoo --plugin {escape(module.partition(':')[0])} verify"
            )


def may_be_built(entry: PopulationEntry) -> bool:
    """Whether the networks of a population are no modules, or those of code that is allowed."""
    module = (entry.architecture or {}).get("module")
    return module is None or is_allowed(module)


def unproved(manifest: Manifest) -> Iterator[str]:
    """Say what nothing proves of a zoo that no job made.

    Args:
        manifest: Manifest of the zoo, without faults.

    Yields:
        What was not checked, and why.
    """
    yield "metrics not computed again: no job made the zoo"
    for name, entry in manifest.populations.items():
        groups = entry.weight_space.groups.values()
        why = _why_unproved(manifest, entry)
        if why is not None and any(_exceeds(group, _RIGID) for group in groups):
            yield f"symmetry of population {name!r} not proved: {why}"


_RIGID = NeuronGroup(1, permutable=False)


def _why_unproved(manifest: Manifest, entry: PopulationEntry) -> str | None:
    if not _is_known(entry) or not may_be_built(entry):
        return "the zoo does not say what its networks compute"
    if entry.constants is not None:
        return "its constants may break what the architecture has"
    same = _standard(manifest, entry).space.tensors == entry.weight_space.tensors
    return None if same else "its patterns are not those of the architecture"


def _is_known(entry: PopulationEntry) -> bool:
    """Whether the zoo names an architecture that can be built."""
    return entry.architecture is not None and entry.architecture.get("name") != MODULE


def _standard(manifest: Manifest, entry: PopulationEntry) -> Architecture:
    architecture = entry.architecture or {}
    if "module" in architecture:
        return build_module(architecture, example_inputs_of(manifest.task))
    return rebuild_standard(entry.description(manifest.task), entry.weight_space)


def _exceeds(group: NeuronGroup, other: NeuronGroup) -> bool:
    """Whether a group has symmetry that another one of its size lacks."""
    return (
        group.permutable > other.permutable
        or group.may_flip > other.may_flip
        or group.may_stretch > other.may_stretch
    )


def _check_mixing(standard: Architecture, entry: PopulationEntry, constants: Arrays) -> None:
    """Matrices grow with the square of a group: draw none that the stored file does not hold."""
    if standard.is_module or (entry.asymmetry or {}).get("kind") != "sigma":
        return
    for name, group in standard.space.groups.items():
        if group.activation != "linear" and f"mixing.{name}" not in constants:
            raise ValueError(f"no constant 'mixing.{escape(name)}'; the asymmetry needs it")


def _difference(stored: WeightSpace, expected: WeightSpace) -> str:
    """The first part of a weight space that is not what was expected."""
    theirs, ours = ({**space.groups, **space.tensors} for space in (stored, expected))
    for key in {**ours, **theirs}:
        if theirs.get(key) != ours.get(key):
            return escape(f"{key!r}: expected {ours.get(key)}, found {theirs.get(key)}")
    return "weight space: its parts are in another order"


def _are_close(stored: np.ndarray | None, expected: np.ndarray | None) -> bool:
    """Whether masks are equal, and numbers as close as the draws of two machines are."""
    if stored is None or expected is None or stored.shape != expected.shape:
        return False
    if expected.dtype == bool:
        return np.array_equal(stored, expected)
    return np.allclose(stored, expected, rtol=0, atol=_ROUNDING * np.abs(expected).max(initial=0))
