"""Losses and accuracies of many networks on the data of a zoo's task."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float64, Int64, Shaped
from torch import Tensor
from torch.func import vmap

from data_gen.tasks.data import Task
from data_gen.tasks.losses import SCORES, Loss, cross_entropy
from data_gen.tasks.task import TaskConfig, load_task
from zoo.architectures import Architecture
from zoo.architectures.norms import MOMENTUM
from zoo.architectures.record import count_activations
from zoo.params import Params, check_finite, select
from zoo.store.population import Population

_IMAGES_AT_ONCE = 256
_PARAMS_AT_ONCE, _ACTIVATIONS_AT_ONCE = 2**23, 2**25  # entries, of four or eight bytes


@dataclass(frozen=True, eq=False)
class Part:
    """Images to evaluate networks on.

    Attributes:
        x: Network inputs, scaled, `[X, *input_shape]`.
        y: Targets `[X, ...]`.
        loss: What training made small.
    """

    x: Float[Tensor, "X C *size"]
    y: Shaped[Tensor, "X *shape"]
    loss: Loss = field(default_factory=cross_entropy)


def first_images(
    population: Population, num_train: int | None, num_test: int | None
) -> dict[str, Part]:
    """The first of the training and test images that the networks of a population were made for.

    Args:
        population: The population; its zoo's manifest says which task it is.
        num_train: Number of training images, all if None.
        num_test: Number of test images, all if None.

    Returns:
        The images `train` and `test`.
    """
    task = _task(TaskConfig.model_validate(population.manifest.job["task"]).model_dump_json())
    check_shared(task)
    chosen = {"train": (task.train, num_train), "test": (task.test, num_test)}
    return {
        name: Part(task.inputs(images.x[:count]), images.y[:count], task.loss)
        for name, (images, count) in chosen.items()
    }


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
        same order. Parameters that are not finite raise ValueError.
    """
    table = table_of_all(population)
    parts = [population.params(split) for split in population.splits]
    params = {name: torch.cat([part[name] for part in parts]) for name in population.space.tensors}
    check_finite(population.space, params, f"population {population.name!r}")
    keep = torch.from_numpy(~table["diverged"].to_numpy(bool))
    return table.loc[keep.numpy()].reset_index(drop=True), select(params, keep)


def checkpoints(population: Population, split: str) -> tuple[Int64[np.ndarray, "N T"], Params]:
    """Steps and parameters of the networks of a split along training.

    Args:
        population: The population.
        split: Name of the split.

    Returns:
        Steps and `[N, T, *shape]`. Parameters that are not finite raise ValueError.
    """
    steps, params = population.trajectory(split)
    check_finite(population.space, params, f"population {population.name!r}, split {split!r}")
    return steps, params


def evaluate(
    architecture: Architecture, params: Mapping[str, Tensor], part: Part
) -> tuple[Float64[np.ndarray, " N"], Float64[np.ndarray, " N"]]:
    """Mean loss and accuracy of networks.

    In blocks of networks and images, so that memory is bounded.

    Args:
        architecture: What they compute.
        params: Effective parameters `[N, *shape]`.
        part: Images.

    Returns:
        Losses, without label smoothing, and accuracies in [0, 1]; of targets that are numbers the
        squared errors of stored targets instead.
    """
    each = vmap(part.loss.each, in_dims=(0, None, None))
    score = vmap(SCORES[part.loss.kind], in_dims=(0, None))
    sums = []
    for portion in in_portions(architecture, params, part.x):
        both = torch.zeros(2, num_networks(portion), dtype=torch.float64)
        for outputs, y in outputs_of(architecture, portion, part):
            both[0] += each(outputs, y, None).sum(1)
            both[1] += score(outputs, y).sum(1)
        sums.append(both)
    loss, accuracy = torch.cat(sums, dim=1) / len(part.y)
    return loss.numpy(), accuracy.numpy()


def check_shared(task: Task) -> None:
    """Refuse a task whose data is not the same for all networks, or of several inputs.

    Args:
        task: The task.

    Raises:
        ValueError: If it is one.
    """
    if task.train.per_network or not isinstance(task.train.x, Tensor):
        raise ValueError(
            "expected a task with one input and the same data for all networks, found "
            f"inputs {task.input_shape} and per_network {task.train.per_network}"
        )


def check_classes(population: Population) -> None:
    """Refuse a population whose task is not one of classes with cross-entropy.

    Args:
        population: The population.

    Raises:
        ValueError: If it is another one.
    """
    task = population.manifest.task
    if (task.kind, task.loss) != ("classification", "cross_entropy"):
        raise ValueError(
            f"population {population.name!r}: this study is of classification with the loss "
            f"'cross_entropy', found {task.kind} with {task.loss!r}"
        )


