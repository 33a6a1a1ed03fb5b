"""A fitted metanet as one file: `safetensors`, its tensors and a JSON record in its header.

There is no pickle, nothing is executed. Tensors: ``module.<name>``, the state of the torch module
(normalization included, for trees their nodes); ``<place>.free.<tensor>``, the masks of a weight
space; ``<place>.network.<constant>``, the constants of networks that the metanet runs;
``treatment.<step>.<name>``, what a step of the treatment has learned. Record (metadata key
``metanet``): format, constructor arguments, the list ``spaces`` of weight spaces with
hyperparameter columns and the description of networks that the metanet runs, target, course of
training, where it was trained, versions.
"""

import json
import math
import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from metanet.columns import HyperparameterColumn
from metanet.contract import History, InputSpec, Training
from metanet.inputs.targets import Target
from metanet.record import FORMAT, Record, SpaceRecord
from zoo.config import first_error
from zoo.options import plain
from zoo.store.atomic import atomic_write
from zoo.store.bounds import MAX_VALUES, checked_space, rebuild
from zoo.store.file_map import bounded_json
from zoo.store.mapped import escape
from zoo.store.schema import is_constant

KEY = "metanet"
_TYPES = {torch.bool: "|b1", torch.float32: "<f4"}


@dataclass(frozen=True)
class Fitted:
    """What `fit` leaves behind, and a file holds.

    Attributes:
        specs: The networks of each population.
        state: Of the torch module.
        known: What each step of the treatment has learned.
        target: Units of predictions.
        training: Training settings that were used.
        history: Course of training.
        trained_on: Name of the population and numbers of its networks.
    """

    specs: tuple[InputSpec, ...]
    state: Mapping[str, Tensor]
    known: list[dict[str, Tensor]]
    target: Target
    training: Training
    history: History
    trained_on: Mapping[str, Any]


def save(path: str | os.PathLike[str], params: Mapping[str, Any], fitted: Fitted) -> None:
    """Write a fitted metanet; the file exists whole or not at all.

    Args:
        path: Where to; missing folders are made, an existing file is replaced.
        params: Constructor arguments.
        fitted: What `fit` left behind.

    Raises:
        ValueError: If an option cannot be written as JSON, or it runs networks that are a traced
            module.
    """
    if any(s.architecture is not None and s.architecture.is_module for s in fitted.specs):
        raise ValueError(
            f"metanet {params['model']!r} runs networks that are a traced module, which no file "
            "can describe: expected networks of a named architecture"
        )
    try:
        record = json.dumps(_record(params, fitted), allow_nan=False, default=_as_json)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"metanet {params['model']!r}: options must be finite numbers, strings, lists or None: "
            f"{error}"
        ) from error
    # Copies, since safetensors refuses tensors that share memory or are not in C order.
    contiguous = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in _tensors(fitted).items()
    }
    with atomic_write(Path(path)) as temporary:
        save_file(contiguous, temporary, metadata={KEY: record})


def _as_json(value: Any) -> Any:
    """Numbers of numpy as those of Python, columns by their fields."""
    if isinstance(value, HyperparameterColumn):
        return asdict(value)
    if plain(value) is value:
        raise TypeError(f"found {value!r:.200}")
    return plain(value)


def _tensors(fitted: Fitted) -> dict[str, Tensor]:
    tensors = _named("module", fitted.state)
    for place, spec in enumerate(fitted.specs):
        tensors |= _named(f"{place}.free", spec.free)
        if spec.architecture is not None:
            tensors |= _named(f"{place}.network", spec.architecture.constants)
    for place, known in enumerate(fitted.known):
        tensors |= _named(f"treatment.{place}", known)
    return tensors


