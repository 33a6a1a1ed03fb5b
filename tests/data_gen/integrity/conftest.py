"""A tiny zoo, and a copy that a test may damage."""

import shutil
from pathlib import Path

import pytest

import data_gen.integrity.verify
from tests.fuzz_store import base, prove_in_forks


@pytest.fixture(autouse=True)
def _no_interpreter_for_each_proof(monkeypatch):
    """Files are proved in forks of this process, as by the fuzzer; the commands of other tests and
    the pages start a process of their own.
    """
    monkeypatch.setattr(data_gen.integrity.verify, "prove", prove_in_forks)


@pytest.fixture(scope="session")
def original(tmp_path_factory) -> Path:
    return base(tmp_path_factory.mktemp("verify") / "zoo")


@pytest.fixture
def copy(original, tmp_path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "zoo"))
