"""What checkpoints of networks hold: parameters, conserved quantities, metrics."""

import numpy as np
import torch

from zoo.params import Params
from zoo.store.mapped import StoreError
from zoo.store.schema import METRIC, QUANTITY, RESIDUAL
from zoo.store.split_files import SplitFiles
from zoo.weight_space import WeightSpace


def read_steps(files: SplitFiles) -> np.ndarray:
    """Step of each checkpoint.

    Args:
        files: Trajectories of the networks of a split.

    Returns:
        `[N, T]`.
    """
    return files.columns(["checkpoint_steps"])["checkpoint_steps"]


def read_params(files: SplitFiles, space: WeightSpace) -> Params:
    """Parameters at checkpoints.

    Args:
        files: Trajectories of the networks of a split.
        space: Their weight space.

    Returns:
        Tensors `[N, T, *shape]`.
    """
    count = files.files[0].column("checkpoint_steps").shape[1]
    return files.tensors({name: (count, *shape) for name, shape in space.shapes.items()})


def read_laws(files: SplitFiles) -> tuple[Params, Params]:
    """Conserved quantities and residuals at checkpoints.

    Args:
        files: Trajectories of the networks of a split.

    Returns:
        Quantities and residuals `[N, T, *law.shape]` by the name of the law.

    Raises:
        StoreError: If there are none.
    """
    quantities, residuals = (
        {name: torch.from_numpy(array) for name, array in _beginning(prefix, files).items()}
        for prefix in (QUANTITY, RESIDUAL)
    )
    if not quantities:
        raise StoreError("no conserved quantities; the job asked for no laws")
    return quantities, residuals


def read_metrics(files: SplitFiles) -> dict[str, np.ndarray]:
    """Metrics at checkpoints.

    Args:
        files: Trajectories of the networks of a split.

    Returns:
        Metrics `[N, T]` by name.

    Raises:
        StoreError: If there are none.
    """
    metrics = _beginning(METRIC, files)
    if not metrics:
        raise StoreError("no metrics of checkpoints; the job asked for no checkpoint_metrics")
    return metrics


def _beginning(prefix: str, files: SplitFiles) -> dict[str, np.ndarray]:
    """Columns that begin with a prefix, by the rest of their names."""
    names = [name for name in files.files[0].columns if name.startswith(prefix)]
    return {name.removeprefix(prefix): array for name, array in files.columns(names).items()}
