"""Tasks: what the networks of a zoo are trained on, by name."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor

from data_gen.rng import generator
from data_gen.tasks.augmentation import Augmentation
from data_gen.tasks.bundled import TABLES, load_digits, load_table
from data_gen.tasks.checks import (
    PARTS,
    check_parts,
    count_classes,
    input_form,
    is_image,
    numbers,
    parts_of,
    scaling_of,
)
from data_gen.tasks.chosen import first_examples, some_examples
from data_gen.tasks.data import Part, Task
from data_gen.tasks.graphs import load_graph, neighborhoods
from data_gen.tasks.losses import Kind, check_fit, check_loss, make_loss
from data_gen.tasks.mnist1d import make_mnist1d
from data_gen.tasks.sbm import NUM_BLOCKS, make_sbm
from data_gen.tasks.sources import call, load_arrays
from zoo.config import EntryError, Flag, StrictModel, Whole
from zoo.imports import check_code_name, names_code


class TaskConfig(StrictModel):
    """What the networks of a zoo are trained on.

    Attributes:
        name: `digits` (8x8 handwritten digits of scikit-learn), `iris`, `wine`, `breast_cancer`,
            `diabetes` (its tables), `mnist1d` (procedural), `sbm` (nodes of a random graph),
            `graph` (nodes of a graph of torch_geometric), or `images` (any image classification set
            that `datasets` loads), `datasets` (any of its sets, by columns), `file` (arrays); a
            function, `module:attribute`, that returns arrays; or a row that you added to `TASKS`.
        path: For `images` and `datasets`: a local folder or the id of a data set on the Hugging
            Face Hub. For `file`: the file. For `graph`: the folder that the data set keeps its
            files in.
        dataset: For `graph`: a class of `torch_geometric.datasets`.
        options: For `graph`: its arguments but the folder. For a function: its arguments.
        inputs: For `datasets`: columns that are inputs.
        target: For `datasets`: the column that is the target.
        grey: For `images`: convert to one channel.
        resize: For `images`: height and width in pixels, as they are if None.
        train_size: Training images, all if None; the first ones after a shuffle by `seed`.
        test_size: Test images, likewise.
        seed: Seed of the shuffle, and of the procedures of `mnist1d` and `sbm`.
        augment: What happens to images in training batches; nothing if None.
        loss: `name` and options of the loss; a name alone stands for itself. None for
            `cross_entropy` of classes and `squared_error` of numbers.
        per_network: For `file` and a function: whether network `i` has data of its own, item `i`.
        standardize: Whether `inputs`, or `both` inputs and targets that are numbers, get mean 0 and
            deviation 1 over the training part, or `none`; None for `inputs`.
    """

    name: str = "digits"
    path: str | None = None
    dataset: str | None = None
    options: dict[str, Any] | None = None
    inputs: tuple[str, ...] | None = Field(default=None, min_length=1)
    target: str | None = None
    grey: Flag = False
    resize: Whole | None = Field(default=None, ge=1)
    train_size: Whole | None = Field(default=None, ge=1)
    test_size: Whole | None = Field(default=None, ge=1)
    seed: Whole = Field(default=0, ge=0)
    augment: Augmentation | None = None
    loss: dict[str, Any] | None = None
    per_network: Flag | None = None
    standardize: Literal["inputs", "both", "none"] | None = None

    @field_validator("name")
    @classmethod
    def _known(cls, value: str) -> str:
        if names_code(value):
            check_code_name(value)
        elif value not in TASKS:
            raise ValueError(
                f"expected one of {sorted(TASKS)}, or 'module:attribute', found {value!r}"
            )
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

    @property
    def sizes(self) -> dict[str, int | None]:
        """How many examples each part is to have, None for all."""
        return {"train": self.train_size, "test": self.test_size}

    @property
    def code(self) -> list[str]:
        """What it names of code, as `module:attribute`."""
        names = (self.name, str((self.loss or {}).get("name")))
        return [name for name in names if names_code(name)]

    @model_validator(mode="after")
    def _options_fit(self) -> "TaskConfig":
        name = _CODE if names_code(self.name) else self.name
        for option, tasks in _OPTIONS.items():
            if name in (*_OWN, _CODE) and name not in tasks and getattr(self, option):
                raise EntryError(option, f"not an option of the task {self.name!r}")
        return self


_WITH_CLASSES = ("digits", "iris", "wine", "breast_cancer", "mnist1d", "sbm", "graph", "images")
_CODE = "module:attribute"
_OWN = (*_WITH_CLASSES, "diabetes", "datasets", "file")
_OPTIONS = {
    "path": ("images", "graph", "datasets", "file"),
    "grey": ("images", "datasets"),
    "resize": ("images", "datasets"),
    "dataset": ("graph",),
    "options": ("graph", _CODE),
    "inputs": ("datasets",),
    "per_network": ("file", _CODE),
    "target": ("datasets",),
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
    if config.name in _WITH_CLASSES:
        return "classification"
    return "regression" if config.name == "diabetes" else None


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
    train, test, known = (_code if names_code(config.name) else TASKS[config.name])(config)
    check_parts(train, test, what)
    if config.augment is not None and not is_image(train):
        raise ValueError(f"task.augment: needs images, found inputs of {input_form(train)}")
    num_classes = count_classes(train, test, known, what)
    loss = make_loss(config.loss, "regression" if num_classes is None else "classification")
    check_fit(loss, num_classes)
    if loss.kind == "regression":
        train, test, num_classes = numbers(train), numbers(test), None
    mean, std = scaling_of(train.x, config.standardize != "none", train.own_inputs)
    task = Task(train, test, num_classes, mean, std, config.augment, loss)
    return _standardized(task) if config.standardize == "both" else task


def _standardized(task: Task) -> Task:
    """The task with targets of mean 0 and deviation 1 over the training part."""
    if task.num_classes is not None:
        raise ValueError("task.standardize: 'both' is of targets that are numbers, found classes")
    mean, std = scaling_of(task.train.y, True, task.train.per_network)
    train, test = (replace(p, y=(p.y - mean) / std) for p in (task.train, task.test))
    return replace(task, train=train, test=test, target_mean=mean, target_std=std)


def _digits(config: TaskConfig) -> tuple[Part, Part, int]:
    return *_shuffled(*load_digits(), config, 1200), 10


def _table(config: TaskConfig) -> tuple[Part, Part, int | None]:
    x, y, num_classes = load_table(config.name)
    return *_shuffled(x, y, config, TABLES[config.name]), num_classes


def _shuffled(x: Tensor, y: Tensor, config: TaskConfig, train_size: int) -> tuple[Part, Part]:
    """Both parts in random order, so many for training where the configuration is silent."""
    order = torch.randperm(len(x), generator=generator(config.seed, config.name))
    train_size = config.train_size or train_size
    test_size = config.test_size or len(x) - train_size
    return first_examples(x[order], y[order], train_size, test_size)


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
    return first_examples(x, y, *sizes)


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
    return *first_examples(x, y, train_size, test_size), int(y.max()) + 1


def _images(config: TaskConfig) -> tuple[Part, Part, int]:
    from data_gen.tasks.images import load_images  # loads the datasets library

    path = _folder_or_id(config)
    train, test = (
        load_images(path, split, size, config.seed, config.grey, config.resize)
        for split, size in config.sizes.items()
    )
    return Part(*train[:2]), Part(*test[:2]), test[2]


def _datasets(config: TaskConfig) -> tuple[Part, Part, int | None]:
    from data_gen.tasks.rows import load_rows  # loads the datasets library

    path, names, target = _folder_or_id(config), config.inputs, config.target
    if names is None or target is None:
        raise ValueError(
            "task.inputs and task.target: needed for task.name: datasets; names of columns"
        )
    loaded = {
        split: load_rows(path, split, names, target, size, config.seed, config.grey, config.resize)
        for split, size in config.sizes.items()
    }
    arrays = {f"x_{split}": x for split, (x, _, _) in loaded.items()}
    arrays |= {f"y_{split}": y for split, (_, y, _) in loaded.items()}
    return *parts_of(arrays, f"task 'datasets': {path!r}"), loaded["train"][2]


def _file(config: TaskConfig) -> tuple[Part, Part, None]:
    if config.path is None:
        raise ValueError("task.path: needed for task.name: file; a .npz or .safetensors file")
    return *_some(load_arrays(config.path), f"task.path: {config.path}", config), None


def _code(config: TaskConfig) -> tuple[Part, Part, None]:
    arrays = call(config.name, config.options)
    return *_some(arrays, f"task.name: {config.name}", config), None


def _some(arrays: Any, what: str, config: TaskConfig) -> tuple[Part, Part]:
    """As many examples of both parts as are wanted, drawn by the seed of the task."""
    train, test = (
        some_examples(part, name, config.sizes[name], config.seed)
        for name, part in zip(PARTS, parts_of(arrays, what, bool(config.per_network)), strict=True)
    )
    return train, test


def _folder_or_id(config: TaskConfig) -> str:
    if config.path is None:
        raise ValueError(
            f"task.path: needed for task.name: {config.name}; "
            "a local folder or an id on the Hugging Face Hub"
        )
    is_folder = Path(config.path).is_absolute() or config.path.startswith(("./", "../", "~"))
    if is_folder and not Path(config.path).expanduser().is_dir():
        raise ValueError(f"task.path: no such folder: {config.path}")
    return config.path


TASKS: dict[str, Callable[[TaskConfig], tuple[Part, Part, int | None]]] = {
    "digits": _digits,
    **dict.fromkeys(TABLES, _table),
    "mnist1d": _mnist1d,
    "sbm": _sbm,
    "graph": _graph,
    "images": _images,
    "datasets": _datasets,
    "file": _file,
}