def _named(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def _record(params: Mapping[str, Any], fitted: Fitted) -> dict[str, Any]:
    losses = fitted.history.validation_loss
    history = {
        "validation_loss": [loss if math.isfinite(loss) else None for loss in losses],
        "best_epoch": fitted.history.best_epoch,
    }
    versions = {name: _version(name) for name in ("symzoo", "torch", "scikit-learn")}
    return {
        "format": FORMAT,
        "params": dict(params),
        "spaces": [_space_record(spec) for spec in fitted.specs],
        "num_steps": len(fitted.known),
        "target": asdict(fitted.target),
        "training": asdict(fitted.training),
        "history": history,
        "trained_on": dict(fitted.trained_on),
        "versions": {"python": platform.python_version()} | versions,
    }


def _space_record(spec: InputSpec) -> dict[str, Any]:
    return {
        "space": json.loads(spec.space.to_json()),
        "space_fingerprint": spec.space.fingerprint,
        "hyperparameters": dict(spec.hyperparameters),
        "network": spec.architecture and spec.architecture.description,
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


def read(path: str | os.PathLike[str]) -> tuple[dict[str, Any], Fitted]:
    """Read what `save` wrote.

    Args:
        path: File.

    Returns:
        Constructor arguments, and what `fit` had left behind.

    Raises:
        ValueError: If the file is not a metanet or of another format.
        FileNotFoundError: If there is no such file.
    """
    record, tensors = _read_file(Path(path))
    with _refusals(Path(path)):
        spaces = enumerate(record.spaces)
        fitted = Fitted(
            tuple(_read_spec(place, space, tensors) for place, space in spaces),
            _below("module.", tensors),
            [_below(f"treatment.{place}.", tensors) for place in range(record.num_steps)],
            record.target,
            record.training,
            record.history.history,
            record.trained_on.model_dump(),
        )
    return record.params, fitted


@contextmanager
def _refusals(path: Path) -> Iterator[None]:
    """Name the file in what is refused about it."""
    try:
        yield
    except ValidationError as error:
        raise ValueError(f"{path}: {escape(first_error(error))}") from error
    except (SafetensorError, ValueError) as error:
        raise ValueError(
            f"{path}: not a metanet, expected a file written by Metanet.save: {escape(str(error))}"
        ) from error


def _read_file(path: Path) -> tuple[Record, dict[str, Tensor]]:
    """The record and the tensors of a file; no tensor has a number that is not finite."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected one written by Metanet.save")
    with _refusals(path), safe_open(path, framework="pt") as file:
        record = _read_record((file.metadata() or {}).get(KEY, "").encode())
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        _check_finite(tensors)
    return record, tensors


def _check_finite(tensors: Mapping[str, Tensor]) -> None:
    bad = [name for name, tensor in tensors.items() if not tensor.isfinite().all()]
    if bad:
        raise ValueError(f"expected finite numbers, found others in {bad[:5]}")


def _read_record(raw: bytes) -> Record:
    """The record of a file, bounded in length, depth and number of values."""
    if not raw:
        raise ValueError(f"a safetensors file without the record {KEY!r}")
    content = bounded_json(raw, MAX_VALUES, "the record")
    found = content.get("format") if isinstance(content, dict) else None
    if found != FORMAT:
        raise ValueError(f"expected metanet format {FORMAT}, found {found!r:.50}")
    return Record.model_validate_json(raw, strict=True)


def _read_spec(place: int, record: SpaceRecord, tensors: Mapping[str, Tensor]) -> InputSpec:
    space = checked_space(record.space)
    if record.space_fingerprint != space.fingerprint:
        raise ValueError(f"spaces.{place}: the fingerprint is not that of the weight space")
    free = _below(f"{place}.free.", tensors)
    constants = _below(f"{place}.network.", tensors)
    for name, tensor in ({f"free.{name}": mask for name, mask in free.items()} | constants).items():
        if not is_constant(name, _TYPES.get(tensor.dtype, ""), tuple(tensor.shape), space):
            raise ValueError(
                f"spaces.{place}: {name!r} of shape {list(tensor.shape)} {tensor.dtype} is no "
                "constant of the weight space"
            )
    architecture = None
    if record.network is not None:
        architecture = rebuild(record.network.model_dump(), space, constants)
    return InputSpec(space, free, record.hyperparameters, architecture)


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names start with a prefix, without it."""
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
