"""Tasks: what the networks of a zoo are trained on, by name."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor

from data_gen.rng import generator
from data_gen.tasks.augmentation import Augmentation
from data_gen.tasks.checks import check_parts, count_classes, form_of, numbers, scaling_of
from data_gen.tasks.data import Part, Task
from data_gen.tasks.graphs import load_graph, neighborhoods
from data_gen.tasks.losses import Kind, check_fit, check_loss, make_loss
from data_gen.tasks.mnist1d import make_mnist1d
from data_gen.tasks.sbm import NUM_BLOCKS, make_sbm
from zoo.config import EntryError, Flag, StrictModel, Whole
from zoo.imports import names_code


class TaskConfig(StrictModel):
    """What the networks of a zoo are trained on.

    Attributes:
        name: `digits` (8x8 handwritten digits of scikit-learn), `iris`, `wine`, `breast_cancer`,
            `diabetes` (its tables), `mnist1d` (procedural), `sbm` (nodes of a random graph),
            `graph` (nodes of a graph of torch_geometric), or `images` (any image classification set
            that `datasets` loads); or a row that you added to `TASKS`.
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
        loss: `name` and options of the loss; a name alone stands for itself. None for
            `cross_entropy` of classes and `squared_error` of numbers.
        standardize: Whether `inputs`, or `both` inputs and targets that are numbers, get mean 0 and
            deviation 1 over the training part, or `none`; None for `inputs`.
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
    loss: dict[str, Any] | None = None
    standardize: Literal["inputs", "both", "none"] | None = None

    @field_validator("name")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in TASKS:
            raise ValueError(f"expected one of {sorted(TASKS)}, found {value!r}")
        return value

    @field_validator("loss", mode="before")
    @classmethod
    def _name_is_loss(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @field_validator("loss")
    @classmethod
    def _known_loss(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        if value is not None:
            options = dict(value)
            check_loss(options.pop("name", None), options)
        return value

    @model_validator(mode="after")
    def _options_fit(self) -> "TaskConfig":
        for option, tasks in _OPTIONS.items():
            if self.name in _OWN and self.name not in tasks and getattr(self, option):
                raise EntryError(option, f"not an option of the task {self.name!r}")
        return self


BUNDLED = {"iris": 100, "wine": 120, "breast_cancer": 400, "diabetes": 300}
"""Tables that come with scikit-learn, and how many rows are for training by default."""
_OWN = ("digits", *BUNDLED, "mnist1d", "sbm", "graph", "images")
_OPTIONS = {
    "path": ("images", "graph"),
    "grey": ("images",),
    "resize": ("images",),
    "dataset": ("graph",),
    "options": ("graph",),
}


def known_kind(config: TaskConfig) -> Kind | None:
    """What the targets of a task are, as far as that is known without its data.

    Args:
        config: The task.

    Returns:
        `"classification"` or `"regression"`, None if only the data says it.
    """
    loss = (config.loss or {}).get("name")
    if loss is not None and not names_code(loss):
        numbers = make_loss(config.loss, "classification").kind == "regression"
        return "regression" if numbers else "classification"
    if config.name not in _OWN:
        return None
    return "regression" if config.name == "diabetes" else "classification"


def load_task(config: TaskConfig) -> Task:
    """Load a task.

    Args:
        config: Which one.

    Returns:
        The task, on the CPU, float32.

    Raises:
        ValueError: If its data cannot be loaded, is not what a task needs or does not fit the loss,
            there are fewer examples than asked for, or what is to be augmented is no image.
    """
    what = f"task {config.name!r}"
    train, test, known = TASKS[config.name](config)
    check_parts(train, test, what)
    if config.augment is not None and (isinstance(train.x, tuple) or train.x.dim() != 4):
        raise ValueError(f"task.augment: needs images, found inputs of {form_of(train.x)}")
    num_classes = count_classes(train, test, known, what)
    loss = make_loss(config.loss, "regression" if num_classes is None else "classification")
    check_fit(loss, num_classes)
    if loss.kind == "regression":
        train, test, num_classes = numbers(train), numbers(test), None
    mean, std = scaling_of(train.x, config.standardize != "none")
    task = Task(train, test, num_classes, mean, std, config.augment, loss)
    return _standardized(task) if config.standardize == "both" else task


def _standardized(task: Task) -> Task:
    """The task with targets of mean 0 and deviation 1 over the training part."""
    if task.num_classes is not None:
        raise ValueError("task.standardize: 'both' is of targets that are numbers, found classes")
    mean, std = scaling_of(task.train.y, True)
    train, test = (replace(p, y=(p.y - mean) / std) for p in (task.train, task.test))
    return replace(task, train=train, test=test, target_mean=mean, target_std=std)


@cache
def _all_digits() -> tuple[Tensor, Tensor]:
    """Images and labels as scikit-learn has them: a text file, so it is read once."""
    from sklearn.datasets import load_digits  # a second of import that other tasks need not pay

    digits: Any = load_digits()
    x = torch.from_numpy(digits.images.astype(np.uint8))[:, None]
    return x, torch.from_numpy(digits.target.astype(np.int64))


def _digits(config: TaskConfig) -> tuple[Part, Part, int]:
    x, y = _all_digits()
    order = torch.randperm(len(x), generator=generator(config.seed, "digits"))
    train_size = config.train_size or 1200
    test_size = config.test_size or len(x) - train_size
    return *_parts(x[order], y[order], train_size, test_size), 10


def _bundled(config: TaskConfig) -> tuple[Part, Part, int | None]:
    import sklearn.datasets  # as for the digits

    rows: Any = getattr(sklearn.datasets, f"load_{config.name}")()
    x, is_class = torch.from_numpy(rows.data).float(), "target_names" in rows
    y = torch.from_numpy(rows.target)
    y = y.long() if is_class else y.float()
    order = torch.randperm(len(x), generator=generator(config.seed, config.name))
    train_size = config.train_size or BUNDLED[config.name]
    test_size = config.test_size or len(x) - train_size
    parts = _parts(x[order], y[order], train_size, test_size)
    return *parts, len(rows.target_names) if is_class else None


def _mnist1d(config: TaskConfig) -> tuple[Part, Part, int]:
    return *_drawn(make_mnist1d, config, 4000, 1000), 10


def _sbm(config: TaskConfig) -> tuple[Part, Part, int]:
    return *_drawn(make_sbm, config, 800, 400), NUM_BLOCKS


def _drawn(
    make: Callable[[int, torch.Generator], tuple[Tensor, Tensor]],
    config: TaskConfig,
    train_size: int,
    test_size: int,
) -> tuple[Part, Part]:
    """Both parts from a procedure, of these sizes where the configuration is silent."""
    sizes = config.train_size or train_size, config.test_size or test_size
    x, y = make(sum(sizes), generator(config.seed, config.name))
    return _parts(x, y, *sizes)


def _graph(config: TaskConfig) -> tuple[Part, Part, int]:
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


def _images(config: TaskConfig) -> tuple[Part, Part, int]:
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
    return Part(*train[:2]), Part(*test[:2]), test[2]


def _parts(x: Tensor, y: Tensor, train_size: int, test_size: int) -> tuple[Part, Part]:
    """The first images for training and the next ones for the test."""
    parts = []
    start = 0
    # One image at least is left for the test.
    for option, size, rest in (("train_size", train_size, 1), ("test_size", test_size, 0)):
        stop, most = start + size, len(x) - start - rest
        if not 1 <= size <= most:
            raise ValueError(f"task.{option}: expected 1 to {most} images, found {size}")
        parts.append(Part(x[start:stop], y[start:stop]))
        start = stop
    return parts[0], parts[1]


TASKS: dict[str, Callable[[TaskConfig], tuple[Part, Part, int | None]]] = {
    "digits": _digits,
    **dict.fromkeys(BUNDLED, _bundled),
    "mnist1d": _mnist1d,
    "sbm": _sbm,
    "graph": _graph,
    "images": _images,
}
