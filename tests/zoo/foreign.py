"""A zoo that no job made, as an importer would write it.

Two populations of unequal size: perceptrons of a known function, and networks of which only the
weight space is known. Rewards that some networks lack, labels as numbers and as text, runs with
several networks each, a published splitting, checkpoints with metrics.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from zoo.architectures import build_architecture
from zoo.sharing.card import render_card
from zoo.store.atomic import sha256, write_text
from zoo.store.entries import (
    DEFAULT,
    SPLITS,
    ColumnEntry,
    DroppedRows,
    ShardEntry,
    SourceEntry,
    SourceFile,
    SplittingEntry,
    TaskEntry,
    default_splitting,
    splitting_digest,
)
from zoo.store.hdf5 import write_columns
from zoo.store.manifest import CARD_NAME, MANIFEST_NAME, Manifest, PopulationEntry

INPUT, OUTPUTS, MOMENTS = (3,), 2, 3
SIZES = {
    "known": {"train": 12, "validation": 4, "test": 8},
    "unknown": {"train": 6, "validation": 2, "test": 3},
}
HIDDEN = {"known": [4], "unknown": [7]}
SHARD = 5
COLUMNS = {
    "network_id": ColumnEntry(role="id", dtype="int64", range=(0, None)),
    "config.lr": ColumnEntry(role="hyperparameter", dtype="float64", range=(0, None)),
    "reward": ColumnEntry(
        role="metric", dtype="float64", unit="points", direction="higher", nullable=True
    ),
    "label": ColumnEntry(role="target", dtype="int64", range=(0, 9)),
    "caption": ColumnEntry(role="target", dtype="text", nullable=True),
    "run": ColumnEntry(role="group", dtype="text"),
    "image": ColumnEntry(role="info", dtype="int64"),
    "published": ColumnEntry(role="splitting", dtype="text"),
}
SOURCE = SourceEntry(
    importer="test",
    version="1",
    options={"strict": True, "limit": 24},
    url="https://example.org/zoo",
    license="cc-by-4.0",
    citation="@misc{zoo,\n  title={A | zoo}\n}",
    files=(SourceFile(name="weights.npy", bytes=10, sha256="0" * 64),),
    dropped=(DroppedRows(rows=3, reason="ended by NaN"),),
)


def write_foreign(folder: Path) -> Path:
    """Write it."""
    manifest = Manifest(
        config=None,
        config_sha256=None,
        task=TaskEntry(
            kind="regression", input_shape=INPUT, output_shape=(OUTPUTS,), loss="mean_squared"
        ),
        columns=COLUMNS,
        paired=False,
        environment={"python": "3"},
        source=SOURCE,
        populations={name: write_population(folder, name) for name in SIZES},
        views={"all": ("known", "unknown")},
    )
    write_text(folder / CARD_NAME, render_card(folder, manifest))
    write_text(folder / MANIFEST_NAME, manifest.model_dump_json())
    return folder


def table_of(name: str) -> dict[str, np.ndarray]:
    """The table of a population: three networks a run, the last network of a run without reward."""
    count = sum(SIZES[name].values())
    ids = np.arange(count)
    bounds = np.cumsum([SIZES[name][split] for split in SPLITS])
    place = np.searchsorted(bounds, ids, side="right")
    runs = np.array([f"run {split} {i // 4}" for i, split in zip(ids, place, strict=True)])
    published = np.where(place == 0, "test", "train").astype(object)
    published[place == 1] = ""
    return {
        "network_id": ids,
        "config.lr": np.linspace(0.1, 1.0, count),
        "reward": np.where(ids % 3 == 2, np.nan, -2.5 * ids),
        "label": ids % 10,
        "caption": np.where(ids % 2, "a caption", "").astype(object),
        "run": runs.astype(object),
        "image": 7 * ids,
        "published": published,
    }


def params_of(name: str) -> dict[str, np.ndarray]:
    """Trajectories `[N, T, *shape]` of a population; the last moment is the final network."""
    space = build_architecture("mlp", {"hidden": HIDDEN[name]}, INPUT, OUTPUTS).space
    count, generator = sum(SIZES[name].values()), np.random.default_rng(len(name))
    return {
        tensor: generator.normal(size=(count, MOMENTS, *shape)).astype(np.float32)
        for tensor, shape in space.shapes.items()
    }


def write_population(folder: Path, name: str) -> PopulationEntry:
    """Write its shards."""
    table, params = table_of(name), params_of(name)
    moments = {"checkpoint_steps": np.tile([0, 20, 40], (len(table["label"]), 1))}
    moments |= params
    along = np.arange(MOMENTS) - MOMENTS + 1
    moments["metric.reward"] = table["reward"][:, None] + along
    columns = table | {tensor: values[:, -1] for tensor, values in params.items()}
    shards, trajectory, start = {}, {}, 0
    for split, rows in SIZES[name].items():
        of = -(-rows // SHARD)
        for number in range(of):
            taken = slice(start, start + min(SHARD, rows - number * SHARD))
            file = f"{split}-{number:05d}-of-{of:05d}.h5"
            told = {"population": name, "split": split, "shard": number, "shards": of}
            for folder_of, content, files in (
                (name, columns, shards),
                (f"{name}.trajectory", {"network_id": table["network_id"]} | moments, trajectory),
            ):
                path = folder / folder_of / file
                write_columns(path, {n: c[taken] for n, c in content.items()}, told)
                size = path.stat().st_size
                entry = ShardEntry(rows=taken.stop - start, bytes=size, sha256=sha256(path))
                files[f"{folder_of}/{file}"] = entry
            start = taken.stop
    space = build_architecture("mlp", {"hidden": HIDDEN[name]}, INPUT, OUTPUTS).space
    described: dict[str, Any] = {"name": "mlp", "hidden": HIDDEN[name]}
    return PopulationEntry(
        architecture=described if name == "known" else None,
        asymmetry=None,
        space=json.loads(space.to_json()),
        splittings={
            DEFAULT: default_splitting(SIZES[name]),
            "published": published_splitting(table["published"]),
        },
        constants=None,
        shards=shards,
        trajectory=trajectory,
    )


def published_splitting(split_of: np.ndarray) -> SplittingEntry:
    """The splitting that a column describes."""
    ids = {split: np.flatnonzero(split_of == split) for split in SPLITS}
    return SplittingEntry(
        origin="published procedure",
        sizes={split: len(rows) for split, rows in ids.items()},
        sha256=splitting_digest(ids),
    )
