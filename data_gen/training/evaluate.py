"""Losses and accuracies of N networks on the whole training and test parts."""

from functools import partial

import torch
from jaxtyping import Bool, Float64, Int64, Shaped
from torch import Tensor

from data_gen.training.recorder import at_checkpoints
from data_gen.training.runs import TrainingRuns, draw_view
from data_gen.training.state import concatenate
from data_gen.training.trainer import Trainer
from zoo.params import Params, select
from zoo.store.schema import METRIC

_IMAGES_AT_ONCE = 256


def evaluate_networks(
    trainer: Trainer, runs: TrainingRuns, params: Params, size: int
) -> dict[str, Float64[Tensor, " N"]]:
    """Metrics of networks.

    Training metrics are over the images that a network saw, with the labels that it saw (its part
    of the training images, its label noise; no augmentation); test metrics are over the whole test
    part. No label smoothing.

    Args:
        trainer: Who trained them.
        runs: The networks.
        params: Effective parameters `[N, *shape]`.
        size: Networks to evaluate together.

    Returns:
        `train_loss`, `train_accuracy`, `test_loss`, `test_accuracy` and `generalization_gap` (train
        minus test accuracy), `[N]`; losses in nats, accuracies in [0, 1].
    """
    count = len(runs.ids)
    parts = []
    for start in range(0, count, size):
        # repeats the last network: one shape, so one compilation
        rows = torch.arange(start, start + size, device=runs.ids.device).clamp(max=count - 1)
        parts.append(_evaluate_together(trainer, runs.take(rows), select(params, rows)))
    return select(concatenate(parts), slice(count))


def evaluate_checkpoints(
    trainer: Trainer, runs: TrainingRuns, trajectory: Params, size: int
) -> dict[str, Float64[Tensor, "N T"]]:
    """Metrics of networks at their checkpoints.

    Args:
        trainer: Who trained them.
        runs: The networks.
        trajectory: Effective parameters `[N, T, *shape]`.
        size: Networks to evaluate together.

    Returns:
        As `evaluate_networks`, `[N, T]`, on the CPU, by the names that trajectories have for them.
    """
    measure = partial(evaluate_networks, trainer, runs, size=size)
    metrics = at_checkpoints(measure, trajectory, trainer.task.mean)
    return {f"{METRIC}{name}": values for name, values in metrics.items()}


def _evaluate_together(
    trainer: Trainer, runs: TrainingRuns, params: Params
) -> dict[str, Float64[Tensor, " N"]]:
    task, count = trainer.task, len(runs.ids)
    view = draw_view(runs, task, trainer.seed)
    counted = torch.arange(len(task.train.y), device=runs.ids.device) < runs.train_size[:, None]
    if view.subset is not None:
        counted = torch.zeros_like(counted).scatter_(1, view.subset, counted)
    labels = view.labels.expand(count, -1)
    train_loss, train_accuracy = _metrics(trainer, params, task.train.x, labels, counted)
    labels = task.test.y.expand(count, -1)
    every = torch.ones_like(labels, dtype=torch.bool)
    test_loss, test_accuracy = _metrics(trainer, params, task.test.x, labels, every)
    return {
        "train_loss": train_loss,
        "train_accuracy": train_accuracy,
        "test_loss": test_loss,
        "test_accuracy": test_accuracy,
        "generalization_gap": train_accuracy - test_accuracy,
    }


def _metrics(
    trainer: Trainer,
    params: Params,
    x: Shaped[Tensor, "X C *size"],
    y: Int64[Tensor, "N X"],
    counted: Bool[Tensor, "N X"],
) -> tuple[Float64[Tensor, " N"], Float64[Tensor, " N"]]:
    """Mean cross-entropy and accuracy of each network over the images that count for it."""
    loss = torch.zeros(len(y), dtype=torch.float64, device=y.device)
    correct = torch.zeros_like(loss)
    together = min(_IMAGES_AT_ONCE, len(x))
    with torch.no_grad():
        for start in range(0, len(x), together):
            image = torch.arange(start, start + together, device=y.device)
            rows = image.clamp(max=len(x) - 1)  # one shape, so one compilation
            sums = trainer.score(params, x[rows], y[:, rows], counted[:, rows] & (image < len(x)))
            loss += sums[0]
            correct += sums[1]
    total = counted.sum(1)
    return loss / total, correct / total
