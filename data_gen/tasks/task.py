"""Tasks: images and labels, as tensors on one device."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64, Shaped
from pydantic import Field, field_validator, model_validator
from torch import Tensor

from data_gen.rng import generator
from data_gen.tasks.augmentation import Augmentation
from data_gen.tasks.graphs import load_graph, neighborhoods
from data_gen.tasks.mnist1d import make_mnist1d
from data_gen.tasks.sbm import NUM_BLOCKS, make_sbm
from zoo.config import EntryError, Flag, StrictModel, Whole


class TaskConfig(StrictModel):
    """What the networks of a zoo are trained on.

    Attributes:
        name: `digits` (8x8 handwritten digits of scikit-learn), `mnist1d` (procedural), `sbm`
            (nodes of a random graph), `graph` (nodes of a graph of torch_geometric), or `images`
            (any image classification set that `datasets` loads); or a row that you added to
            `TASKS`.
        path: For `images`: a local folder or the id of a data set on the Hugging Face Hub. For
            `graph`: the folder that the data set keeps its files in.
        dataset: For `graph`: a class of `torch_geometric.datasets`.
        options: For `graph`: its arguments but the folder.
        grey: For `images`: convert to one channel.
        resize: For `images`: height and width in pixels, as they are if None.
        train_size: Training images, all if None; the first ones after a shuffle by `seed`.
        test_size: Test images, likewise.
        seed: Seed of the shuffle, and of the procedures of `mnist1d` and `sbm`.
        augment: What happens to images in training batches; nothing if None.
    """

    name: str = "digits"
    path: str | None = None
    dataset: str | None = None
    options: dict[str, Any] | None = None
    grey: Flag = False
    resize: Whole | None = Field(default=None, ge=1)
    train_size: Whole | None = Field(default=None, ge=1)
    test_size: Whole | None = Field(default=None, ge=1)
    seed: Whole = Field(default=0, ge=0)
    augment: Augmentation | None = None

    @field_validator("name")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in TASKS:
            raise ValueError(f"expected one of {sorted(TASKS)}, found {value!r}")
        return value

    @model_validator(mode="after")
    def _options_fit(self) -> "TaskConfig":
        for option, tasks in _OPTIONS.items():
            if self.name in _OWN and self.name not in tasks and getattr(self, option):
                raise EntryError(option, f"not an option of the task {self.name!r}")
        return self


_OWN = ("digits", "mnist1d", "sbm", "graph", "images")
_OPTIONS = {
    "path": ("images", "graph"),
    "grey": ("images",),
    "resize": ("images",),
    "dataset": ("graph",),
    "options": ("graph",),
}


@dataclass(frozen=True)
class Images:
    """One part of a task.

    Attributes:
        x: Inputs `[X, C, ...]`, uint8 where they came as such.
        y: Labels `[X]`.
    """

    x: Shaped[Tensor, "X C *size"]
    y: Int64[Tensor, " X"]

    def to(self, device: torch.device | str, dtype: torch.dtype) -> "Images":
        """The same part on a device; inputs of a floating type get another one."""
        x = self.x.to(device, dtype if self.x.is_floating_point() else None)
        return Images(x, self.y.to(device))


@dataclass(frozen=True)
class Task:
    """Training and test images with the scaling that makes them inputs.

    Attributes:
        train: Training part.
        test: Test part.
        num_classes: Number of classes `K`.
        mean: Mean of the training inputs for each channel `[C, 1, ...]`, in the units of `x`.
        std: Standard deviation likewise.
        augmentation: What happens to images in training batches, nothing if None.
    """

    train: Images
    test: Images
    num_classes: int
    mean: Float[Tensor, "C *ones"]
    std: Float[Tensor, "C *ones"]
    augmentation: Augmentation | None = None

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input."""
        return tuple(self.train.x.shape[1:])

    def inputs(self, x: Shaped[Tensor, "X C *size"]) -> Float[Tensor, "X C *size"]:
        """Stored images as inputs; a channel has mean 0, deviation 1 over the training part."""
        return (x.to(self.mean.dtype) - self.mean) / self.std

    def to(self, device: torch.device | str, dtype: torch.dtype) -> "Task":
        """The same task on a device.

        Args:
            device: Where all tensors go.
            dtype: Floating type of the inputs; stored uint8 images stay uint8.

        Returns:
            A copy.
        """
        mean, std = self.mean.to(device, dtype), self.std.to(device, dtype)
        train, test = self.train.to(device, dtype), self.test.to(device, dtype)
        return replace(self, train=train, test=test, mean=mean, std=std)


