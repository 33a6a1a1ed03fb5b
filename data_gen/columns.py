"""The columns of the tables of a zoo that a job makes: what each holds, in which unit."""

from collections.abc import Mapping
from typing import Literal

import numpy as np
from jaxtyping import Shaped

from data_gen.config import HYPERPARAMETERS, Job
from zoo.store.entries import ColumnEntry, ColumnType

KIND: Literal["classification"] = "classification"
LOSS = "cross_entropy"
"""What networks of a job do, and what their training made small."""
COLUMNS: dict[str, ColumnEntry] = {
    "network_id": ColumnEntry(role="id", dtype="int64", range=(0, None)),
    "seed": ColumnEntry(role="info", dtype="int64"),
    "train_loss": ColumnEntry(
        role="metric", dtype="float64", unit="nats", range=(0, None), direction="lower"
    ),
    "train_accuracy": ColumnEntry(role="metric", dtype="float64", range=(0, 1), direction="higher"),
    "test_loss": ColumnEntry(
        role="metric", dtype="float64", unit="nats", range=(0, None), direction="lower"
    ),
    "test_accuracy": ColumnEntry(role="metric", dtype="float64", range=(0, 1), direction="higher"),
    "generalization_gap": ColumnEntry(role="metric", dtype="float64", range=(-1, 1)),
    "steps": ColumnEntry(role="info", dtype="int64", unit="steps", range=(1, None)),
    "train_size": ColumnEntry(role="info", dtype="int64", unit="images", range=(1, None)),
    "diverged": ColumnEntry(role="info", dtype="bool"),
    "diverged_at": ColumnEntry(role="info", dtype="int64", unit="steps", range=(-1, None)),
}
"""All columns but the hyperparameters, which stand after `seed`."""
_TYPES: dict[str, ColumnType] = {"f": "float64", "i": "int64", "U": "text", "O": "text"}


def job_columns(
    job: Job, table: Mapping[str, Shaped[np.ndarray, "N ..."]]
) -> dict[str, ColumnEntry]:
    """The columns of the zoo of a job.

    Args:
        job: The job.
        table: Some rows of `full_table`, for the types of hyperparameters.

    Returns:
        What each column holds, in the order in which a table shows them.
    """
    hyperparameters = {
        name: ColumnEntry(
            role="hyperparameter",
            dtype=_TYPES[table[name].dtype.kind],
            range=HYPERPARAMETERS[name].range,
        )
        for name in job.hyperparameters
    }
    first = {name: COLUMNS[name] for name in ("network_id", "seed")}
    return first | hyperparameters | {n: c for n, c in COLUMNS.items() if n not in hyperparameters}
