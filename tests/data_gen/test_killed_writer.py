"""A writer that dies at any of its file operations, or in the middle of a write, loses nothing."""

import os
import resource
import signal
from pathlib import Path

import pytest

from data_gen.config import Job
from data_gen.generation import generate
from tests.tiers import tiered

JOB = Job.model_validate(
    {
        "task": {"name": "digits", "train_size": 20, "test_size": 10},
        "populations": {
            "w": {"architecture": {"name": "mlp", "hidden": [6]}, "asymmetry": {"kind": "w"}}
        },
        "hyperparameters": {"steps": 1},
        "split": {"train": 0.5, "validation": 0, "test": 0.5},
        "checkpoints": 2,
        "count": 2,
    }
)
OPERATIONS = ((os, "fsync"), (os, "open"), (Path, "replace"), (Path, "write_text"), (Path, "mkdir"))
"""What a writer does to a disk; each is where it may die, before the operation and after it."""
KILLED = 9


def make(folder):
    return generate(JOB, folder, device="cpu", compile=False, quiet=True)


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    }


@pytest.fixture(scope="module")
def complete(tmp_path_factory):
    return contents(make(tmp_path_factory.mktemp("complete") / "zoo"))


def in_a_fork(prepare, folder):
    """The status of a fork that makes the zoo after some preparation."""
    pid = os.fork()
    if pid == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        try:
            prepare()
            make(folder)
        finally:
            os._exit(0)
    return os.waitpid(pid, 0)[1]


def die_at(moment):
    """This process dies at an operation: at even moments before it, at odd ones after it."""
    moments = iter(range(10**6))

    def watched(operation):
        def run(*arguments, **named):
            if next(moments) == moment:
                os._exit(KILLED)
            result = operation(*arguments, **named)
            if next(moments) == moment:
                os._exit(KILLED)
            return result

        return run

    for owner, name in OPERATIONS:
        setattr(owner, name, watched(getattr(owner, name)))


def assert_nothing_is_lost(folder, complete):
    """What has a name is whole, and the same command makes the rest."""
    left = contents(folder) if folder.exists() else {}
    assert {name: complete[name] for name in left} == left
    assert contents(make(folder)) == complete


@pytest.mark.parametrize("moment", tiered([(i,) for i in range(140)], lambda i: i % 24 == 4))
def test_death_at_an_operation(complete, tmp_path, moment):
    status = in_a_fork(lambda: die_at(moment), tmp_path / "zoo")
    assert os.waitstatus_to_exitcode(status) in (0, KILLED)
    assert_nothing_is_lost(tmp_path / "zoo", complete)


def test_moments_cover_all_operations(complete, tmp_path):
    assert os.waitstatus_to_exitcode(in_a_fork(lambda: die_at(139), tmp_path / "zoo")) == 0
    assert os.waitstatus_to_exitcode(in_a_fork(lambda: die_at(100), tmp_path / "one")) == KILLED


def stop_writing_after(size):
    """A file of this process cannot grow beyond a size: the write that would do it kills it."""
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


@pytest.mark.parametrize("share", tiered([(i,) for i in range(40)], lambda i: i % 8 == 3))
def test_death_in_the_middle_of_a_write(complete, tmp_path, share):
    size = max(map(len, complete.values())) * share // 40
    status = in_a_fork(lambda: stop_writing_after(size), tmp_path / "zoo")
    assert os.waitstatus_to_exitcode(status) == -signal.SIGXFSZ
    assert_nothing_is_lost(tmp_path / "zoo", complete)
