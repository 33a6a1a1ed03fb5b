"""Features of networks: flat vectors, and statistics of the free entries of each tensor."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from metanet.columns import HyperparameterColumn
from metanet.contract import InputSpec
from zoo.params import free_entries
from zoo.views import PopulationLike

STATISTICS = ("mean", "variance", "min", "max", "q25", "q50", "q75")
CHUNK_ENTRIES = 4_000_000


def free_tensors(spec: InputSpec, params: Mapping[str, Tensor]) -> dict[str, Float[Tensor, "N F"]]:
    """The free entries of every tensor.

    Args:
        spec: Weight space and masks.
        params: Full params ``[N, *shape]``.

    Returns:
        Tensors ``[N, F]``, entries in C order, without the tensors that have no free entry.
    """
    entries = free_entries(params, spec.free)
    return {name: entries[name].reshape(len(entries[name]), -1) for name in spec.free_sizes}


def flat_free(spec: InputSpec, params: Mapping[str, Tensor]) -> Float[Tensor, "N D"]:
    """The free entries of a network as one vector, tensors in the order of the space.

    Args:
        spec: Weight space and masks.
        params: Full params ``[N, *shape]``.

    Returns:
        ``[N, D]``, D the number of free entries.
    """
    return torch.cat(list(free_tensors(spec, params).values()), dim=1)


def statistics(spec: InputSpec, params: Mapping[str, Tensor]) -> Float[Tensor, "N S"]:
    """Mean, variance, minimum, maximum and quartiles of the free entries, tensor by tensor.

    Variance divides by the number of entries, so that a tensor of one entry has variance 0;
    quartiles interpolate linearly. Computed in float64, since weights of a diverged network may be
    huge, and cut off at the largest number of the params' type.

    Args:
        spec: Weight space and masks.
        params: Full params ``[N, *shape]``.

    Returns:
        ``[N, 7 T]``, the 7 statistics of the first tensor, then those of the second, ...

    References:
        Unterthiner et al. 2020, arXiv 2002.11448, section 3; Lim et al. 2024, arXiv 2405.20231,
        Table 3 ("StatNN").
    """
    return torch.cat(
        [_tensor_statistics(view) for view in free_tensors(spec, params).values()], dim=1
    )


def _tensor_statistics(view: Float[Tensor, "N F"]) -> Float[Tensor, "N 7"]:
    rows = max(1, CHUNK_ENTRIES // view.shape[1])
    largest = torch.finfo(view.dtype).max
    chunks = []
    for chunk in view.split(rows):
        ordered = chunk.sort(dim=1).values.double()
        variance, mean = torch.var_mean(ordered, dim=1, correction=0)
        quartiles = [_quantile_of_sorted(ordered, q) for q in (0.25, 0.5, 0.75)]
        chunks.append(
            torch.stack([mean, variance, ordered[:, 0], ordered[:, -1], *quartiles], dim=1)
        )
    return torch.cat(chunks).clamp(-largest, largest).to(view.dtype)


def _quantile_of_sorted(ordered: Float[Tensor, "N F"], q: float) -> Float[Tensor, "N"]:
    position = q * (ordered.shape[1] - 1)
    low = int(position)
    high = min(low + 1, ordered.shape[1] - 1)
    return ordered[:, low].lerp(ordered[:, high], position - low)


def hyperparameter_columns(population: PopulationLike) -> dict[str, HyperparameterColumn]:
    """What is known of the hyperparameters of a population.

    Names in a column of text are those of all splits: a rare one may be missing in training.

    Args:
        population: The population.

    Returns:
        What `InputSpec.hyperparameters` holds.
    """
    tables = [population.table(split) for split in population.splits]
    known = {}
    for name in population.hyperparameters:
        column, entry = pd.concat([table[name] for table in tables]), population.columns.get(name)
        if not pd.api.types.is_numeric_dtype(column):
            known[name] = HyperparameterColumn(tuple(sorted(map(str, column.unique()))))
            continue
        low, high = (None, None) if entry is None else entry.range
        known[name] = HyperparameterColumn(None, low, high, bool(column.isna().any()))
    return known


def encode_hyperparameters(spec: InputSpec, table: pd.DataFrame) -> Float[Tensor, "N H"]:
    """Hyperparameters as numbers.

    Numeric columns stay as they are, a missing number NaN (trees send it its own way); a column of
    text gives a column of 0 or 1 per known value.

    Args:
        spec: Names the columns and their values.
        table: One row a network, with at least those columns.

    Returns:
        ``[N, H]``, float64.

    Raises:
        ValueError: If a column is missing, or a value is none that networks have.
    """
    missing = [name for name in spec.hyperparameters if name not in table.columns]
    if missing:
        raise ValueError(
            f"hyperparameters: expected columns {list(spec.hyperparameters)}, missing {missing}"
        )
    encoded = []
    for name, known in spec.hyperparameters.items():
        known.check(name, pd.Series(table[name]))
        if known.values is None:
            encoded.append(table[name].to_numpy(dtype="float64", na_value=np.nan))
        else:
            column = table[name].astype(str).to_numpy()
            encoded += [column == value for value in known.values]
    return torch.from_numpy(np.stack(encoded, axis=1).astype("float64"))
