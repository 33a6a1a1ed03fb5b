"""A small zoo on disk whose networks were drawn, not trained.

Several shards a split, one population with fixed entries.
"""

import json
from pathlib import Path

import numpy as np
import torch

from data_gen.columns import job_columns
from data_gen.config import Job
from zoo.architectures import build_architecture, make_asymmetric
from zoo.params import stack
from zoo.store.atomic import sha256, write_text
from zoo.store.entries import DEFAULT, ShardEntry, TaskEntry, default_splitting
from zoo.store.hdf5 import write_columns
from zoo.store.manifest import MANIFEST_NAME, Manifest, PopulationEntry

SPLIT = {"train": 40, "validation": 13, "test": 21}
SHARD = 9
INPUT, CLASSES = (1, 8, 8), 10
JOB = Job.model_validate(
    {
        "task": {"name": "digits"},
        "populations": {
            "standard": {"architecture": {"name": "mlp", "hidden": [6, 5]}},
            "w_asymmetric": {
                "architecture": {"name": "mlp", "hidden": [6, 5]},
                "asymmetry": {"kind": "w", "n_fix": 2},
            },
        },
        "hyperparameters": {
            "optimizer": {"choice": ["sgd", "adamw"]},
            "lr": {"log_uniform": [0.001, 1.0]},
            "steps": 5,
        },
        "count": sum(SPLIT.values()),
        "split": {name: count / sum(SPLIT.values()) for name, count in SPLIT.items()},
        "shard_size": SHARD,
    }
)


def write_zoo(folder: Path) -> Path:
    """Write it.

    Networks 3 and 44 have diverged and have no test accuracy.
    """
    populations = {name: write_population(folder, name) for name in JOB.populations}
    manifest = Manifest(
        config=json.loads(JOB.as_json()),
        config_sha256=JOB.sha256,
        task=TaskEntry(kind="classification", input_shape=INPUT, output_shape=(CLASSES,)),
        columns=job_columns(JOB, "classification", columns(1, np.ones(1))),
        paired=True,
        environment={"python": "3"},
        populations=populations,
    )
    write_text(folder / MANIFEST_NAME, manifest.model_dump_json())
    return folder


def write_population(folder: Path, name: str) -> PopulationEntry:
    config = JOB.populations[name]
    architecture = build_architecture("mlp", {"hidden": [6, 5]}, INPUT, CLASSES)
    architecture = (
        make_asymmetric(architecture, "w", {"n_fix": 2}, seed=0)
        if config.asymmetry
        else architecture
    )
    generator, count = torch.Generator().manual_seed(0), sum(SPLIT.values())
    params = stack([architecture.init(generator) for _ in range(count)])
    size = torch.linspace(0.5, 2.0, count)[torch.randperm(count, generator=generator)]
    for tensor, values in params.items():
        scaled = values * size.reshape(-1, *(1,) * (values.dim() - 1))
        params[tensor] = (
            torch.where(architecture.free[tensor], scaled, values)
            if tensor in architecture.free
            else scaled
        )
    table = columns(count, size.double().numpy())
    shards, start = {}, 0
    for split, rows in SPLIT.items():
        of = -(-rows // SHARD)
        for number in range(of):
            stop = min(start + SHARD, sum(list(SPLIT.values())[: list(SPLIT).index(split) + 1]))
            path = f"{name}/{split}-{number:05d}-of-{of:05d}.h5"
            part = {n: v[start:stop] for n, v in table.items()} | {
                n: v[start:stop].numpy() for n, v in params.items()
            }
            names = {
                "population": name,
                "split": split,
                "shard": number,
                "shards": of,
                "config_sha256": JOB.sha256,
            }
            write_columns(folder / path, part, names)
            shards[path] = entry(folder / path, stop - start)
            start = stop
    constants = None
    if architecture.constants:
        path = folder / "constants" / f"{name}.h5"
        write_columns(
            path,
            {n: c.numpy() for n, c in architecture.constants.items()},
            {"population": name, "config_sha256": JOB.sha256},
            equal_rows=False,
        )
        constants = entry(path, len(architecture.constants))
    return PopulationEntry(
        architecture=config.architecture,
        asymmetry=config.asymmetry,
        space=json.loads(architecture.space.to_json()),
        splittings={DEFAULT: default_splitting(SPLIT)},
        constants=constants,
        shards=shards,
    )


def entry(path: Path, rows: int) -> ShardEntry:
    return ShardEntry(rows=rows, bytes=path.stat().st_size, sha256=sha256(path))


def columns(count: int, size: np.ndarray) -> dict[str, np.ndarray]:
    """The table: accuracy grows with the size of the weights."""
    accuracy = 1 / (1 + np.exp(2 - 2 * size))
    diverged = np.isin(np.arange(count), [3, 44])
    table: dict[str, np.ndarray] = {"network_id": np.arange(count), "seed": 7 * np.arange(count)}
    for name, distribution in JOB.hyperparameters.items():
        fixed = distribution.fixed
        table[name] = np.full(count, fixed, object if isinstance(fixed, str) else None)
    table["optimizer"] = np.where(np.arange(count) % 2, "adamw", "sgd").astype(object)
    table["lr"] = size / 2
    table |= {"train_loss": 1 / size, "train_accuracy": accuracy, "test_loss": 1 / size}
    table["test_accuracy"] = np.where(diverged, np.nan, accuracy)
    table |= {
        "generalization_gap": np.zeros(count),
        "train_size": np.full(count, 100),
        "diverged": diverged,
    }
    table["diverged_at"] = np.where(diverged, 2, -1)
    return table
