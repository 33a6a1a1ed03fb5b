"""A small zoo that a test may damage."""

import shutil
from pathlib import Path

import pytest

from tests.studies.zoos import write_zoo


@pytest.fixture(scope="session")
def original(tmp_path_factory) -> Path:
    return write_zoo(tmp_path_factory.mktemp("original") / "zoo", counts=(4, 2, 2))


@pytest.fixture
def folder(original, tmp_path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "zoo"))
