"""A tiny zoo, and a copy that a test may damage."""

import shutil
from pathlib import Path

import pytest

from tests.fuzz_store import base


@pytest.fixture(scope="session")
def original(tmp_path_factory) -> Path:
    return base(tmp_path_factory.mktemp("verify") / "zoo")


@pytest.fixture
def copy(original, tmp_path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "zoo"))
