"""A small zoo that was generated once."""

import shutil
from pathlib import Path

import pytest

import zoo
from data_gen.config import Job
from data_gen.generation import generate
from tests.zoo.population.job import JOB, POPULATIONS


@pytest.fixture(scope="session")
def directory(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("zoos") / "real"
    return generate(
        Job.model_validate(JOB), folder, device="cpu", workers=0, compile=False, quiet=True
    )


@pytest.fixture
def copy(directory, tmp_path) -> Path:
    """A copy of the zoo that a test may damage."""
    return Path(shutil.copytree(directory, tmp_path / "zoo"))


@pytest.fixture(params=POPULATIONS)
def population(directory, request) -> zoo.Population:
    return zoo.load(directory)[request.param]
