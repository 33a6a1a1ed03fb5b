"""A job of six small shards, generated in a moment."""

from data_gen.config import Job

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
