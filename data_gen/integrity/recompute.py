"""Metrics of stored networks, computed again from their weights."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64, Shaped
from torch import Tensor

from data_gen.config import Job
from data_gen.tasks.bundled import TABLES
from data_gen.tasks.data import Task
from data_gen.tasks.task import TaskConfig, load_task
from data_gen.training.evaluate import evaluate_networks
from data_gen.training.runs import TrainingRuns, parts_of
from data_gen.training.trainer import Trainer
from zoo.architectures import Architecture
from zoo.imports import allow
from zoo.store.manifest import Manifest
from zoo.store.mapped import StoreError, open_mapped
from zoo.store.population import Population
from zoo.store.split_files import SplitFiles
from zoo.store.zoo import trusted_module

DEFAULT_SAMPLE = 4
_WITHOUT_FILES = ("digits", *TABLES, "mnist1d", "sbm")
_MOST_IMAGES = 10**4
Table = dict[str, Shaped[np.ndarray, "K ..."]]
_KINDS = {"label_noise": "fi", "batch_size": "i", "optimizer": "O", "schedule": "O"}
_TOGETHER = 16
_IMAGES_OFF = 2
"""How many images another machine's rounding may move to the other side."""
_SHARE_OFF, _ROUNDING_OFF = 0.02, 1e-3
"""How much a loss may be off, as a share of it and beyond that."""


def task_to_sample(
    job: Job, sample: int | None, trust_task: bool, task_path: str | None
) -> tuple[Task | None, int, str]:
    """Load the task of a job, unless a stranger's manifest would decide which files are opened.

    Args:
        job: The job.
        sample: Networks of each population that are asked for; None for the default.
        trust_task: Whether files and downloads that the job names may be used.
        task_path: Where the task's data is; None for what the job says.

    Returns:
        The task, how many networks of each population to compute again, and what is to be said
        about it.

    Raises:
        ValueError: If networks were asked for and the task is not to be had.
    """
    config = job.task if task_path is None else job.task.model_copy(update={"path": task_path})
    allowed = not needs_files(config) or trust_task or task_path is not None
    if sample == 0:
        return None, 0, "metrics not computed again: as asked"
    if sample is None and not allowed:
        why = f"the task is {described(config)}; give --task-path or --trust-task"
        return None, 0, f"metrics not computed again: {why}"
    if not allowed:
        raise ValueError(
            f"the manifest's task is {described(config)}, which is not opened unasked: "
            "give --trust-task, or --task-path and where the data is, or --sample 0"
        )
    count = DEFAULT_SAMPLE if sample is None else sample
    if trust_task:
        allow(name.partition(":")[0] for name in config.code)
    try:
        task = load_task(config)
    except (ValueError, OSError, ImportError) as error:
        raise ValueError(
            f"the data of the task is not on this machine ({error}); give --task-path, or --sample "
            "0"
        ) from error
    told = f"metrics of {count} networks of each population computed again"
    return task, count, told


def needs_files(config: TaskConfig) -> bool:
    """Whether a task opens files, imports code, downloads, or draws very many examples.

    What a stranger's manifest may not decide.

    Args:
        config: The task.

    Returns:
        Whether it does.
    """
    return (
        config.name not in _WITHOUT_FILES
        or bool(config.code)
        or max(config.train_size or 1, config.test_size or 1) > _MOST_IMAGES
    )


def described(config: TaskConfig) -> str:
    """A task for a message.

    Args:
        config: The task.

    Returns:
        What it would open.
    """
    return (
        f"{config.name!r} of {config.train_size} and {config.test_size} examples, "
        f"path {config.path!r}, dataset {config.dataset!r}, options {config.options!r:.200}, "
        f"loss {config.loss!r:.200}"
    )


def recompute_metrics(
    directory: Path,
    manifest: Manifest,
    population: str,
    job: Job,
    task: Task,
    count: int,
    seed: int,
) -> Iterator[tuple[str, str]]:
    """Compute metrics of random networks again and compare them with their rows.

    Args:
        directory: The zoo, its files checked.
        manifest: Its manifest.
        population: Name of a population.
        job: The job.
        task: Its task.
        count: Number of networks.
        seed: Of their choice.

    Yields:
        File and difference, for each network whose row is wrong.
    """
    entry = manifest.populations[population]
    if why := _another_task(manifest, task, entry.count):
        yield "zoo.json", why
        return
    try:
        architecture = _architecture(directory, manifest, population)
    except StoreError as error:
        yield "zoo.json", str(error)
        return
    trainer = Trainer(architecture, task, job.seed)
    draw = np.random.default_rng(seed).choice(entry.count, min(count, entry.count), replace=False)
    chosen = np.sort(draw)
    for file in manifest.files(population):
        rows = chosen[(chosen >= file.first) & (chosen < file.first + file.entry.rows)] - file.first
        if len(rows):
            reasons = _compare(directory / file.path, rows, trainer)
            yield from ((file.path, reason) for reason in reasons)


