"""A tiny zoo, and a fit that costs nothing and is counted."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

import studies.learnability.scores
from data_gen.config import load_job
from data_gen.generation import generate
from studies.learnability.fits import Cell, Place, Predictions
from tests.studies.zoos import write_zoo
from zoo.store.population import Population, load


@dataclass
class CountedFit:
    """Instead of training: the truth with noise of its own for each cell and place."""

    cells: list[Cell] = field(default_factory=list)

    def __call__(self, cell: Cell, out: Path) -> dict[str, Predictions]:
        self.cells.append(cell)
        return {place.name: self.predict(cell, place) for place in cell.places}

    def predict(self, cell: Cell, place: Place) -> Predictions:
        table = load(place.zoo)[place.population].table("test")
        table = table[np.isfinite(table[cell.target])]
        truth = table[cell.target].to_numpy(np.float64)
        noise = (
            np.random.default_rng(int(cell.key[:8], 16)).standard_normal(truth.size)
            / cell.num_train
        )
        return Predictions(
            table["network_id"].to_numpy(np.int64), truth, truth + noise, cell.num_train, 0, 0.5
        )


@pytest.fixture
def counted_fit(monkeypatch) -> CountedFit:
    fit = CountedFit()
    monkeypatch.setattr(studies.learnability.scores, "fit", fit)
    return fit


@pytest.fixture(scope="session")
def tiny_zoo(tmp_path_factory) -> Path:
    return write_zoo(tmp_path_factory.mktemp("zoos") / "tiny")


@pytest.fixture(scope="session")
def demo_populations(tmp_path_factory) -> dict[str, Population]:
    """Populations of different spaces and masks, a few networks each, trained for one step."""
    changes = [
        "count=12",
        "hyperparameters.steps=1",
        "split={train: 0.5, validation: 0.25, test: 0.25}",
    ]
    job = load_job("demo", changes)
    shown = {name: job.populations[name] for name in ("standard", "smaller", "w_asymmetric")}
    job = job.model_copy(update={"populations": shown})
    return dict(
        load(generate(job, tmp_path_factory.mktemp("zoos") / "demo", compile=False, quiet=True))
    )
