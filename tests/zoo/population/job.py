"""The job of a small zoo, trained for real, and a way to edit what is told of it."""

import json
from collections.abc import Callable
from pathlib import Path

POPULATIONS = ["standard", "w_asymmetric", "small_cnn", "sigma_asymmetric"]
SPLITS = {"train": range(6), "validation": range(6, 9), "test": range(9, 12)}
CHECKPOINTS = 3
JOB = {
    "task": {"name": "digits", "train_size": 60, "test_size": 50},
    "populations": {
        "standard": {"architecture": {"name": "mlp", "hidden": [8]}},
        "w_asymmetric": {
            "architecture": {"name": "mlp", "hidden": [8]},
            "asymmetry": {
                "kind": "w",
                "n_fix": {"layers.0.weight": 9, "layers.1.weight": 2},
                "kappa": 0.5,
            },
        },
        "small_cnn": {
            "architecture": {"name": "cnn", "channels": [3, 4], "pool": "flatten", "norm": "layer"}
        },
        "sigma_asymmetric": {
            "architecture": {"name": "mlp", "hidden": [8]},
            "asymmetry": {"kind": "sigma"},
        },
    },
    "hyperparameters": {
        "optimizer": {"choice": ["sgd", "adamw"]},
        "lr": {"log_uniform": [0.01, 0.3]},
        "init_scale": {"uniform": [0.5, 2.0]},
        "batch_size": 16,
        "steps": {"int_range": [2, 5]},
    },
    "count": 12,
    "seed": 5,
    "shard_size": 4,
    "checkpoints": CHECKPOINTS,
}
NUM_FREE = {
    "standard": 610,
    "w_asymmetric": 610 - 8 * 9 - 10 * 2,
    "small_cnn": 326,
    "sigma_asymmetric": 610,
}


def edit_manifest(directory: Path, change: Callable[[dict], object]) -> None:
    path = directory / "zoo.json"
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))
