"""Cells of a study: a metanet fitted on a population, its test predictions in a file named by all that they depend on."""

import hashlib
import json
import os
import time
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from metanet.dataset import Examples, read_examples
from zoo.population import Population, load
from zoo.store import publish

FORMAT = 1  # raise it when the meaning of a stored cell changes


@dataclass(frozen=True)
class Cell:
    """One fit: what is learned from what.

    Attributes:
        zoo: Directory of the zoo.
        population: Name of the population.
        fingerprint: Identity of the population's content.
        metanet: Name of the metanet.
        target: Column that the metanet predicts.
        num_train: Number of training networks asked for.
        seed: Seed of the metanet.
        code: What `code_fingerprint` was when the study was planned.
        options: Further options of the metanet.
    """

    zoo: Path
    population: str
    fingerprint: str
    metanet: str
    target: str
    num_train: int
    seed: int
    code: str
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """SHA-256 of all that the predictions depend on, hexadecimal; where the zoo lies is not part of it."""
        identity = {
            "format": FORMAT,
            "code": self.code,
            "fingerprint": self.fingerprint,
            "metanet": self.metanet,
            "target": self.target,
            "num_train": self.num_train,
            "seed": self.seed,
            "options": dict(self.options),
        }
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Predictions:
    """What a fitted metanet says about the test networks, and what the fit took.

    Attributes:
        network_id: Identity of each test network.
        truth: Target of each test network.
        prediction: What the metanet predicts for it.
        num_train: Number of networks that it was fitted on, after dropping.
        num_dropped: Number of diverged networks without a finite target, left out of training, validation and test.
        seconds: Duration of loading, fitting and predicting, on one thread.
    """

    network_id: Int[np.ndarray, "n"]
    truth: Float[np.ndarray, "n"]
    prediction: Float[np.ndarray, "n"]
    num_train: int
    num_dropped: int
    seconds: float


def code_fingerprint() -> str:
    """SHA-256 of the source of the package `metanet`: predictions of another version are never taken for this one's."""
    import metanet

    folder = Path(metanet.__file__ or "").parent
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(f"{path.relative_to(folder).as_posix()}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def fit(cell: Cell) -> Predictions:
    """Fit a cell's metanet and predict the test networks.

    Args:
        cell: The cell.

    Returns:
        Its predictions.
    """
    from metanet.estimator import Metanet

    start = time.perf_counter()
    population = load(cell.zoo)[cell.population]
    train, validation, test = (
        read_labels(population, split, cell.target, count)
        for split, count in (("train", cell.num_train), ("validation", None), ("test", None))
    )
    model = Metanet(cell.metanet, target=cell.target, seed=cell.seed, **cell.options)
    with warnings.catch_warnings():
        _ignore_dropped()
        prediction = model.fit(population, num_train=cell.num_train).predict(population, split="test")
    by_network = pd.Series(prediction, index=population.table("test")["network_id"])
    return Predictions(
        network_id=test.network_id,
        truth=test.y.numpy(),
        prediction=by_network.loc[test.network_id].to_numpy(np.float64),
        num_train=len(train),
        num_dropped=train.num_dropped + validation.num_dropped + test.num_dropped,
        seconds=time.perf_counter() - start,
    )


def read_labels(population: Population, split: str, target: str, count: int | None = None) -> Examples:
    """The targets of a split's networks, without those that diverged and have none; the rows of a study say how many.

    Args:
        population: The population.
        split: Name of the split.
        target: Name of a numeric column.
        count: Look at the first `count` networks only.

    Returns:
        Targets, network ids and the number of networks left out.
    """
    with warnings.catch_warnings():
        _ignore_dropped()
        return read_examples(population, split, target, "hyperparameters", count)


def _ignore_dropped() -> None:
    warnings.filterwarnings("ignore", message="population .* dropped", category=UserWarning)


def cell_path(out: Path, cell: Cell) -> Path:
    """File of a cell's predictions in the directory of a study."""
    return out / "cells" / f"{cell.key}.npz"


def save_predictions(path: Path, predictions: Predictions) -> None:
    """Write predictions; the file is there completely or not at all.

    Args:
        path: File to write, `.npz`; its folder is made if need be.
        predictions: What to write.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            np.savez(file, **vars(predictions))
        publish(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def load_predictions(path: Path) -> Predictions:
    """Read what `save_predictions` wrote.

    Args:
        path: The file.

    Returns:
        The predictions.

    Raises:
        ValueError: If the file is damaged.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            values = {name: arrays[name] for name in Predictions.__dataclass_fields__}
    except (KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: not the predictions of a cell ({error}); delete the file and run again") from error
    scalars = {name: values.pop(name).item() for name in ("num_train", "num_dropped", "seconds")}
    return Predictions(**values, **scalars)
