"""Shards and constants of another schema are refused by whatever reads them."""

from pathlib import Path

import numpy as np
import pytest

import zoo
from tests.stored import read_attributes, read_columns
from tests.zoo.untrusted.edits import SHARD, edit, standard
from zoo.store.atomic import sha256
from zoo.store.hdf5 import write_columns
from zoo.store.mapped import StoreError


def replace(folder: Path, change, population: str = "standard") -> None:
    """Write a shard anew and tell the manifest."""
    columns, attributes = read_columns([folder / SHARD]), read_attributes(folder / SHARD)
    change(columns)
    write_columns(folder / SHARD, columns, attributes, equal_rows=False)
    path = folder / SHARD
    edit(
        folder,
        lambda d: standard(d)["shards"][SHARD].update(
            bytes=path.stat().st_size, sha256=sha256(path)
        ),
    )


SCHEMA = {
    "no column": (lambda c: c.pop("lr"), "no column 'lr'"),
    "type": (
        lambda c: c.update(lr=c["lr"] > 0),
        "'lr': expected shape .4. float64, found .4. bool",
    ),
    "float32 metric": (
        lambda c: c.update(test_loss=c["test_loss"].astype("f4")),
        "'test_loss': expected shape .4. float64",
    ),
    "shape": (
        lambda c: c.update(lr=np.zeros((4, 2))),
        r"'lr': expected shape \[4\] .* found \[4, 2\] float64",
    ),
    "rows": (
        lambda c: c.update(lr=np.zeros(5)),
        r"'lr': expected shape \[4\] .* found \[5\] float64",
    ),
    "unknown column": (
        lambda c: c.update(other=np.zeros(4)),
        "column 'other' is none of the format",
    ),
    "gap": (
        lambda c: c.update(network_id=np.array([0, 1, 3, 4])),
        "'network_id': expected 0 to 3 in order",
    ),
    "repeat": (
        lambda c: c.update(network_id=np.array([0, 1, 1, 3])),
        "'network_id': expected 0 to 3 in order",
    ),
    "double params": (
        lambda c: c.update({"layers.0.bias": np.zeros((4, 4))}),
        "'layers.0.bias': expected shape .4, 4. float32",
    ),
}


@pytest.mark.parametrize(("change", "part"), SCHEMA.values(), ids=SCHEMA)
@pytest.mark.parametrize(
    "read", [lambda p: p.params("train"), lambda p: p.table("train"), lambda p: p.flat("train")]
)
def test_shards_of_another_schema_are_refused_by_whatever_reads_them(folder, change, part, read):
    replace(folder, change)
    with pytest.raises(StoreError, match=part):
        read(zoo.load(folder)["standard"])


def constants(folder: Path, columns) -> None:
    path = folder / "constants" / "standard.h5"
    write_columns(path, columns, {"population": "standard"}, equal_rows=False)
    entry = {"rows": len(columns), "bytes": path.stat().st_size, "sha256": sha256(path)}
    edit(folder, lambda d: standard(d).update(constants=entry))


@pytest.mark.parametrize(
    "columns",
    [
        {"free.layers.0.bias": np.ones(3, bool), "fixed.layers.0.bias": np.zeros(3, np.float32)},
        {
            "free.layers.0.bias": np.ones(4, np.uint8),
            "fixed.layers.0.bias": np.zeros(4, np.float32),
        },
        {"free.layers.0.bias": np.ones(4, bool)},
        {"free.other": np.ones(4, bool), "fixed.other": np.zeros(4, np.float32)},
        {"mixing.h1": np.zeros((4, 3), np.float32)},
        {"mixing.other": np.zeros((4, 4), np.float32)},
        {"evil.h1": np.zeros((4, 4), np.float32)},
    ],
)
def test_constants_that_do_not_fit_are_refused(folder, columns):
    constants(folder, columns)
    with pytest.raises(
        StoreError, match=r"constants/standard.h5: .*(is no constant|must be of the same tensors)"
    ):
        zoo.load(folder)["standard"].params("train", view="free")


def test_constants_that_fit_are_read(folder):
    constants(
        folder,
        {"free.layers.0.bias": np.arange(4) > 1, "fixed.layers.0.bias": np.zeros(4, np.float32)},
    )
    assert zoo.load(folder)["standard"].params("train", view="free")["layers.0.bias"].shape == (
        4,
        2,
    )
