"""A tiny zoo written straight into the store.

Its accuracies depend on the weights, so there is something to learn.
"""

import json
from pathlib import Path

import numpy as np

from data_gen.columns import task_columns
from data_gen.tasks.task import TaskConfig
from zoo.architectures import build_architecture
from zoo.params import Params, stack
from zoo.store.atomic import sha256, write_text
from zoo.store.entries import DEFAULT, ColumnEntry, ShardEntry, TaskEntry, default_splitting
from zoo.store.hdf5 import write_columns
from zoo.store.manifest import Manifest, PopulationEntry

INPUT_SHAPE, NUM_CLASSES = (3,), 2
COLUMNS = task_columns(TaskConfig(), "classification")
TABLE = {
    **{name: COLUMNS[name] for name in ("network_id", "seed")},
    "lr": ColumnEntry(role="hyperparameter", dtype="float64"),
    "optimizer": ColumnEntry(role="hyperparameter", dtype="text"),
    **{name: column for name, column in COLUMNS.items() if name not in ("network_id", "seed")},
}


def write_zoo(
    directory: Path,
    populations: tuple[str, ...] = ("standard", "w_asymmetric"),
    counts: tuple[int, int, int] = (40, 20, 24),
    shift: float = 0.0,
    num_diverged: int = 0,
) -> Path:
    """Write a zoo whose populations differ in the mean of their accuracies by `shift`."""
    split = dict(zip(("train", "validation", "test"), counts, strict=True))
    entries = {}
    for index, name in enumerate(populations):
        shards, start = {}, 0
        for part, count in split.items():
            relative = f"{name}/{part}-00000-of-00001.h5"
            columns = _columns(np.arange(start, start + count), shift * index, num_diverged)
            whose = {"population": name, "split": part, "shard": 0, "shards": 1}
            write_columns(directory / relative, columns, whose)
            path = directory / relative
            shards[relative] = ShardEntry(
                rows=count, bytes=path.stat().st_size, sha256=sha256(path)
            )
            start += count
        space = build_architecture("mlp", {"hidden": [4]}, INPUT_SHAPE, NUM_CLASSES).space
        entries[name] = PopulationEntry(
            architecture={"name": "mlp", "hidden": [4]},
            asymmetry=None,
            space=json.loads(space.to_json()),
            splittings={DEFAULT: default_splitting(split)},
            constants=None,
            shards=shards,
        )
    manifest = Manifest(
        config=None,
        config_sha256=None,
        task=TaskEntry(kind="classification", input_shape=INPUT_SHAPE, output_shape=(NUM_CLASSES,)),
        columns=TABLE,
        paired=True,
        environment={},
        populations=entries,
    )
    write_text(directory / "zoo.json", manifest.model_dump_json())
    return directory


def _columns(network_id: np.ndarray, shift: float, num_diverged: int) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(int(network_id[0]))
    count = len(network_id)
    lr = 10 ** generator.uniform(-3, -1, count)
    params = _params(network_id, lr)
    accuracy = np.clip(
        0.5 + 0.2 * np.log10(lr * 100) + shift + 0.02 * generator.standard_normal(count), 0, 1
    )
    diverged = np.arange(count) < num_diverged
    metrics = {
        name: np.where(diverged, np.nan, accuracy) for name in ("train_accuracy", "test_accuracy")
    }
    metrics |= {
        name: np.where(diverged, np.nan, 1 - accuracy) for name in ("train_loss", "test_loss")
    }
    return {
        **{name: tensor.numpy() for name, tensor in params.items()},
        "network_id": network_id,
        "seed": network_id,
        "lr": lr,
        "optimizer": np.array(["sgd", "adamw"])[network_id % 2],
        **metrics,
        "generalization_gap": metrics["train_accuracy"] - metrics["test_accuracy"],
        "steps": np.full(count, 10),
        "train_size": np.full(count, 100),
        "diverged": diverged,
        "diverged_at": np.where(diverged, 1, -1),
    }


def _params(network_id: np.ndarray, lr: np.ndarray) -> Params:
    import torch

    architecture = build_architecture("mlp", {"hidden": [4]}, INPUT_SHAPE, NUM_CLASSES)
    networks = [architecture.init(torch.Generator().manual_seed(int(i))) for i in network_id]
    return {
        name: tensor
        * (1 + torch.as_tensor(np.log10(lr), dtype=torch.float32)).reshape(
            -1, *(1,) * (tensor.dim() - 1)
        )
        for name, tensor in stack(networks).items()
    }
