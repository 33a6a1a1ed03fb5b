"""Merging.

One network from the parameters of k networks of a population, beside their ensemble and one of
them.

Groups of k networks are disjoint as long as there are enough. Where networks learned from parts of
the images (`train_parts`), those of a group come from different parts as far as possible, and each
number of parts is a line of its own.

References:
    Ainsworth et al. 2023, arXiv 2209.04836, section 4 and algorithm 3; Lim et al. 2024, arXiv
    2405.20231, section 5.1.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float64, Int64
from pydantic import Field, field_validator
from torch import Tensor

from data_gen.training.runs import parts_of
from studies.common.alignments import Matching, align_to_first, align_to_mean, can_move
from studies.common.base import Study, StudyConfig
from studies.common.evaluation import (
    Part,
    all_networks,
    check_classes,
    evaluate,
    first_images,
    log_probabilities,
    metric_columns,
    num_networks,
    reset_statistics,
    table_of_all,
)
from studies.common.grid import PLACE, Measurement, plan_cells, population_cells
from studies.merging.report import make_report, make_tables
from zoo.architectures import Architecture
from zoo.config import Flag, Whole
from zoo.params import Params, select, stack
from zoo.store.population import Population
from zoo.store.zoo import load
from zoo.weight_space import WeightSpace


class Merging(StudyConfig):
    """What to measure.

    Attributes:
        populations: Populations, all if None.
        sizes: Numbers of networks to merge.
        groups: Groups of each size, at most; they are disjoint where there are networks enough.
        num_train: Training images on which to evaluate, the first ones; all if None.
        num_test: Test images, likewise.
        num_restarts: Starts of weight matching.
        repair: Whether running statistics of merged networks are reset on the training images.
        seed: Seed of the groups and of weight matching.
    """

    populations: tuple[str, ...] | None = None
    sizes: tuple[Whole, ...] = (2, 4, 8, 16)
    groups: Whole = Field(8, ge=1)
    num_train: Whole | None = Field(None, ge=1)
    num_test: Whole | None = Field(None, ge=1)
    num_restarts: Whole = Field(1, ge=1)
    repair: Flag = True
    seed: Whole = Field(0, ge=0)

    @field_validator("sizes")
    @classmethod
    def _at_least_two(cls, sizes: tuple[int, ...]) -> tuple[int, ...]:
        if not sizes or min(sizes) < 2:
            raise ValueError(f"expected numbers of at least 2, found {list(sizes)}")
        return sizes


MODULES = ("studies.common.alignments", "studies.common.evaluation")


@dataclass(frozen=True)
class MergingCell:
    """One cell.

    All groups of one size of the networks of a population that saw one of so many parts of the
    images.
    """

    zoo: Path = field(metadata=PLACE)
    fingerprint: str
    task: str
    population: str
    train_parts: int
    size: int
    groups: int
    num_train: int | None
    num_test: int | None
    num_restarts: int
    repair: bool
    seed: int

    @property
    def name(self) -> str:
        """Population, parts of the images, and size of the groups."""
        parts = f"one of {self.train_parts} parts of the images"
        return f"population {self.population!r}, {parts}, groups of {self.size}"


def plan(config: Merging, out: Path) -> list[Measurement]:
    """The cells of all populations."""
    return plan_cells(measure, population_cells(config, cells_of), out, MODULES)


def cells_of(config: Merging, population: Population) -> list[MergingCell]:
    """The cells of a population.

    Args:
        config: What to measure.
        population: The population.

    Returns:
        A cell for each number of parts and each size of which there are networks enough.

    Raises:
        ValueError: If there are not enough networks for any size.
    """
    check_classes(population)
    table = table_of_all(population)
    alive = table.loc[~table["diverged"].astype(bool)]
    parts = parts_of(alive.get("train_parts"), len(alive))
    task = json.dumps(population.manifest.job["task"], sort_keys=True)
    common = config.model_dump(exclude={"zoo", "job", "populations", "sizes"})
    cells = [
        MergingCell(
            config.zoo, population.fingerprint, task, population.name, value, size, **common
        )
        for value in np.unique(parts).tolist()
        for size in config.sizes
        if int((parts == value).sum()) >= size
    ]
    if not cells:
        raise ValueError(
            f"population {population.name!r}: {len(parts)} networks, not enough for sizes "
            f"{list(config.sizes)}"
        )
    return cells


def draw_groups(
    part: Int64[np.ndarray, " N"], size: int, groups: int, seed: int
) -> list[list[int]]:
    """Draw groups of networks.

    Those of one shuffle share none, and a new shuffle begins when one is used up.

    Args:
        part: Part of the images that each network saw.
        size: Networks in a group.
        groups: Number of groups.
        seed: Seed of the shuffles.

    Returns:
        Rows of the networks of each group. A shuffle takes one network of every part before a
        second one of any, so that a group has networks of different parts as far as possible.
    """
    generator = np.random.default_rng(seed)
    drawn: list[list[int]] = []
    while len(drawn) < groups:
        order = generator.permutation(len(part))
        turn = pd.Series(part[order]).groupby(part[order]).cumcount().to_numpy()
        order = order[np.argsort(turn, kind="stable")]
        drawn += [order[i : i + size].tolist() for i in range(0, len(part) - size + 1, size)]
    return drawn[:groups]


def measure(cell: MergingCell) -> pd.DataFrame:
    """Merge the groups of a cell.

    Args:
        cell: Which.

    Returns:
        One row for each group and way.
    """
    population = load(cell.zoo)[cell.population]
    table, params = all_networks(population)
    groups, is_disjoint = _groups(cell, table)
    parts = first_images(population, cell.num_train, cell.num_test)
    matching = Matching(population.architecture, parts["train"], cell.num_restarts, cell.seed)
    lines = []
    for number, group in enumerate(groups):
        line = {
            "population": cell.population,
            "train_parts": cell.train_parts,
            "size": cell.size,
            "group": number,
            "disjoint": is_disjoint,
        }
        networks = select(params, torch.from_numpy(group))
        ways = score_ways(population.space, networks, parts, matching, cell.repair)
        lines += [{**line, "way": way, **scores} for way, scores in ways.items()]
    return pd.DataFrame(lines)


def _groups(cell: MergingCell, table: pd.DataFrame) -> tuple[list[Int64[np.ndarray, " k"]], bool]:
    """Rows of the networks of each group, and whether no two groups share one."""
    rows = np.flatnonzero(parts_of(table.get("train_parts"), len(table)) == cell.train_parts)
    part = table["network_id"].to_numpy()[rows] % cell.train_parts
    groups = draw_groups(part, cell.size, cell.groups, cell.seed)
    return [rows[group] for group in groups], len(groups) * cell.size <= len(rows)


def score_ways(
    space: WeightSpace,
    networks: Mapping[str, Tensor],
    parts: Mapping[str, Part],
    matching: Matching,
    repair: bool,
) -> dict[str, dict[str, float]]:
    """Loss and accuracy of a group of networks: merged, each alone, and as an ensemble.

    Args:
        space: Their weight space.
        networks: At least two networks `[k, *shape]`.
        parts: Images to evaluate on, by name, those of training among them.
        matching: What computes, and how weights are matched.
        repair: Whether running statistics of merged networks are reset.

    Returns:
        `<part>_loss` and `<part>_accuracy` of each way.
    """
    architecture = matching.architecture
    merged = merge_all(space, networks, matching)
    if repair:
        images = parts["train"].x
        merged = {way: reset_statistics(architecture, p, images) for way, p in merged.items()}
    ways = {way: partial(evaluate, architecture, p) for way, p in merged.items()}
    ways["single"] = partial(evaluate, architecture, networks)
    ways["ensemble"] = partial(evaluate_ensemble, architecture, networks)
    scores = {}
    for way, score in ways.items():
        columns = metric_columns({name: score(part) for name, part in parts.items()})
        scores[way] = {name: values.mean() for name, values in columns.items()}
    return scores


def merge_all(
    space: WeightSpace, params: Mapping[str, Tensor], matching: Matching
) -> dict[str, Params]:
    """The averages of some networks, each as a population of one.

    Args:
        space: Their weight space.
        params: At least two networks `[k, *shape]`.
        matching: How weights are matched.

    Returns:
        `average`: of the networks as they are; where neurons may be permuted also
            `aligned to first` and `aligned to mean`.
    """
    merged = {"average": average(params)}
    if can_move(space):
        networks = [select(params, i) for i in range(num_networks(params))]
        merged["aligned to first"] = average(stack(align_to_first(space, networks, matching)))
        merged["aligned to mean"] = average(stack(align_to_mean(space, networks, matching)))
    return merged


def average(params: Mapping[str, Tensor]) -> Params:
    """The mean of networks `[k, *shape]` as a population of one `[1, *shape]`."""
    return {name: tensor.mean(0, keepdim=True) for name, tensor in params.items()}


def evaluate_ensemble(
    architecture: Architecture, params: Mapping[str, Tensor], part: Part
) -> tuple[Float64[np.ndarray, "1"], Float64[np.ndarray, "1"]]:
    """Loss and accuracy of the ensemble, whose probabilities are the mean of those of the networks.

    Args:
        architecture: What they compute.
        params: Networks `[k, *shape]`.
        part: Images.

    Returns:
        Mean negative logarithm of the probability of the true class, and accuracy.
    """
    nll, correct = 0.0, 0
    for log_p, y in log_probabilities(architecture, params, part):
        mean = log_p.logsumexp(0) - np.log(len(log_p))
        nll -= float(mean.gather(-1, y[:, None]).sum())
        correct += int((mean.argmax(-1) == y).sum())
    return np.array([nll / len(part.y)]), np.array([correct / len(part.y)])


STUDY = Study("merging", Merging, plan, make_tables, make_report)
