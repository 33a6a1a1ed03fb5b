"""A job of six small shards, generated in a moment, and runs that are killed."""

import os
import signal

from data_gen.config import Job
from data_gen.planning import make_plan
from zoo.store import atomic

MLP = {"name": "mlp", "hidden": [6]}


def tiny_job(**changes):
    job = {
        "task": {"name": "digits", "train_size": 100, "test_size": 50},
        "populations": {
            "w_asymmetric": {"architecture": MLP, "asymmetry": {"kind": "w"}},
            "standard": {"architecture": MLP},
        },
        "hyperparameters": {"steps": 3, "optimizer": "sgd", "lr": 0.01},
        "count": 8,
        "checkpoints": 2,
    }
    return Job.model_validate(job | changes)


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def visible(folder):
    return {
        name: data
        for name, data in contents(folder).items()
        if not name.split("/")[-1].startswith(".")
    }


def record_published(monkeypatch, folder):
    """Paths inside a folder of all files that get their names from now on, in this order."""
    paths, publish = [], atomic.publish

    def record(temporary, path):
        publish(temporary, path)
        paths.append(str(path.relative_to(folder)))

    monkeypatch.setattr("zoo.store.atomic.publish", record)
    return paths


def assert_trajectories_first(job, paths):
    """Whoever sees the final file of a shard may count on its trajectory."""
    for shard in make_plan(job).shards:
        assert paths.index(shard.path(trajectory=True)) < paths.index(shard.path())


def kill_before_file(number, make):
    """Run something in a fork that is killed (-9) when a file is about to get its name.

    Args:
        number: Which file, from 1.
        make: Writes files.

    Returns:
        The signal that ended the fork; 0 if it made no such file.
    """
    pid = os.fork()
    if pid:
        return os.WTERMSIG(os.waitpid(pid, 0)[1])
    numbers, publish = iter(range(1, number + 1)), atomic.publish

    def publish_or_die(temporary, path):
        if next(numbers) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        publish(temporary, path)

    atomic.publish = publish_or_die
    try:
        make()
    finally:
        os._exit(0)


def assert_resumes_after_kill(number, make, folder, whole):
    """A run that is killed before one of its files leaves whole files, and is completed."""
    assert kill_before_file(number, lambda: make(folder)) == signal.SIGKILL
    left = visible(folder)
    assert any(name.endswith(".h5") for name in left)
    assert "zoo.json" not in left
    assert {name: whole[name] for name in left} == left
    make(folder)
    assert visible(folder) == whole
