"""First stage: a metanet is fitted on a population and predicts test networks."""

import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from metanet.estimator import Metanet
from metanet.inputs.dataset import Examples, read_examples
from metanet.inputs.treatments import NONE, TreatmentSpec
from studies.common.computed_targets import with_derived
from studies.common.grid import PLACE
from studies.learnability.plugins import Plugin
from studies.learnability.shuffled import with_shuffled_labels
from zoo.store.zoo import load
from zoo.views import PopulationLike


@dataclass(frozen=True)
class Place:
    """Where test networks lie.

    Attributes:
        zoo: Directory of the zoo.
        population: Name of the population there.
        fingerprint: Identity of the population's content.
        name: What the rows call it.
    """

    zoo: Path = field(metadata=PLACE)
    population: str
    fingerprint: str
    name: str


@dataclass(frozen=True)
class FitCell:
    """One fit: what is learned from what.

    Attributes:
        zoo: Directory of the zoo.
        folder: Where computed targets are kept.
        population: Name of the population.
        fingerprint: Identity of the population's content.
        metanet: Name of the metanet.
        target: Column that the metanet predicts.
        num_train: Number of training networks.
        seed: Seed of the metanet.
        options: Further options of the metanet.
        treatment: What is done about symmetry; any spelling of the same `steps` will do.
        steps: Steps of the treatment with all their options, as `repr` shows them.
        shuffled: Whether the labels that it learns from are shuffled.
        elsewhere: Where to predict besides the population's own test networks.
        plugins: Metanets and treatments from elsewhere that it needs.
    """

    zoo: Path = field(metadata=PLACE)
    folder: Path = field(metadata=PLACE)
    population: str
    fingerprint: str
    metanet: str
    target: str
    num_train: int
    seed: int
    options: Mapping[str, Any] = field(default_factory=dict)
    treatment: TreatmentSpec = field(default=NONE, metadata=PLACE)
    steps: str = "()"
    shuffled: bool = False
    elsewhere: tuple[Place, ...] = ()
    plugins: tuple[Plugin, ...] = ()

    @property
    def name(self) -> str:
        """Metanet, population, number of training networks, treatment and seed."""
        where = f"metanet {self.metanet!r} on population {self.population!r}"
        treated = "" if self.treatment == NONE else f"treatment {self.treatment!r}, "
        return f"{where}, {self.num_train} training networks, {treated}seed {self.seed}"

    @property
    def places(self) -> tuple[Place, ...]:
        """Where it predicts, its own population first."""
        home = Place(self.zoo, self.population, self.fingerprint, self.population)
        return (home, *self.elsewhere)


def fit(cell: FitCell) -> pd.DataFrame:
    """Fit a cell's metanet once, and predict the test networks of all its places.

    Args:
        cell: The cell.

    Returns:
        What `predictions_of` says, of all places, its own population first. The seconds are those
        of predicting and, for its own population, of loading and fitting, on one thread.
    """
    for plugin in cell.plugins:
        plugin.register()
    start = time.perf_counter()
    population = open_population(cell.zoo, cell.population, cell.target, cell.folder)
    if cell.shuffled:
        population = with_shuffled_labels(population, cell.target, cell.seed)
    settings = {"target": cell.target, "treatment": cell.treatment, "seed": cell.seed}
    model = Metanet(cell.metanet, **settings, **cell.options)
    tables = []
    with warnings.catch_warnings():
        _ignore_dropped()
        model.fit(population, num_train=cell.num_train)
        for place in cell.places:
            table, now = _predict(model, cell, place), time.perf_counter()
            tables.append(table.assign(seconds=now - start))
            start = now
    return pd.concat(tables, ignore_index=True)


def _predict(model: Metanet, cell: FitCell, place: Place) -> pd.DataFrame:
    """What a fitted metanet says about the test networks of a place; the seconds are to be set."""
    there = open_population(place.zoo, place.population, cell.target, cell.folder)
    test = read_labels(there, "test", cell.target)
    truth, prediction = model.predict_examples(there, "test")
    dropped = model.num_dropped_ + test.num_dropped
    taken = {"num_train": model.num_train_, "num_dropped": dropped, "seconds": 0.0}
    return predictions_of(place.name, test.network_id, truth, prediction, **taken)


def predictions_of(
    place: str,
    network_id: Int[np.ndarray, "n"],
    truth: Float[np.ndarray, "n"],
    prediction: Float[np.ndarray, "n"],
    *,
    num_train: int,
    num_dropped: int,
    seconds: float,
) -> pd.DataFrame:
    """What a fitted metanet says about the test networks of one place, and what it took.

    Args:
        place: Name of the place.
        network_id: Identity of each test network.
        truth: Target of each test network.
        prediction: What the metanet predicts for it.
        num_train: Number of networks that it was fitted on, after dropping.
        num_dropped: Number of diverged networks without a finite target, left out of training,
            validation and test.
        seconds: How long it took.

    Returns:
        A row for each network, with these columns; the place is `test_population`.
    """
    columns = {"network_id": network_id, "truth": truth, "prediction": prediction}
    return pd.DataFrame(columns).assign(
        test_population=place, num_train=num_train, num_dropped=num_dropped, seconds=seconds
    )


def open_population(zoo: Path, name: str, target: str, folder: Path) -> PopulationLike:
    """A population of a zoo, with the target among its columns, computed if need be.

    Args:
        zoo: Directory of the zoo.
        name: Name of the population.
        target: The column.
        folder: Where computed targets are kept.

    Returns:
        The population.
    """
    return with_derived(load(zoo)[name], (target,), folder)


def read_labels(
    population: PopulationLike, split: str, target: str, count: int | None = None
) -> Examples:
    """The targets of a split's networks, without those that diverged and have none.

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
