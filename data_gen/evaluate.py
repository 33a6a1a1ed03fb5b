"""Losses and accuracies of N networks on the whole training and test parts."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float64, Int64, Shaped
from torch import Tensor
from torch.func import vmap

from data_gen.tasks import Task
from data_gen.train import Networks, Trainer
from zoo.architectures.base import Architecture
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
        `train_loss`, `train_accuracy`, `test_loss`, `test_accuracy` and `generalization_gap` (train minus test accuracy), `[N]`;
        losses in nats, accuracies in [0, 1].
    """
    task, count = trainer.task, len(networks.ids)
    every = torch.arange(len(task.train.y), device=networks.ids.device).expand(count, -1)
    seen = torch.zeros_like(every, dtype=torch.bool)
    own = trainer.own_images(networks, every)
    seen.scatter_(1, own, every < networks.train_size[:, None])
    architecture = trainer.architecture
    train_loss, train_accuracy = _metrics(architecture, task, params, task.train.x, trainer.noisy_labels(networks, every), seen)
    everything = torch.ones(count, len(task.test.y), dtype=torch.bool, device=seen.device)
    test_loss, test_accuracy = _metrics(architecture, task, params, task.test.x, task.test.y.expand(count, -1), everything)
    return {
        "train_loss": train_loss,
        "train_accuracy": train_accuracy,
        "test_loss": test_loss,
        "test_accuracy": test_accuracy,
        "generalization_gap": train_accuracy - test_accuracy,
    }


def _metrics(
    architecture: Architecture,
    task: Task,
    params: Params,
    x: Shaped[Tensor, "X C *size"],
    y: Int64[Tensor, "N X"],
    counted: Bool[Tensor, "N X"],
) -> tuple[Float64[Tensor, " N"], Float64[Tensor, " N"]]:
    """Mean cross-entropy and accuracy of each network over the images that count for it."""
    apply: Callable[[Params, Tensor], Tensor] = vmap(architecture.apply, in_dims=(0, None))
    loss = torch.zeros(len(y), dtype=torch.float64, device=y.device)
    correct = torch.zeros_like(loss)
    with torch.no_grad():
        for start in range(0, len(x), _IMAGES_AT_ONCE):
            rows = slice(start, start + _IMAGES_AT_ONCE)
            logits = apply(params, task.inputs(x[rows]))
            nll = -F.log_softmax(logits.double(), dim=-1).gather(-1, y[:, rows, None])[..., 0]
            loss += torch.where(counted[:, rows], nll, 0).sum(1)
            correct += ((logits.argmax(-1) == y[:, rows]) & counted[:, rows]).sum(1)
    total = counted.sum(1)
    return loss / total, correct / total
