"""Monotonic linear interpolation: the training loss on the segment from the initialization to the trained network.

Goodfellow et al. found that it mostly falls all the way; Lucas et al. studied when it does not, and
Lim et al. found that it does so more often for networks without parameter symmetries. The study
reads the first and the last checkpoint of every network of a zoo and trains nothing.

References:
    Goodfellow, Vinyals and Saxe 2015, arXiv 1412.6544; Lucas, Bae, Zhang, Fort, Zemel and Grosse
    2021, arXiv 2104.11044; Lim, Putterman, Walters, Maron and Jegelka 2024, arXiv 2405.20231,
    section 5.4 and table 4.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from data_gen.config import Job
from data_gen.sampling import as_tensor
from data_gen.tasks.task import Task, TaskConfig, load_task
from data_gen.training.runs import TrainingRuns, draw_view, parts_of
from studies.common.base import keep_rows, make_zoo
from studies.common.grid import run_grid
from studies.interpolation.config import Interpolation
from studies.interpolation.curves import measure_curves, segment_losses
from studies.interpolation.report import write_report
from studies.interpolation.tables import format_study
from zoo.params import Params
from zoo.store.population import Zoo, load

__all__ = ["CONFIG", "Interpolation", "format_study", "measure", "run", "write_report"]


CONFIG = Interpolation


@dataclass(frozen=True)
class Block:
    """Networks `start` to `stop - 1` of a split of a population, and what to measure of them.

    Attributes:
        zoo: Directory of the zoo.
        job: Identity of the job, on which the task depends.
        population: Name of the population.
        fingerprint: Identity of its content.
        split: Name of the split.
        start: First row.
        stop: One past the last row.
        num_points: As in the config, like all that follow.
        num_images: Training images.
        label_smoothing: Whether the loss is smoothed.
        dtype: Floating type.
    """

    zoo: Path
    job: str
    population: str
    fingerprint: str
    split: str
    start: int
    stop: int
    num_points: int
    num_images: int | None
    label_smoothing: bool
    dtype: str


def run(
    config: Interpolation, out: Path, *, workers: int | None = None, quiet: bool = False
) -> pd.DataFrame:
    """Measure every block of networks that is not there yet, then write `rows.parquet` and `config.yaml`.

    Args:
        config: What to measure.
        out: Directory of the study, made if it is missing.
        workers: Number of processes; as many as there are cores if None. One means this process.
        quiet: Whether to show no progress on stderr.

    Returns:
        One row for each population and network: hyperparameters, `diverged`, the measures of
            `measure_curves` (NaN if
        diverged) and `losses`, the curve.
    """
    make_zoo(config, workers=workers, quiet=quiet)
    blocks = plan(config, load(config.zoo))
    modules = ("studies.interpolation.curves", "studies.common.segments")
    rows = run_grid(
        measure, blocks, out, name="interpolation", modules=modules, workers=workers, quiet=quiet
    )
    keep_rows(config, rows, out)
    return rows


def plan(config: Interpolation, zoo: Zoo) -> list[Block]:
    """The blocks of a study, in the order of populations and network ids.

    Args:
        config: The study's config.
        zoo: Its zoo.

    Returns:
        The blocks.

    Raises:
        ValueError: If a population is unknown or has no checkpoints.
    """
    chosen = tuple(zoo) if config.populations is None else config.populations
    for name in dict.fromkeys((config.baseline, *chosen)):
        if name not in zoo or name not in chosen:
            raise ValueError(
                f"population {name!r}: expected one of the populations {[p for p in zoo if p in chosen]}"
            )
        if not zoo.manifest.populations[name].trajectory:
            raise ValueError(
                f"population {name!r} has no initial parameters; expected a zoo of a job with checkpoints >= 2"
            )
    return [block for name in chosen for block in _blocks(config, zoo, name)]


def _blocks(config: Interpolation, zoo: Zoo, name: str) -> Iterator[Block]:
    population, taken = zoo[name], 0
    options = (config.num_points, config.num_images, config.label_smoothing, config.dtype)
    for split in population.splits:
        count = zoo.manifest.split[split]
        stop = count if config.num_networks is None else min(count, config.num_networks - taken)
        for start in range(0, stop, config.block):
            rows = (split, start, min(stop, start + config.block))
            yield Block(
                config.zoo,
                zoo.manifest.config_sha256,
                name,
                population.fingerprint,
                *rows,
                *options,
            )
        taken += max(stop, 0)


def measure(block: Block) -> pd.DataFrame:
    """Rows of the networks of a block.

    Args:
        block: Which networks, and what to measure.

    Returns:
        As `run`.
    """
    zoo = load(block.zoo)
    population, dtype = zoo[block.population], getattr(torch, block.dtype)
    table = population.table(block.split).iloc[block.start : block.stop].reset_index(drop=True)
    job = Job.model_validate(zoo.manifest.config)
    task = _task(job.task.model_dump_json(), dtype)
    seen_size = as_tensor(table["train_size"].to_numpy(copy=True), torch.int64)
    size = seen_size if block.num_images is None else seen_size.clamp(max=block.num_images)
    seen = draw_view(_networks(table, seen_size), task, job.seed)
    smoothing = as_tensor(
        table["label_smoothing"].to_numpy() * block.label_smoothing, torch.float64
    )
    ends = _ends(block.zoo, block.population, block.split, block.fingerprint)
    start, end = (
        {name: tensor[block.start : block.stop].to(dtype) for name, tensor in part.items()}
        for part in ends
    )
    architecture = population.architecture.to("cpu", dtype)
    losses = segment_losses(
        architecture, task, seen, (start, end), size, smoothing, block.num_points
    ).numpy()
    diverged = table["diverged"].to_numpy(bool) | ~np.isfinite(losses).all(1)
    rows = table[["network_id", *population.hyperparameters]].copy()
    rows.insert(0, "population", block.population)
    rows["diverged"] = diverged
    for name, values in measure_curves(losses).items():
        rows[name] = np.where(diverged, np.nan, values)
    rows["losses"] = list(losses)
    return rows


@lru_cache(maxsize=1)
def _task(config: str, dtype: torch.dtype) -> Task:
    return load_task(TaskConfig.model_validate_json(config)).to("cpu", dtype)


@lru_cache(maxsize=1)
def _ends(zoo: Path, population: str, split: str, _fingerprint: str) -> tuple[Params, Params]:
    """Initial and final parameters of a split; the blocks of a split come one after the other."""
    _, params = load(zoo)[population].trajectory(split)
    start, end = (
        {name: tensor[:, moment].clone() for name, tensor in params.items()} for moment in (0, -1)
    )
    return start, end


def _networks(table: pd.DataFrame, train_size: torch.Tensor) -> TrainingRuns:
    """What `draw_view` has to know of networks; who trained them and how does not matter to what they saw."""
    ids, steps = (
        as_tensor(table[name].to_numpy(copy=True), torch.int64) for name in ("network_id", "steps")
    )
    # In the type of training, on which the draws depend.
    noise = as_tensor(table["label_noise"].to_numpy(copy=True), torch.float32)
    parts = torch.from_numpy(parts_of(table.get("train_parts"), len(table)))
    first = table.iloc[0]
    shared = (str(first["optimizer"]), str(first["schedule"]), int(first["batch_size"]))
    return TrainingRuns(ids, {"label_noise": noise}, steps, train_size, parts, *shared)
