"""A fitted metanet as one file: `safetensors`, its tensors and a JSON record in its header. No pickle, nothing is executed.

Tensors: ``module.<name>``, the state of the torch module (normalization included, for trees their nodes), ``free.<tensor>``,
the masks of the weight space, ``network.<constant>``, the constants of networks that the metanet runs, and
``treatment.<step>.<name>``, what steps of the treatment have learned. Record (metadata key ``metanet``): format, constructor
arguments, weight space, hyperparameter columns, description of networks that the metanet runs, target, course of training,
where it was trained, versions.
"""

import json
import math
import os
import platform
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from zoo.population import Network, build_network
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
        raise ValueError(f"metanet {metanet.model!r}: options must be numbers, strings, lists or None: {error}") from error
    tensors = {f"module.{name}": tensor for name, tensor in metanet.module_.state_dict().items()}
    tensors |= {f"free.{name}": mask for name, mask in metanet.reader_.source.free.items()}
    network = metanet.reader_.source.network
    tensors |= {f"network.{name}": tensor for name, tensor in (network.constants if network else {}).items()}
    for at, known in enumerate(metanet.reader_.treatment.known):
        tensors |= {f"treatment.{at}.{name}": tensor for name, tensor in known.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    try:
        # Copies, since safetensors refuses tensors that share memory or are not in C order.
        contiguous = {
            name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
        }
        save_file(contiguous, temporary, metadata={KEY: record})
        with Path(temporary).open("rb+") as written:
            os.fsync(written.fileno())
        Path(temporary).replace(path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def _record(metanet: "Metanet") -> dict[str, Any]:
    history, network = metanet.history_, metanet.reader_.source.network
    return {
        "format": FORMAT,
        "params": metanet.get_params(),
        "space": json.loads(metanet.reader_.source.space.to_json()),
        "space_fingerprint": metanet.reader_.source.space.fingerprint,
        "hyperparameters": dict(metanet.reader_.source.hyperparameters),
        "network": network and dict(network.description),
        "target": asdict(metanet.target_),
        "training": asdict(metanet.training_),
        "history": {
            "validation_loss": [loss if math.isfinite(loss) else None for loss in history.validation_loss],
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
        raise ValueError(f"{path}: not a metanet, expected a file written by Metanet.save: {error}") from error
    if not isinstance(record, dict):
        raise ValueError(f"{path}: not a metanet: a safetensors file without the record {KEY!r}")
    if record.get("format") != FORMAT:
        raise ValueError(f"{path}: expected metanet format {FORMAT}, got {record.get('format')!r}")
    return record, tensors


def read_network(record: Mapping[str, Any], space: WeightSpace, tensors: Mapping[str, Tensor]) -> Network | None:
    """What the networks compute that a metanet runs.

    Args:
        record: The record of a file.
        space: Weight space of the networks.
        tensors: All tensors of the file.

    Returns:
        The function, built again; None for a metanet that does not run networks.
    """
    if record.get("network") is None:
        return None
    constants = {name.removeprefix("network."): value for name, value in tensors.items() if name.startswith("network.")}
    return build_network(record["network"], space, constants)


def read_treatment(tensors: Mapping[str, Tensor], num_steps: int) -> list[dict[str, Tensor]]:
    """What each step of a treatment has learned.

    Args:
        tensors: All tensors of a file.
        num_steps: Number of steps.

    Returns:
        Tensors by name, step by step.
    """
    prefixes = [f"treatment.{at}." for at in range(num_steps)]
    return [{name.removeprefix(own): tensor for name, tensor in tensors.items() if name.startswith(own)} for own in prefixes]
