"""The short form of `tests/torture.py`.

A few kills, two writers, and a Ray worker that dies in the middle of a job.
"""

import importlib
import sys
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest
from click.testing import CliRunner

from data_gen.cli import main
from data_gen.config import Job
from data_gen.generation import generate
from tests import torture

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/stat").exists(), reason="finds processes in /proc"
)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("torture")


@pytest.fixture(scope="module")
def reference(place):
    return torture.make_reference(place, warm=True)[0]


def test_killed_at_any_moment_nothing_is_lost(place, reference):
    counts = torture.torture(4, "local", place, reference, duration=1.5, seed=3, warm=True)
    assert sum(counts[target] for target in ("driver", "worker", "everything")) >= 4


def test_a_process_that_cannot_be_started_is_started_again(place, reference, monkeypatch):
    """As when the server that forks them is killed."""
    start, failed = ForkServerProcess.start, []

    def fail_once(self):
        if not failed:
            failed.append(self)
            raise EOFError("unexpected EOF")
        start(self)

    monkeypatch.setattr(ForkServerProcess, "start", fail_once)
    job = Job.model_validate(torture.JOB)
    assert (
        torture.contents(generate(job, place / "started", workers=1, compile=False, quiet=True))
        == reference
    )
    assert failed


def test_two_writers_at_once(place, reference):
    torture.two_writers(place, reference, warm=True)


@pytest.mark.deep
def test_a_ray_worker_is_killed_and_the_zoo_is_that_of_the_local_executor(place, reference):
    pytest.importorskip("ray", reason="Ray is an extra")
    counts = torture.strike_once_at_work(place, reference, "ray")
    assert counts == 1


def test_without_ray_one_line_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    (tmp_path / "job.json").write_text(torture.JOB_TEXT)
    arguments = [str(tmp_path / "job.json"), "--out", str(tmp_path / "zoo"), "--executor", "ray"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    message = (
        "generate-zoo: the executor ray needs Ray, which is not installed: pip install "
        "'symzoo[ray]'"
    )
    assert result.stderr.strip() == message
    assert not (tmp_path / "zoo").exists()


@pytest.mark.parametrize("address", ["127.0.0.1:1", "no.such.host.invalid:6379"])
def test_a_ray_cluster_that_is_not_there(tmp_path, address):
    pytest.importorskip("ray", reason="Ray is an extra")
    (tmp_path / "job.json").write_text(torture.JOB_TEXT)
    arguments = [
        str(tmp_path / "job.json"),
        "--out",
        str(tmp_path / "zoo"),
        "--executor",
        "ray",
        "--address",
        address,
    ]
    result = CliRunner().invoke(main, [*arguments, "--quiet", "--no-compile"])
    assert result.exit_code == 2
    assert result.stderr.startswith(
        f"generate-zoo: --address {address}: no Ray cluster can be reached there ("
    )
    assert len(result.stderr.splitlines()) == 1


def test_ray_is_imported_only_when_it_is_used(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "data_gen.executors.ray", raising=False)
    importlib.import_module("data_gen.executors.ray")
