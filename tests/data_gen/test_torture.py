"""The short form of `tests/torture.py`.

A few kills, two writers, and a Ray worker that dies in the middle of a job.
"""

import importlib
import socket
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


@pytest.mark.parametrize(
    ("target", "moment"), [("worker", 2), ("driver", 5), ("everything", 9), ("worker", 16)]
)
def test_killed_when_a_file_gets_its_name_nothing_is_lost(place, reference, target, moment):
    torture.strike_at_file(place, reference, target, moment)


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


@pytest.fixture
def closed_address():
    """A port that is taken but does not listen, so nobody else does."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{holder.getsockname()[1]}"


@pytest.mark.parametrize("is_known", [True, False], ids=["nobody listens", "no such host"])
def test_a_ray_cluster_that_is_not_there(tmp_path, monkeypatch, closed_address, is_known):
    pytest.importorskip("ray", reason="Ray is an extra")
    address = closed_address if is_known else "head.cluster:6379"
    if not is_known:
        monkeypatch.setattr("socket.getaddrinfo", unknown_host)
    (tmp_path / "job.json").write_text(torture.JOB_TEXT)
    arguments = [str(tmp_path / "job.json"), "--out", str(tmp_path / "zoo"), "--quiet"]
    arguments += ["--no-compile", "--executor", "ray", "--address", address]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith(
        f"generate-zoo: --address {address}: no Ray cluster can be reached there ("
    )
    assert ("Name or service not known" in result.stderr) != is_known
    assert len(result.stderr.splitlines()) == 1


def unknown_host(*_, **__):
    """What a resolver says; no test asks one."""
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


def test_ray_is_imported_only_when_it_is_used(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "data_gen.executors.ray", raising=False)
    importlib.import_module("data_gen.executors.ray")
