"""Cells of a study: a metanet fitted on a population, its test predictions in a file named by all that they depend on."""

import hashlib
import json
import time
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from metanet.inputs.dataset import Examples, read_examples
from metanet.inputs.population import PopulationLike
from metanet.inputs.treatments import NONE, TreatmentSpec, parse_treatment
from studies.common.computed_targets import with_derived
from studies.learnability.shuffled import with_shuffled_labels
from zoo.store.atomic import atomic_write
from zoo.store.population import load

FORMAT = 2  # raise it when the meaning of a stored cell changes


@dataclass(frozen=True)
class Place:
    """Where test networks lie.

    Attributes:
        zoo: Directory of the zoo.
        population: Name of the population there.
        fingerprint: Identity of the population's content.
        name: What the rows call it.
    """

    zoo: Path
    population: str
    fingerprint: str
    name: str


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
        code: What `code_fingerprint` was when the study was planned, and the code of metanets and
            treatments from elsewhere.
        options: Further options of the metanet.
        treatment: What is done about symmetry.
        shuffled: Whether the labels that it learns from are shuffled.
        elsewhere: Where to predict besides the population's own test networks.
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
    treatment: TreatmentSpec = NONE
    shuffled: bool = False
    elsewhere: tuple[Place, ...] = ()

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
            "treatment": repr(parse_treatment(self.treatment).steps),
            "shuffled": self.shuffled,
            "elsewhere": [(place.name, place.fingerprint) for place in self.elsewhere],
        }
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()

    @property
    def places(self) -> tuple[Place, ...]:
        """Where it predicts, its own population first."""
        return (
            Place(self.zoo, self.population, self.fingerprint, self.population),
            *self.elsewhere,
        )


@dataclass(frozen=True)
class Predictions:
    """What a fitted metanet says about the test networks of one place, and what it took.

    Attributes:
        network_id: Identity of each test network.
        truth: Target of each test network.
        prediction: What the metanet predicts for it.
        num_train: Number of networks that it was fitted on, after dropping.
        num_dropped: Number of diverged networks without a finite target, left out of training,
            validation and test.
        seconds: Duration of predicting and, for its own population, of loading and fitting, on one
            thread.
    """

    network_id: Int[np.ndarray, "n"]
    truth: Float[np.ndarray, "n"]
    prediction: Float[np.ndarray, "n"]
    num_train: int
    num_dropped: int
    seconds: float


def open_population(zoo: Path, name: str, target: str, out: Path) -> PopulationLike:
    """A population of a zoo, with the target among its columns. Columns that a study derives itself come in here.

    Args:
        zoo: Directory of the zoo.
        name: Name of the population.
        target: The column that is asked for.
        out: Directory of the study, for what must be computed.

    Returns:
        The population.
    """
    return with_derived(load(zoo)[name], (target,), out / "derived")


def fit(cell: Cell, out: Path) -> dict[str, Predictions]:
    """Fit a cell's metanet once, and predict the test networks of all its places.

    Args:
        cell: The cell.
        out: Directory of the study.

    Returns:
        Its predictions by name of the place, its own population first.
    """
    from metanet.estimator import Metanet

    start = time.perf_counter()
    population = open_population(cell.zoo, cell.population, cell.target, out)
    learned = population
    if cell.shuffled:
        learned = with_shuffled_labels(population, cell.target, cell.seed)
    model = Metanet(
        cell.metanet, target=cell.target, treatment=cell.treatment, seed=cell.seed, **cell.options
    )
    with warnings.catch_warnings():
        _ignore_dropped()
        model.fit(learned, num_train=cell.num_train)
        found = {}
        for place in cell.places:
            there = open_population(place.zoo, place.population, cell.target, out)
            test = read_labels(there, "test", cell.target)
            truth, prediction = model.predict_examples(there, "test")
            dropped = model.num_dropped_ + test.num_dropped
            now = time.perf_counter()
            found[place.name] = Predictions(
                test.network_id, truth, prediction, model.num_train_, dropped, now - start
            )
            start = now
    return found


def read_labels(
    population: PopulationLike, split: str, target: str, count: int | None = None
) -> Examples:
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


def save_predictions(path: Path, found: Mapping[str, Predictions]) -> None:
    """Write the predictions of a cell; the file is there completely or not at all.

    Args:
        path: File to write, `.npz`; its folder is made if need be.
        found: What to write, by name of the place.
    """
    arrays = {
        f"{i}.{name}": value
        for i, part in enumerate(found.values())
        for name, value in vars(part).items()
    }
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        np.savez(file, places=np.array(list(found)), **arrays)


def load_predictions(path: Path) -> dict[str, Predictions]:
    """Read what `save_predictions` wrote.

    Args:
        path: The file.

    Returns:
        The predictions by name of the place, those of the cell's own population first.

    Raises:
        ValueError: If the file is damaged.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            places = arrays["places"].tolist()
            return {place: _read_part(arrays, index) for index, place in enumerate(places)}
    except (KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path}: not the predictions of a cell ({error}); delete the file and run again"
        ) from error


def _read_part(arrays: Mapping[str, np.ndarray], index: int) -> Predictions:
    values = {name: arrays[f"{index}.{name}"] for name in Predictions.__dataclass_fields__}
    scalars = {name: values.pop(name).item() for name in ("num_train", "num_dropped", "seconds")}
    return Predictions(**values, **scalars)
