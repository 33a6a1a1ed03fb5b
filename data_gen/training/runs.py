"""The networks of a chunk, and what each of them sees of the training part of the task."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64, Shaped
from torch import Tensor

from data_gen.rng import fold, integers, key, uniform
from data_gen.tasks.data import Task
from data_gen.training.order import shuffled
from zoo.params import select


@dataclass(frozen=True)
class TrainingRuns:
    """The networks of a chunk: who they are and how each is trained. All tensors are `[N]`.

    Attributes:
        ids: Network ids, int64.
        hparams: Numeric hyperparameters by name, in the dtype of the training.
        steps: Steps of each network's training, int64.
        train_size: Number of training images that each network sees, int64.
        parts: Into how many parts the training images are divided for each network, int64; network
            `i` sees part `i mod parts`.
        optimizer: Name in `OPTIMIZERS`, one for the chunk.
        schedule: Name in `SCHEDULES`, one for the chunk.
        batch_size: Images in a batch, one for the chunk.
    """

    ids: Int64[Tensor, " N"]
    hparams: Mapping[str, Tensor]
    steps: Int64[Tensor, " N"]
    train_size: Int64[Tensor, " N"]
    parts: Int64[Tensor, " N"]
    optimizer: str
    schedule: str
    batch_size: int

    def take(self, rows: Int64[Tensor, " M"]) -> "TrainingRuns":
        """Some of the networks.

        Args:
            rows: Which, on any device.

        Returns:
            Those networks, in the order of `rows`.
        """
        rows = rows.to(self.ids.device)
        return replace(
            self,
            ids=self.ids[rows],
            hparams=select(self.hparams, rows),
            steps=self.steps[rows],
            train_size=self.train_size[rows],
            parts=self.parts[rows],
        )


@dataclass(frozen=True)
class DataView:
    """What networks see of the training part.

    Attributes:
        subset: Training images in the order in which a network owns them (it sees the first
            `train_size`); None if every network sees all.
        labels: Targets of all training images as a network sees them, `[N, X, ...]` or, if they are
            the same for all, `[1, X, ...]`.
    """

    subset: Int64[Tensor, "N X"] | None
    labels: Shaped[Tensor, "_ X ..."]

    def batch(
        self, index: Int64[Tensor, "N M"]
    ) -> tuple[Int64[Tensor, "N M"], Shaped[Tensor, "N M ..."]]:
        """Look up images among those a network owns.

        Args:
            index: Numbers below each network's `train_size`.

        Returns:
            Rows of the training part, and their targets as the network sees them.
        """
        image = index if self.subset is None else self.subset.gather(1, index)
        if len(self.labels) == 1:
            return image, self.labels[0][image]
        networks = torch.arange(len(image), device=image.device)[:, None]
        return image, self.labels[networks, image]


def draw_view(runs: TrainingRuns, task: Task, seed: int) -> DataView:
    """Draw the training images and wrong labels of each network.

    `train_fraction` is a share of the images; the parts of `train_parts` are intervals of one
    shuffle, the same for all networks. With
    probability `label_noise` an image has, for this network and for good, a label drawn uniformly
    from all classes.

    Args:
        runs: The networks.
        task: The task.
        seed: Seed of the job.

    Returns:
        What they see.
    """
    labels, total = task.train.targets(runs.ids), len(task.train)
    image = torch.arange(total, device=labels.device)
    subset = None
    if bool((runs.train_size < total).any()):
        subset = _owned(runs, image, seed)
    noise = runs.hparams["label_noise"].double()[:, None]
    if task.num_classes is None or not bool(noise.any()):
        return DataView(subset, labels)
    coin = uniform(fold(key(seed, "noise"), runs.ids)[:, None], image)
    drawn = integers(fold(key(seed, "noisy label"), runs.ids)[:, None], image, task.num_classes)
    return DataView(subset, torch.where(coin < noise, drawn, labels))


def _owned(runs: TrainingRuns, image: Int64[Tensor, " X"], seed: int) -> Int64[Tensor, "N X"]:
    """All images in an order of each network's own, or from where its part begins."""
    total = len(image)
    keys = torch.where(runs.parts > 1, key(seed, "parts"), fold(key(seed, "subset"), runs.ids))
    start = part_bounds(runs.ids, runs.parts, total)[0]
    position = (start[:, None] + image) % total
    return shuffled(keys, position, torch.full_like(runs.train_size, total))


def parts_of(column: Any | None, count: int) -> Int64[np.ndarray, " N"]:
    """Into how many parts the training images are divided for each network.

    Args:
        column: The hyperparameter `train_parts` of `N` networks; None if the job has none.
        count: Number of networks `N`.

    Returns:
        The column, 1 where the job says nothing.
    """
    return np.ones(count, dtype=np.int64) if column is None else np.array(column, dtype=np.int64)


def part_bounds(
    ids: Int64[Tensor, " N"], parts: Int64[Tensor, " N"], total: int
) -> tuple[Int64[Tensor, " N"], Int64[Tensor, " N"]]:
    """Where the part of each network begins and ends.

    Parts are disjoint, cover everything and differ by one image at most.

    Args:
        ids: Network ids.
        parts: Number of parts for each network, at least 1.
        total: Number of training images.

    Returns:
        First and one past the last position `[N]` in the shuffle that is divided.
    """
    part = ids % parts
    return part * total // parts, (part + 1) * total // parts
