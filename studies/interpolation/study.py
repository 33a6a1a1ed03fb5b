"""Monotonic linear interpolation.

The training loss on the segment from the initialization to the trained network.

Goodfellow et al. found that it mostly falls all the way; Lucas et al. studied when it does not, and
Lim et al. found that it does so more often for networks without parameter symmetries. The study
reads the first and the last checkpoint of every network of a zoo and trains nothing.

References:
    Goodfellow, Vinyals and Saxe 2015, arXiv 1412.6544; Lucas, Bae, Zhang, Fort, Zemel and Grosse
    2021, arXiv 2104.11044; Lim, Putterman, Walters, Maron and Jegelka 2024, arXiv 2405.20231,
    section 5.4 and table 4.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float64

from data_gen.config import Job
from data_gen.tasks.data import Task
from data_gen.tasks.task import TaskConfig, load_task
from data_gen.training.runs import TrainingRuns, draw_view, parts_of
from studies.common.base import Study
from studies.common.evaluation import checkpoints
from studies.common.grid import PLACE, Measurement, plan_cells
from studies.interpolation.config import Interpolation
from studies.interpolation.curves import measure_curves, segment_losses
from studies.interpolation.report import make_report
from studies.interpolation.tables import make_tables
from zoo.architectures import Architecture
from zoo.params import Params
from zoo.store.zoo import Zoo, load

MODULES = ("studies.interpolation.curves", "studies.common.segments")


@dataclass(frozen=True)
class InterpolationCell:
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

    zoo: Path = field(metadata=PLACE)
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

    @property
    def name(self) -> str:
        """Population and networks."""
        return f"population {self.population!r}, {self.split} networks {self.start} to {self.stop}"


def plan(config: Interpolation, out: Path) -> list[Measurement]:
    """The cells of all populations."""
    return plan_cells(measure, plan_networks(config, load(config.zoo)), out, MODULES)


def plan_networks(config: Interpolation, zoo: Zoo) -> list[InterpolationCell]:
    """The cells of a study, in the order of populations and network ids.

    Args:
        config: The study's config.
        zoo: Its zoo.

    Returns:
        The cells.

    Raises:
        ValueError: If a population is unknown or has no checkpoints.
    """
    chosen = zoo.choose(config.populations)
    if config.baseline not in chosen:
        raise ValueError(
            f"population {config.baseline!r}: expected one of the populations {list(chosen)}"
        )
    Job.model_validate(zoo.manifest.job)  # cells load its task
    for name in chosen:
        if not zoo.manifest.populations[name].trajectory:
            raise ValueError(
                f"population {name!r} has no initial parameters; expected a zoo of a job with "
                f"checkpoints >= 2"
            )
    return [cell for name in chosen for cell in _cells(config, zoo, name)]


def _cells(config: Interpolation, zoo: Zoo, name: str) -> Iterator[InterpolationCell]:
    population, taken = zoo[name], 0
    told = config.model_dump(include={"num_points", "num_images", "label_smoothing", "dtype"})
    of = {"job": zoo.manifest.config_sha256, "fingerprint": population.fingerprint}
    for split in population.splits:
        count = population.sizes[split]
        last = count if config.num_networks is None else min(count, config.num_networks - taken)
        for start in range(0, last, config.block):
            rows = {"split": split, "start": start, "stop": min(last, start + config.block)}
            yield InterpolationCell(config.zoo, population=name, **of, **rows, **told)
        taken += max(last, 0)


def measure(cell: InterpolationCell) -> pd.DataFrame:
    """Rows of the networks of a cell.

    Args:
        cell: Which networks, and what to measure.

    Returns:
        One row for each network: hyperparameters, `diverged`, the measures of `measure_curves` (NaN
        if diverged) and `losses`, the curve.
    """
    zoo = load(cell.zoo)
    population = zoo[cell.population]
    table = population.table(cell.split).iloc[cell.start : cell.stop].reset_index(drop=True)
    losses = _losses(cell, population.architecture, Job.model_validate(zoo.manifest.job), table)
    diverged = table["diverged"].to_numpy(bool) | ~np.isfinite(losses).all(1)
    shapes = measure_curves(losses)
    columns = {
        "population": cell.population,
        **table[["network_id", *population.hyperparameters]],
        "diverged": diverged,
        **{name: np.where(diverged, np.nan, values) for name, values in shapes.items()},
        "losses": list(losses),
    }
    return pd.DataFrame(columns)


def _losses(
    cell: InterpolationCell, architecture: Architecture, job: Job, table: pd.DataFrame
) -> Float64[np.ndarray, "N T"]:
    """Loss curves of the networks of a table."""
    dtype = getattr(torch, cell.dtype)
    task = _task(job.task.model_dump_json(), dtype)
    train_size = _column(table, "train_size", torch.int64)
    size = train_size if cell.num_images is None else train_size.clamp(max=cell.num_images)
    shown = draw_view(_networks(table, train_size), task, job.seed)
    smoothing = _column(table, "label_smoothing", torch.float64) * cell.label_smoothing
    start, end = (
        {name: tensor[cell.start : cell.stop].to(dtype) for name, tensor in params.items()}
        for params in _ends(cell.zoo, cell.population, cell.split, cell.fingerprint)
    )
    curves = segment_losses(
        architecture.to("cpu", dtype), task, shown, (start, end), size, smoothing, cell.num_points
    )
    return curves.numpy()


def _column(table: pd.DataFrame, name: str, dtype: torch.dtype) -> torch.Tensor:
    return torch.from_numpy(table[name].to_numpy(copy=True)).to(dtype)


@lru_cache(maxsize=1)
def _task(config: str, dtype: torch.dtype) -> Task:
    return load_task(TaskConfig.model_validate_json(config)).to("cpu", dtype)


@lru_cache(maxsize=1)
def _ends(zoo: Path, population: str, split: str, _fingerprint: str) -> tuple[Params, Params]:
    """Initial and final parameters of a split; the cells of a split come one after the other."""
    _, params = checkpoints(load(zoo)[population], split)
    start, end = (
        {name: tensor[:, moment].clone() for name, tensor in params.items()} for moment in (0, -1)
    )
    return start, end


def _networks(table: pd.DataFrame, train_size: torch.Tensor) -> TrainingRuns:
    """What `draw_view` has to know of networks."""
    # Who trained them and how does not matter to what they saw.
    ids, steps = (_column(table, name, torch.int64) for name in ("network_id", "steps"))
    # In the type of training, on which the draws depend.
    noise = _column(table, "label_noise", torch.float32)
    parts = torch.from_numpy(parts_of(table.get("train_parts"), len(table)))
    first = table.iloc[0]
    shared = (str(first["optimizer"]), str(first["schedule"]), int(first["batch_size"]))
    return TrainingRuns(ids, {"label_noise": noise}, steps, train_size, parts, *shared)


STUDY = Study("interpolation", Interpolation, plan, make_tables, make_report)
