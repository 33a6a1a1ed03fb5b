"""Losses and accuracies of many networks on the images of a zoo's task."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float64, Int64
from torch import Tensor
from torch.func import vmap

from data_gen.tasks.task import Task, TaskConfig, load_task
from zoo.architectures import Architecture
from zoo.architectures.norms import MOMENTUM
from zoo.architectures.record import count_activations
from zoo.params import Params
from zoo.store.population import Population

_IMAGES_AT_ONCE = 256
_PARAMS_AT_ONCE, _ACTIVATIONS_AT_ONCE = 2**23, 2**25  # entries, of four or eight bytes


@dataclass(frozen=True, eq=False)
class Part:
    """Images to evaluate networks on.

    Attributes:
        x: Network inputs, scaled, `[X, *input_shape]`.
        y: Labels `[X]`.
    """

    x: Float[Tensor, "X C *size"]
    y: Int64[Tensor, " X"]

    def first(self, count: int | None) -> "Part":
        """The first images, all of them if None."""
        return Part(self.x[:count], self.y[:count])

    def to(self, dtype: torch.dtype) -> "Part":
        """The same images in another floating type."""
        return Part(self.x.to(dtype), self.y)


def load_parts(population: Population) -> tuple[Part, Part]:
    """The training and test images that the networks of a population were made for.

    Args:
        population: The population; its zoo's manifest says which task it is.

    Returns:
        Training and test part, all images of the task.
    """
    task = _task(TaskConfig.model_validate(population.manifest.config["task"]).model_dump_json())
    return Part(task.inputs(task.train.x), task.train.y), Part(
        task.inputs(task.test.x), task.test.y
    )


@lru_cache(maxsize=1)
def _task(config: str) -> Task:
    """A task, kept for the next cell of the same process."""
    return load_task(TaskConfig.model_validate_json(config))


def table_of_all(population: Population) -> pd.DataFrame:
    """The table of all networks of a population, diverged ones included, by network id."""
    return pd.concat([population.table(split) for split in population.splits], ignore_index=True)


def all_networks(population: Population) -> tuple[pd.DataFrame, Params]:
    """All networks of a population, whatever their split, that did not diverge.

    Args:
        population: The population.

    Returns:
        Table with a row a network, ordered by network id, and their parameters `[N, *shape]` in the
        same order.
    """
    table = table_of_all(population)
    parts = [population.params(split) for split in population.splits]
    params = {name: torch.cat([part[name] for part in parts]) for name in population.space.tensors}
    keep = torch.from_numpy(~table["diverged"].to_numpy(bool))
    return table.loc[keep.numpy()].reset_index(drop=True), {
        name: tensor[keep] for name, tensor in params.items()
    }


def evaluate(
    architecture: Architecture, params: Mapping[str, Tensor], part: Part
) -> tuple[Float64[np.ndarray, " N"], Float64[np.ndarray, " N"]]:
    """Mean cross-entropy and accuracy of networks.

    In blocks of networks and images, so that memory is bounded.

    Args:
        architecture: What they compute.
        params: Effective parameters `[N, *shape]`.
        part: Images.

    Returns:
        Losses in nats and accuracies in [0, 1].
    """
    loss, accuracy = [], []
    for block in blocks(architecture, params, part.x):
        nll, correct = (
            torch.zeros(len(next(iter(block.values()))), dtype=torch.float64) for _ in range(2)
        )
        for log_p, y in log_probabilities(architecture, block, part):
            nll -= log_p.gather(-1, y.expand(len(log_p), -1)[..., None]).sum((1, 2))
            correct += (log_p.argmax(-1) == y).sum(1)
        loss.append(nll / len(part.y))
        accuracy.append(correct / len(part.y))
    return torch.cat(loss).numpy(), torch.cat(accuracy).numpy()


def log_probabilities(architecture: Architecture, params: Mapping[str, Tensor], part: Part) -> Any:
    """Log-probabilities of the classes, some images at a time.

    Args:
        architecture: What the networks compute.
        params: Effective parameters `[N, *shape]`.
        part: Images.

    Yields:
        `[N, X, K]`, float64, and the labels of those images `[X]`.
    """
    apply: Callable[[Params, Tensor], Tensor] = vmap(architecture.apply, in_dims=(0, None))
    for x, y in zip(part.x.split(_IMAGES_AT_ONCE), part.y.split(_IMAGES_AT_ONCE), strict=True):
        with torch.no_grad():
            logits = apply(dict(params), x)
        yield F.log_softmax(logits.double(), dim=-1), y


def blocks(
    architecture: Architecture, params: Mapping[str, Tensor], x: Float[Tensor, "X C *size"]
) -> list[Params]:
    """Cut networks into blocks whose parameters and activations fit into memory together.

    Args:
        architecture: What they compute.
        params: Effective parameters `[N, *shape]`.
        x: Inputs that they will see.

    Returns:
        Parameters of each block.
    """
    first = {name: tensor[0] for name, tensor in params.items()}
    with torch.no_grad():
        each_image = x[0].numel() + count_activations(architecture, first, x[:1])
    num_params = sum(tensor[0].numel() for tensor in params.values())
    size = min(
        _PARAMS_AT_ONCE // num_params,
        _ACTIVATIONS_AT_ONCE // (each_image * min(_IMAGES_AT_ONCE, len(x))),
    )
    count = len(next(iter(params.values())))
    starts = range(0, count, max(size, 1))
    return [{name: tensor[i : i + max(size, 1)] for name, tensor in params.items()} for i in starts]


def reset_statistics(
    architecture: Architecture, params: Mapping[str, Tensor], x: Float[Tensor, "X C *size"]
) -> Params:
    """Give networks the running statistics of some images, as `momentum=None` does in torch.

    Each batch of images is run as training runs it; statistics are the averages over batches. An
    average of two networks has neurons of too small variance; new statistics undo that wherever a
    batch norm follows.

    Args:
        architecture: What the networks compute.
        params: Effective parameters `[N, *shape]`.
        x: Training inputs; a last batch that is not full is left out, unless it is the only one.

    Returns:
        The same networks; those of an architecture without running statistics as they are.

    References:
        Jordan et al. 2023, arXiv 2211.08403, section 3.
    """
    names = architecture.statistics
    if not names:
        return dict(params)
    batches = [
        batch for batch in x.split(_IMAGES_AT_ONCE) if len(batch) == min(len(x), _IMAGES_AT_ONCE)
    ]
    averages: dict[str, list[Tensor]] = {name: [] for name in names}
    for block in blocks(architecture, params, x):
        zero = {name: torch.zeros_like(block[name]) for name in names}
        total = {name: torch.zeros_like(block[name]) for name in names}
        run = vmap(architecture.apply_training, in_dims=(0, None))
        share = _batch_weight(architecture, block, zero, batches[0])
        for batch in batches:
            with torch.no_grad():
                moved = run({**block, **zero}, batch)[1]
            # From 0, the statistics after one batch are its own times the momentum.
            for name in names:
                total[name] += moved[name] / (share[name] * len(batches))
        for name in names:
            averages[name].append(total[name])
    return {**params, **{name: torch.cat(parts) for name, parts in averages.items()}}


def _batch_weight(
    architecture: Architecture, params: Params, zero: Params, x: Tensor
) -> Mapping[str, Tensor | float]:
    """The weight that running statistics give to a new batch."""
    if not architecture.is_module:
        return dict.fromkeys(zero, MOMENTUM)
    # A module does not say, but statistics are (1 - weight) * old + weight * new. In float64, since
    # the new may be much larger than 1.
    run = vmap(architecture.apply_training, in_dims=(0, None))
    exact = {name: tensor.double() for name, tensor in params.items()}
    starts = [{name: torch.full_like(exact[name], old) for name in zero} for old in (0.0, 1.0)]
    with torch.no_grad():
        from_zero, from_one = (run({**exact, **start}, x.double())[1] for start in starts)
    weights = {name: 1 - (from_one[name] - from_zero[name]) for name in zero}
    for name, weight in weights.items():
        if not bool((weight > 1e-6).all()):
            raise ValueError(f"running statistic {name!r} does not take new batches in")
    return {name: weight.to(params[name].dtype) for name, weight in weights.items()}


def rms_distance(
    population: Population, one: Mapping[str, Tensor], other: Mapping[str, Tensor]
) -> float:
    """Distance of two networks for each trained parameter."""
    # The root of the mean of `(a - b)^2`; statistics do not count.
    trained = [
        name for name in population.space.tensors if name not in population.architecture.statistics
    ]
    squares = sum(
        float((one[name].double() - other[name].double()).square().sum()) for name in trained
    )
    return math.sqrt(squares / population.num_free)