def _another_task(manifest: Manifest, task: Task, count: int) -> str | None:
    """Why a task is not that of a manifest, None if it is."""
    told, found = manifest.task, (task.told_kind, task.told_inputs, task.output_shape)
    if found != (told.kind, told.input_shape, told.output_shape):
        return "the task is {} with inputs {} and outputs {}".format(*found)
    if task.train.per_network and count > len(task.train.y):
        return f"the task has data of {len(task.train.y)} networks, the zoo {count}"
    if (task.train.labels is None) == ("label" in manifest.columns):
        return "the column 'label' is not as in the task"
    return None


def _architecture(directory: Path, manifest: Manifest, population: str) -> Architecture:
    module = trusted_module(manifest.populations[population])
    return Population(population, directory, manifest, module=module).architecture


def _compare(path: Path, rows: Int64[np.ndarray, " K"], trainer: Trainer) -> Iterator[str]:
    """Networks whose stored metrics are not those of their weights."""
    file = open_mapped(path)
    task = trainer.task
    shapes = trainer.architecture.space.shapes
    networks = SplitFiles([file], rows)
    table = networks.columns([name for name in file.columns if name not in shapes])
    if why := _unusable(table, len(task.train)):
        yield why
        return
    ids, labels = torch.from_numpy(table["network_id"]), task.train.labels
    if labels is not None and not np.array_equal(table["label"], labels[ids].numpy()):
        yield "'label' is not that of the task"
    params = networks.tensors(shapes)
    metrics = evaluate_networks(trainer, _runs(table), params, min(len(rows), _TOGETHER))
    yield from _differences(table, metrics, len(task.test))


def _differences(
    table: Table, metrics: Mapping[str, Float64[Tensor, " K"]], num_test: int
) -> Iterator[str]:
    """Which metrics of which networks are others than their rows say."""
    sizes = {"train": table["train_size"], "test": np.full_like(table["train_size"], num_test)}
    for name, values in metrics.items():
        computed = values.numpy()
        differ = ~_are_close(name, table[name], computed, sizes)
        if not name.endswith("accuracy"):
            differ &= ~table["diverged"]
        for row in np.flatnonzero(differ):
            told = f"{name} is {table[name][row]:.4f}, its weights give {computed[row]:.4f}"
            yield f"network {table['network_id'][row]}: {told}"


def _are_close(
    name: str,
    stored: Float64[np.ndarray, " K"],
    computed: Float64[np.ndarray, " K"],
    sizes: Mapping[str, Int64[np.ndarray, " K"]],
) -> Bool[np.ndarray, " K"]:
    """Whether metrics over so many examples differ by no more than rounding explains."""
    part, _, kind = name.partition("_")
    if kind == "accuracy":
        allowed = np.maximum(_IMAGES_OFF / sizes[part], 0.005) + 1e-12
        return np.abs(stored - computed) <= allowed
    if name == "generalization_gap":
        allowed = 2 * np.maximum(_IMAGES_OFF / np.minimum(*sizes.values()), 0.005)
        return np.isclose(stored, computed, rtol=_SHARE_OFF, atol=allowed, equal_nan=True)
    if kind == "r2":  # what is left of the spread is computed, not the share that is gone
        stored, computed = 1 - stored, 1 - computed
    return np.isclose(stored, computed, rtol=_SHARE_OFF, atol=_ROUNDING_OFF, equal_nan=True)


def _unusable(table: Table, num_train: int) -> str | None:
    """Why networks cannot be evaluated as they were trained, None if they can."""
    for name, kinds in _KINDS.items():
        if table[name].dtype.kind not in kinds:
            return f"{name!r} is not of the type that training wants"
    sizes = table["train_size"]
    parts = parts_of(table.get("train_parts"), len(sizes))
    if sizes.min() < 1 or sizes.max() > num_train or parts.min() < 1:
        return (
            f"'train_size' or 'train_parts' do not fit the {num_train} training images of the task"
        )
    return None


def _runs(table: Table) -> TrainingRuns:
    """What networks saw in training."""
    parts = parts_of(table.get("train_parts"), len(table["network_id"]))
    return TrainingRuns(
        ids=torch.from_numpy(table["network_id"]),
        hparams={"label_noise": torch.from_numpy(table["label_noise"].astype(np.float64))},
        steps=torch.from_numpy(table["steps"]),
        train_size=torch.from_numpy(table["train_size"]),
        parts=torch.from_numpy(parts),
        optimizer=str(table["optimizer"][0]),
        schedule=str(table["schedule"][0]),
        batch_size=int(table["batch_size"][0]),
    )