def metric_columns(values: Mapping[str, tuple[Any, Any]]) -> dict[str, Any]:
    """Losses and accuracies on some parts as columns `<part>_loss` and `<part>_accuracy`."""
    return {
        f"{part}_{kind}": scores
        for part, pair in values.items()
        for kind, scores in zip(("loss", "accuracy"), pair, strict=True)
    }


def num_networks(params: Mapping[str, Tensor]) -> int:
    """Number of networks along the leading axis."""
    return len(next(iter(params.values())))


def log_probabilities(architecture: Architecture, params: Mapping[str, Tensor], part: Part) -> Any:
    """Log-probabilities of the classes, some images at a time.

    Args:
        architecture: What the networks compute.
        params: Effective parameters `[N, *shape]`.
        part: Images.

    Yields:
        `[N, X, K]`, float64, and the labels of those images `[X]`.
    """
    for logits, y in outputs_of(architecture, params, part):
        yield F.log_softmax(logits, dim=-1), y


def outputs_of(architecture: Architecture, params: Mapping[str, Tensor], part: Part) -> Any:
    """Outputs of networks, some examples at a time.

    Args:
        architecture: What the networks compute.
        params: Effective parameters `[N, *shape]`.
        part: Examples.

    Yields:
        `[N, X, ...]`, float64, and the targets of those examples `[X, ...]`.
    """
    apply: Callable[[Params, Tensor], Tensor] = vmap(architecture.apply, in_dims=(0, None))
    for x, y in zip(part.x.split(_IMAGES_AT_ONCE), part.y.split(_IMAGES_AT_ONCE), strict=True):
        with torch.no_grad():
            outputs = apply(dict(params), x)
        yield outputs.double(), y


def in_portions(
    architecture: Architecture, params: Mapping[str, Tensor], x: Float[Tensor, "X C *size"]
) -> list[Params]:
    """Cut networks into portions whose parameters and activations fit into memory together.

    Args:
        architecture: What they compute.
        params: Effective parameters `[N, *shape]`.
        x: Inputs that they will see.

    Returns:
        Parameters of each portion.
    """
    first = select(params, 0)
    with torch.no_grad():
        each_image = x[0].numel() + count_activations(architecture, first, x[:1])
    num_params = sum(tensor.numel() for tensor in first.values())
    num_activations = each_image * min(_IMAGES_AT_ONCE, len(x))
    size = max(1, min(_PARAMS_AT_ONCE // num_params, _ACTIVATIONS_AT_ONCE // num_activations))
    starts = range(0, num_networks(params), size)
    return [select(params, slice(start, start + size)) for start in starts]


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
    full = min(len(x), _IMAGES_AT_ONCE)
    batches = [batch for batch in x.split(_IMAGES_AT_ONCE) if len(batch) == full]
    run = vmap(architecture.apply_training, in_dims=(0, None))
    statistics = []
    for portion in in_portions(architecture, params, x):
        total = {name: torch.zeros_like(portion[name]) for name in names}
        from_zero = portion | total
        share = _batch_weight(architecture, portion, batches[0])
        for batch in batches:
            with torch.no_grad():
                moved = run(from_zero, batch)[1]
            # From 0, the statistics after one batch are its own times the momentum.
            for name in names:
                total[name] = total[name] + moved[name] / (share[name] * len(batches))
        statistics.append(total)
    return {**params, **{name: torch.cat([total[name] for total in statistics]) for name in names}}


def _batch_weight(
    architecture: Architecture, params: Params, x: Tensor
) -> Mapping[str, Tensor | float]:
    """The weight that running statistics give to a new batch."""
    names = architecture.statistics
    if not architecture.is_module:
        return dict.fromkeys(names, MOMENTUM)
    # A module does not say, but statistics are (1 - weight) * old + weight * new. In float64, since
    # the new may be much larger than 1.
    run = vmap(architecture.apply_training, in_dims=(0, None))
    exact = {name: tensor.double() for name, tensor in params.items()}
    starts = [{name: torch.full_like(exact[name], old) for name in names} for old in (0.0, 1.0)]
    with torch.no_grad():
        from_zero, from_one = (run({**exact, **start}, x.double())[1] for start in starts)
    weights = {}
    for name in names:
        weight = 1 - (from_one[name] - from_zero[name])
        if not bool((weight > 1e-6).all()):
            raise ValueError(f"running statistic {name!r} does not take new batches in")
        weights[name] = weight.to(params[name].dtype)
    return weights


def rms_distance(
    population: Population, one: Mapping[str, Tensor], other: Mapping[str, Tensor]
) -> float:
    """Distance of two networks for each trained parameter."""
    # The root of the mean of `(a - b)^2`; statistics do not count.
    trained = [name for name in one if name not in population.architecture.statistics]
    squares = sum(
        float((one[name].double() - other[name].double()).square().sum()) for name in trained
    )
    return math.sqrt(squares / population.num_free)
