"""A fitted metanet as one file: `safetensors`, its tensors and a JSON record in its header. No pickle, nothing is executed.

Tensors: ``module.<name>``, the state of the torch module (normalization included, for trees their
    nodes), ``free.<tensor>``,
the masks of the weight space, ``network.<constant>``, the constants of networks that the metanet
runs, and ``treatment.<step>.<name>``, what steps of the treatment have learned. Record (metadata
key ``metanet``): format, constructor arguments, weight space, hyperparameter columns, description
of networks that the metanet runs, target, course of training, where it was trained, versions. A
metanet of several populations has a list ``spaces`` of weight spaces with their hyperparameter
columns instead, and masks ``<place in it>.free.<tensor>``.
"""

import json
import math
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from metanet.contract import InputSpec
from metanet.mixed import MixedReader
from zoo.network import build_network
from zoo.store.atomic import atomic_write
from zoo.weight_space import WeightSpace

if TYPE_CHECKING:
    from metanet.estimator import Metanet

FORMAT = 1
KEY = "metanet"


def save(metanet: "Metanet", path: str | os.PathLike[str]) -> None:
    """Write a fitted metanet; the file exists whole or not at all.

    Args:
        metanet: Fitted metanet.
        path: Where to; missing folders are made, an existing file is replaced.

    Raises:
        ValueError: If an option cannot be written as JSON.
    """
    path = Path(path)
    try:
        record = json.dumps(_record(metanet), allow_nan=False)
    except TypeError as error:
        raise ValueError(
            f"metanet {metanet.model!r}: options must be numbers, strings, lists or None: {error}"
        ) from error
    tensors = {f"module.{name}": tensor for name, tensor in metanet.module_.state_dict().items()}
    for prefix, spec in _specs(metanet):
        tensors |= {f"{prefix}free.{name}": mask for name, mask in spec.free.items()}
        constants = spec.network.constants if spec.network else {}
        tensors |= {f"{prefix}network.{name}": tensor for name, tensor in constants.items()}
    for at, known in enumerate(metanet.reader_.treatment.known):
        tensors |= {f"treatment.{at}.{name}": tensor for name, tensor in known.items()}
    # Copies, since safetensors refuses tensors that share memory or are not in C order.
    contiguous = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }
    with atomic_write(path) as temporary:
        save_file(contiguous, temporary, metadata={KEY: record})


def _record(metanet: "Metanet") -> dict[str, Any]:
    history = metanet.history_
    spaces = [
        {
            "space": json.loads(spec.space.to_json()),
            "space_fingerprint": spec.space.fingerprint,
            "hyperparameters": dict(spec.hyperparameters),
            "network": spec.network and dict(spec.network.description),
        }
        for _, spec in _specs(metanet)
    ]
    return {
        "format": FORMAT,
        "params": metanet.get_params(),
        **({"spaces": spaces} if isinstance(metanet.reader_, MixedReader) else spaces[0]),
        "target": asdict(metanet.target_),
        "training": asdict(metanet.training_),
        "history": {
            "validation_loss": [
                loss if math.isfinite(loss) else None for loss in history.validation_loss
            ],
            "best_epoch": history.best_epoch,
        },
        "trained_on": {
            "population": metanet.population_,
            "num_train": metanet.num_train_,
            "num_validation": metanet.num_validation_,
            "num_dropped": metanet.num_dropped_,
        },
        "versions": {"python": platform.python_version()}
        | {name: _version(name) for name in ("symzoo", "torch", "scikit-learn")},
    }


def _specs(metanet: "Metanet") -> list[tuple[str, InputSpec]]:
    """Fitted weight spaces, and what the names of their masks start with."""
    if isinstance(metanet.reader_, MixedReader):
        return [(f"{at}.", spec) for at, spec in enumerate(metanet.reader_.specs)]
    return [("", metanet.reader_.spec)]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


def read(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read what `save` wrote.

    Args:
        path: File.

    Returns:
        The record and the tensors.

    Raises:
        ValueError: If the file is not a metanet or of another format.
        FileNotFoundError: If there is no such file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected one written by Metanet.save")
    try:
        with safe_open(path, framework="pt") as file:
            record = json.loads((file.metadata() or {}).get(KEY, "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, json.JSONDecodeError) as error:
        raise ValueError(
            f"{path}: not a metanet, expected a file written by Metanet.save: {error}"
        ) from error
    if not isinstance(record, dict):
        raise ValueError(f"{path}: not a metanet: a safetensors file without the record {KEY!r}")
    if record.get("format") != FORMAT:
        raise ValueError(f"{path}: expected metanet format {FORMAT}, got {record.get('format')!r}")
    return record, tensors


def read_specs(record: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> list[InputSpec]:
    """The fitted weight spaces of a file: one, or those of `spaces`.

    Args:
        record: Record of the file.
        tensors: All of its tensors.

    Returns:
        What the metanet was fitted on.
    """
    specs = []
    for at, own in enumerate(record.get("spaces", [record])):
        prefix = f"{at}." if "spaces" in record else ""
        free, constants = (_below(f"{prefix}{kind}.", tensors) for kind in ("free", "network"))
        columns = {
            name: None if values is None else tuple(values)
            for name, values in own["hyperparameters"].items()
        }
        space, description = WeightSpace.from_json(json.dumps(own["space"])), own.get("network")
        network = build_network(description, space, constants) if description else None
        specs.append(InputSpec(space, free, columns, network))
    return specs


def read_treatment(tensors: Mapping[str, Tensor], num_steps: int) -> list[dict[str, Tensor]]:
    """What each step of a treatment has learned.

    Args:
        tensors: All tensors of a file.
        num_steps: Number of steps.

    Returns:
        Tensors by name, step by step.
    """
    return [_below(f"treatment.{at}.", tensors) for at in range(num_steps)]


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names start with a prefix, without it."""
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
