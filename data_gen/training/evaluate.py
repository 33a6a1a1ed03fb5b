"""Metrics of N networks on the whole training and test parts."""

from functools import partial

import torch
from jaxtyping import Bool, Float64, Int64, Shaped
from torch import Tensor

from data_gen.tasks.data import Part, Task
from data_gen.tasks.losses import MAIN
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

    Training metrics are over the examples that a network saw, with the targets that it saw (its
    part of the training images, its label noise; no augmentation); test metrics are over the whole
    test part. No label smoothing.

    Args:
        trainer: Who trained them.
        runs: The networks.
        params: Effective parameters `[N, *shape]`.
        size: Networks to evaluate together.

    Returns:
        `train_loss` and `test_loss`, without label smoothing; `train_accuracy` and `test_accuracy`
        in [0, 1] or, of numbers, `train_r2`, `train_rmse` (in units of the targets) and the same of
        the test part; `generalization_gap`, train minus test accuracy or R^2. Each `[N]`. R^2 of
        equal targets is NaN.
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
    metrics = at_checkpoints(measure, trajectory, trainer.task.like)
    return {f"{METRIC}{name}": values for name, values in metrics.items()}


def _evaluate_together(
    trainer: Trainer, runs: TrainingRuns, params: Params
) -> dict[str, Float64[Tensor, " N"]]:
    task, count = trainer.task, len(runs.ids)
    view = draw_view(runs, task, trainer.seed)
    counted = torch.arange(len(task.train), device=runs.ids.device) < runs.train_size[:, None]
    if view.subset is not None:
        counted = torch.zeros_like(counted).scatter_(1, view.subset, counted)
    labels = _for_each(view.labels, count)
    metrics = _measured(trainer, params, "train", runs.ids, labels, counted)
    labels = _for_each(task.test.targets(runs.ids), count)
    every = torch.ones(labels.shape[:2], dtype=torch.bool, device=labels.device)
    metrics |= _measured(trainer, params, "test", runs.ids, labels, every)
    main = MAIN[task.loss.kind]
    return metrics | {"generalization_gap": metrics[f"train_{main}"] - metrics[f"test_{main}"]}


def _for_each(labels: Shaped[Tensor, "_ X ..."], count: int) -> Shaped[Tensor, "{count} X ..."]:
    """Targets for each of so many networks, which may be the same for all."""
    return labels.expand(count, *labels.shape[1:])


def _measured(
    trainer: Trainer,
    params: Params,
    part: str,
    ids: Int64[Tensor, " N"],
    y: Shaped[Tensor, "N X ..."],
    counted: Bool[Tensor, "N X"],
) -> dict[str, Float64[Tensor, " N"]]:
    """Metrics of each network on the examples of a part that count for it."""
    loss, score = _sums(trainer, params, getattr(trainer.task, part), ids, y, counted)
    total = counted.sum(1)
    if trainer.task.num_classes is not None:
        return {f"{part}_loss": loss / total, f"{part}_accuracy": score / total}
    spread, numbers = _spreads(trainer.task, y, counted), y[0, 0].numel()
    return {
        f"{part}_loss": loss / total,
        f"{part}_r2": torch.where(spread > 0, 1 - score / spread, torch.nan),
        f"{part}_rmse": (score / (total * numbers)).sqrt(),
    }


def _sums(
    trainer: Trainer,
    params: Params,
    part: Part,
    ids: Int64[Tensor, " N"],
    y: Shaped[Tensor, "N X ..."],
    counted: Bool[Tensor, "N X"],
) -> tuple[Float64[Tensor, " N"], Float64[Tensor, " N"]]:
    """Loss and score of each network, summed over the examples that count for it."""
    count = counted.shape[1]
    loss = torch.zeros(len(counted), dtype=torch.float64, device=counted.device)
    score = torch.zeros_like(loss)
    together = min(_IMAGES_AT_ONCE, count)
    with torch.no_grad():
        for start in range(0, count, together):
            image = torch.arange(start, start + together, device=counted.device)
            rows = image.clamp(max=count - 1)  # one shape, so one compilation
            index = rows.expand(len(ids), -1) if part.own_inputs else rows
            some = part.rows(index, ids)
            sums = trainer.score(params, some, y[:, rows], counted[:, rows] & (image < count))
            loss += sums[0]
            score += sums[1]
    return loss, score


def _spreads(
    task: Task, y: Shaped[Tensor, "N X ..."], counted: Bool[Tensor, "N X"]
) -> Float64[Tensor, " N"]:
    """Sum of the squared deviations of targets from their mean; exactly 0 if all are equal."""
    spreads = []
    for targets, which in zip(y, counted, strict=True):
        values = task.in_units(targets[which].double()).flatten(1)
        values = values - values[0]
        spreads.append((values - values.mean(0)).square().sum())
    return torch.stack(spreads)
