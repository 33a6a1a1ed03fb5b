"""Losses and accuracies of N networks on the whole training and test parts."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float64, Int64, Shaped
from torch import Tensor
from torch.func import vmap

from data_gen.networks import Networks, expose
from data_gen.train import Trainer
from zoo.params import Params

_IMAGES_AT_ONCE = 256


def evaluate(trainer: Trainer, networks: Networks, params: Params) -> dict[str, Float64[Tensor, " N"]]:
    """Metrics of networks.

    Training metrics are over the images that a network saw, with the labels that it saw (its part of the training images, its
    label noise); test metrics are over the whole test part. No label smoothing.

    Args:
        trainer: Who trained them.
        networks: The networks.
        params: Effective parameters `[N, *shape]`.

    Returns:
        `train_loss`, `train_accuracy`, `test_loss`, `test_accuracy` and `generalization_gap` (train minus test accuracy),
        `[N]`; losses in nats, accuracies in [0, 1].
    """
    task, count = trainer.task, len(networks.ids)
    exposure = expose(networks, task, trainer.seed)
    counted = torch.arange(len(task.train.y), device=networks.ids.device) < networks.train_size[:, None]
    if exposure.own is not None:
        counted = torch.zeros_like(counted).scatter_(1, exposure.own, counted)
    train_loss, train_accuracy = _metrics(trainer, params, task.train.x, exposure.labels.expand(count, -1), counted)
    every = torch.ones(count, len(task.test.y), dtype=torch.bool, device=counted.device)
    test_loss, test_accuracy = _metrics(trainer, params, task.test.x, task.test.y.expand(count, -1), every)
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
    apply: Callable[[Params, Tensor], Tensor] = vmap(trainer.architecture.apply, in_dims=(0, None))
    loss = torch.zeros(len(y), dtype=torch.float64, device=y.device)
    correct = torch.zeros_like(loss)
    with torch.no_grad():
        for start in range(0, len(x), _IMAGES_AT_ONCE):
            rows = slice(start, start + _IMAGES_AT_ONCE)
            logits = apply(params, trainer.task.inputs(x[rows]))
            nll = -F.log_softmax(logits.double(), dim=-1).gather(-1, y[:, rows, None])[..., 0]
            loss += torch.where(counted[:, rows], nll, 0).sum(1)
            correct += ((logits.argmax(-1) == y[:, rows]) & counted[:, rows]).sum(1)
    total = counted.sum(1)
    return loss / total, correct / total