def load_task(config: TaskConfig) -> Task:
    """Load a task.

    Args:
        config: Which one.

    Returns:
        The task, on the CPU, float32.

    Raises:
        ValueError: If its images cannot be loaded, there are fewer than asked for, those for
            training and test are of different forms, or what is to be augmented is no image.
    """
    train, test, num_classes = TASKS[config.name](config)
    forms = [(list(part.x.shape[1:]), part.x.dtype) for part in (train, test)]
    if forms[0] != forms[1]:
        raise ValueError(f"task: training inputs are {forms[0]}, test inputs {forms[1]}")
    if config.augment is not None and train.x.dim() != 4:
        raise ValueError(
            f"task.augment: needs images, found inputs of shape {list(train.x.shape[1:])}"
        )
    values = train.x.double()
    axes = (0, *range(2, values.dim()))
    mean, std = values.mean(axes, keepdim=True)[0], values.std(axes, keepdim=True)[0]
    std = torch.where(std > 0, std, 1)  # a channel that never varies in training stays as it is
    return Task(train, test, num_classes, mean.float(), std.float(), config.augment)


@cache
def _all_digits() -> tuple[Tensor, Tensor]:
    """Images and labels as scikit-learn has them: a text file, so it is read once."""
    from sklearn.datasets import load_digits  # a second of import that other tasks need not pay

    digits: Any = load_digits()
    images = torch.from_numpy(digits.images.astype(np.uint8))[:, None]
    return images, torch.from_numpy(digits.target.astype(np.int64))


def _digits(config: TaskConfig) -> tuple[Images, Images, int]:
    x, y = _all_digits()
    order = torch.randperm(len(x), generator=generator(config.seed, "digits"))
    train_size = config.train_size or 1200
    test_size = config.test_size or len(x) - train_size
    return *_parts(x[order], y[order], train_size, test_size), 10


def _mnist1d(config: TaskConfig) -> tuple[Images, Images, int]:
    return *_drawn(make_mnist1d, config, 4000, 1000), 10


def _sbm(config: TaskConfig) -> tuple[Images, Images, int]:
    return *_drawn(make_sbm, config, 800, 400), NUM_BLOCKS


def _drawn(
    make: Callable[[int, torch.Generator], tuple[Tensor, Tensor]],
    config: TaskConfig,
    train_size: int,
    test_size: int,
) -> tuple[Images, Images]:
    """Both parts from a procedure, of these sizes where the configuration is silent."""
    sizes = config.train_size or train_size, config.test_size or test_size
    x, y = make(sum(sizes), generator(config.seed, config.name))
    return _parts(x, y, *sizes)


def _graph(config: TaskConfig) -> tuple[Images, Images, int]:
    if config.dataset is None:
        raise ValueError(
            "task.dataset: needed for task.name: graph; a class of torch_geometric.datasets"
        )
    edges, features, y = load_graph(
        config.dataset, config.options or {}, config.path, generator(config.seed, "graph")
    )
    train_size = config.train_size or len(y) // 2
    test_size = config.test_size or len(y) - train_size
    x = neighborhoods(edges, features, min(train_size + test_size, len(y)))
    return *_parts(x, y, train_size, test_size), int(y.max()) + 1


def _images(config: TaskConfig) -> tuple[Images, Images, int]:
    from data_gen.tasks.images import load_images  # loads the datasets library

    if config.path is None:
        raise ValueError(
            "task.path: needed for task.name: images; "
            "a local folder or an id on the Hugging Face Hub"
        )
    is_folder = Path(config.path).is_absolute() or config.path.startswith(("./", "../", "~"))
    if is_folder and not Path(config.path).expanduser().is_dir():
        raise ValueError(f"task.path: no such folder: {config.path}")
    sizes = {"train": config.train_size, "test": config.test_size}
    train, test = (
        load_images(config.path, split, size, config.seed, config.grey, config.resize)
        for split, size in sizes.items()
    )
    return Images(*train[:2]), Images(*test[:2]), test[2]


def _parts(x: Tensor, y: Tensor, train_size: int, test_size: int) -> tuple[Images, Images]:
    """The first images for training and the next ones for the test."""
    parts = []
    start = 0
    # One image at least is left for the test.
    for option, size, rest in (("train_size", train_size, 1), ("test_size", test_size, 0)):
        stop, most = start + size, len(x) - start - rest
        if not 1 <= size <= most:
            raise ValueError(f"task.{option}: expected 1 to {most} images, found {size}")
        parts.append(Images(x[start:stop], y[start:stop]))
        start = stop
    return parts[0], parts[1]


TASKS: dict[str, Callable[[TaskConfig], tuple[Images, Images, int]]] = {
    "digits": _digits,
    "mnist1d": _mnist1d,
    "sbm": _sbm,
    "graph": _graph,
    "images": _images,
}
