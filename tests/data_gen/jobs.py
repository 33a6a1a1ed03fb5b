"""A job of six small shards, generated in a moment."""

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
