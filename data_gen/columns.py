"""The columns of the tables of a zoo that a job makes: what each holds, in which unit."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Shaped

from data_gen.config import HYPERPARAMETERS, Job
from data_gen.tasks.losses import Kind, make_loss
from data_gen.tasks.task import TaskConfig
from zoo.imports import names_code
from zoo.store.entries import ColumnEntry, ColumnType

_FIRST = {
    "network_id": ColumnEntry(role="id", dtype="int64", range=(0, None)),
    "seed": ColumnEntry(role="info", dtype="int64"),
}
_ACCURACY = ColumnEntry(role="metric", dtype="float64", range=(0, 1), direction="higher")
_R2 = ColumnEntry(
    role="metric", dtype="float64", range=(None, 1), direction="higher", nullable=True
)
_RMSE = ColumnEntry(
    role="metric",
    dtype="float64",
    unit="units of the targets",
    range=(0, None),
    direction="lower",
)
_GAPS = {
    "classification": ColumnEntry(role="metric", dtype="float64", range=(-1, 1)),
    "regression": ColumnEntry(role="metric", dtype="float64", nullable=True),
}
_TYPES: dict[str, ColumnType] = {"f": "float64", "i": "int64", "U": "text", "O": "text"}


def task_columns(config: TaskConfig, kind: Kind) -> dict[str, ColumnEntry]:
    """All columns but the hyperparameters, which stand after `seed`; nothing is imported.

    Args:
        config: The task.
        kind: What its targets are: `"classification"` or `"regression"`.

    Returns:
        What each column holds.
    """
    named = (config.loss or {}).get("name", "")
    known = None if names_code(named) else make_loss(config.loss, kind)
    are_numbers = (kind if known is None else known.kind) == "regression"
    measured = {"r2": _R2, "rmse": _RMSE} if are_numbers else {"accuracy": _ACCURACY}
    unit, low = (None, None) if known is None else (known.unit, known.low)
    if config.standardize == "both":
        unit = "deviations of the training targets"
    loss = ColumnEntry(
        role="metric", dtype="float64", unit=unit, range=(low, None), direction="lower"
    )
    metrics = {
        f"{part}_{name}": entry
        for part in ("train", "test")
        for name, entry in {"loss": loss, **measured}.items()
    }
    return {
        **_FIRST,
        **metrics,
        "generalization_gap": _GAPS["regression" if are_numbers else "classification"],
        "steps": ColumnEntry(role="info", dtype="int64", unit="steps", range=(1, None)),
        "train_size": ColumnEntry(
            role="info",
            dtype="int64",
            unit="examples" if are_numbers else "images",
            range=(1, None),
        ),
        "diverged": ColumnEntry(role="info", dtype="bool"),
        "diverged_at": ColumnEntry(role="info", dtype="int64", unit="steps", range=(-1, None)),
    }


def label_column(dtype: ColumnType) -> ColumnEntry:
    """The column of what the data of each network is called."""
    return ColumnEntry(role="target", dtype=dtype)


COLUMNS = {
    "label",
    *task_columns(TaskConfig(loss={"name": "cross_entropy"}), "classification"),
    *task_columns(TaskConfig(loss={"name": "squared_error"}), "regression"),
}
"""Names that no tensor may have."""


def job_columns(
    job: Job, kind: Kind, table: Mapping[str, Shaped[np.ndarray, "N ..."]]
) -> dict[str, ColumnEntry]:
    """The columns of the zoo of a job.

    Args:
        job: The job.
        kind: What the targets of its task are: `"classification"` or `"regression"`.
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
    label = {"label": label_column(_TYPES[table["label"].dtype.kind])} if "label" in table else {}
    others = label | task_columns(job.task, kind)
    return _FIRST | hyperparameters | {n: c for n, c in others.items() if n not in hyperparameters}
