"""A tiny zoo, and a fit that costs nothing and is counted."""

import functools
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from data_gen.config import load_job
from data_gen.generation import generate
from studies.learnability import fits
from studies.learnability.fits import FitCell, Place, predictions_of
from tests.studies.zoos import write_zoo
from zoo.store.population import Population
from zoo.store.zoo import load


class CountedFit:
    """Instead of training: the truth with noise of its own for each cell and place."""

    def __init__(self):
        functools.update_wrapper(self, fits.fit)
        self.cells: list[FitCell] = []

    def __call__(self, cell: FitCell) -> pd.DataFrame:
        self.cells.append(cell)
        tables = [self.predict(cell, place) for place in cell.places]
        return pd.concat(tables, ignore_index=True)

    def predict(self, cell: FitCell, place: Place) -> pd.DataFrame:
        table = load(place.zoo)[place.population].table("test")
        table = table[np.isfinite(table[cell.target])]
        truth = table[cell.target].to_numpy(np.float64)
        noise = (
            np.random.default_rng(zlib.crc32(repr(cell).encode())).standard_normal(truth.size)
            / cell.num_train
        )
        ids = table["network_id"].to_numpy(np.int64)
        taken = {"num_train": cell.num_train, "num_dropped": 0, "seconds": 0.5}
        return predictions_of(place.name, ids, truth, truth + noise, **taken)


@contextmanager
def counting_fits() -> Iterator[CountedFit]:
    """Fits cost nothing inside."""
    with pytest.MonkeyPatch.context() as patch:
        fit = CountedFit()
        patch.setattr("studies.learnability.plan.fit", fit)
        yield fit


@pytest.fixture
def counted_fit() -> Iterator[CountedFit]:
    with counting_fits() as fit:
        yield fit


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
