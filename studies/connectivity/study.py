"""Mode connectivity.

The loss on the segment between two networks of a population, as they are and after alignment.

Networks `2 i` and `2 i + 1` of a population are pair `i`. A pair is measured in each population,
with each alignment that has something to move there. Barriers are

    middle = L((a + b) / 2) - (L(a) + L(b)) / 2
    highest = max over t of L((1 - t) a + t b) - ((1 - t) L(a) + t L(b))

References:
    Lim et al. 2024, arXiv 2405.20231, section 5.1 and table 1; Ainsworth et al. 2023, arXiv
    2209.04836.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import Field, field_validator

from studies.common.alignments import (
    ALIGNMENTS,
    Matching,
    can_move,
    check_alignments,
    match_weights,
    moved_share,
    standard_space,
)
from studies.common.base import Study, StudyConfig
from studies.common.evaluation import (
    Part,
    all_networks,
    check_classes,
    first_images,
    metric_columns,
    rms_distance,
)
from studies.common.grid import PLACE, Measurement, plan_cells, population_cells
from studies.common.segments import evaluate_segment
from studies.connectivity.report import make_report, make_tables
from zoo.config import Flag, Whole
from zoo.params import Params, select
from zoo.store.population import Population
from zoo.store.zoo import load
from zoo.symmetry.action import act


class Connectivity(StudyConfig):
    """What to measure.

    Attributes:
        populations: Populations, all if None.
        alignments: Names in `studies.common.alignments.ALIGNMENTS`; one that has nothing to move in
            a population is left out there.
        pairs: Pairs of networks, as many as there are if None.
        points: Places on each segment, both ends included; odd, so that the middle is among them.
        num_train: Training images on which to evaluate, the first ones; all if None.
        num_test: Test images, likewise.
        match_images: Training images on which activations are matched.
        num_restarts: Starts of weight matching.
        repair: Whether to measure networks with running statistics also with statistics reset at
            every point.
        seed: Seed of the order in which weight matching goes through groups.
    """

    populations: tuple[str, ...] | None = None
    alignments: tuple[str, ...] = tuple(ALIGNMENTS)
    pairs: Whole | None = Field(None, ge=1)
    points: Whole = Field(25, ge=3)
    num_train: Whole | None = Field(None, ge=1)
    num_test: Whole | None = Field(None, ge=1)
    match_images: Whole = Field(1000, ge=2)
    num_restarts: Whole = Field(1, ge=1)
    repair: Flag = False
    seed: Whole = Field(0, ge=0)

    @field_validator("alignments")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return check_alignments(names)

    @field_validator("points")
    @classmethod
    def _odd(cls, points: int) -> int:
        if points % 2 == 0:
            raise ValueError(
                f"expected an odd number, so that the middle is one of the points, found {points}"
            )
        return points


MODULES = ("studies.common.alignments", "studies.common.evaluation", "studies.common.segments")


@dataclass(frozen=True)
class ConnectivityCell:
    """One cell.

    All pairs of a population with one alignment; it depends on the population's content too.
    """

    zoo: Path = field(metadata=PLACE)
    fingerprint: str
    task: str
    population: str
    alignment: str
    repaired: bool
    pairs: int | None
    points: int
    num_train: int | None
    num_test: int | None
    match_images: int
    num_restarts: int
    seed: int

    @property
    def name(self) -> str:
        """Population and alignment."""
        return f"population {self.population!r}, alignment {self.alignment!r}"


def plan(config: Connectivity, out: Path) -> list[Measurement]:
    """The cells of all populations."""
    return plan_cells(measure, population_cells(config, cells_of), out, MODULES)


def cells_of(config: Connectivity, population: Population) -> list[ConnectivityCell]:
    """The cells of a population.

    Args:
        config: What to measure.
        population: The population.

    Returns:
        A cell for each alignment that may move something, `none` always; twice where statistics are
        reset too.
    """
    check_classes(population)
    moving = can_move(population.space)
    repairs = (False, True) if config.repair and population.architecture.statistics else (False,)
    common = config.model_dump(exclude={"zoo", "job", "populations", "alignments", "repair"})
    task = json.dumps(population.manifest.job["task"], sort_keys=True)
    return [
        ConnectivityCell(
            config.zoo, population.fingerprint, task, population.name, alignment, repaired, **common
        )
        for alignment in config.alignments
        if moving or alignment == "none"
        for repaired in repairs
    ]


def measure(cell: ConnectivityCell) -> pd.DataFrame:
    """Measure the pairs of a population with one alignment.

    Args:
        cell: Which.

    Returns:
        One row for each pair and point.

    Raises:
        ValueError: If there are not so many pairs.
    """
    population = load(cell.zoo)[cell.population]
    table, params = all_networks(population)
    ids = table["network_id"].to_numpy()
    parts = first_images(population, cell.num_train, cell.num_test)
    images = first_images(population, cell.match_images, 0)["train"]
    matching = Matching(population.architecture, images, cell.num_restarts, cell.seed)
    rows = []
    for pair in pairs_of(ids, cell.pairs):
        first, second = (select(params, row) for row in pair)
        row = {
            "population": cell.population,
            "alignment": cell.alignment,
            "repaired": cell.repaired,
            "pair": ids[pair[0]] // 2,
            "first_id": ids[pair[0]],
            "second_id": ids[pair[1]],
            **measure_pair(cell, population, first, second, parts, matching),
        }
        rows.append(pd.DataFrame(row))
    return pd.concat(rows, ignore_index=True)


def measure_pair(
    cell: ConnectivityCell,
    population: Population,
    first: Params,
    second: Params,
    parts: Mapping[str, Part],
    matching: Matching,
) -> dict[str, Any]:
    """Align the second network of a pair with the first, and measure what is between them.

    Args:
        cell: How.
        population: The population.
        first: One network `[*shape]`.
        second: The other one.
        parts: Images to evaluate on, by name.
        matching: What alignment needs to know.

    Returns:
        Columns of the pair, with a value for each point where they differ by it.
    """
    space, plain = population.space, standard_space(population)
    element = ALIGNMENTS[cell.alignment](space, second, first, matching)
    moved = act(space, element, second)
    points = np.linspace(0, 1, cell.points)
    repair = parts["train"] if cell.repaired else None
    values = evaluate_segment(
        population.architecture, select(first, None), select(moved, None), points, parts, repair
    )
    order = match_weights(plain, second, first, matching)
    return {
        "distance_before": rms_distance(population, first, second),
        "distance": rms_distance(population, first, moved),
        "moved": moved_share(space, element),
        "misordered_share": moved_share(plain, order),
        "point": points,
        **{name: curves[0] for name, curves in metric_columns(values).items()},
    }


def pairs_of(ids: np.ndarray, count: int | None) -> list[tuple[int, int]]:
    """Rows of the networks `2 i` and `2 i + 1`, of the pairs that are whole.

    No network of theirs diverged.

    Args:
        ids: Ids of the networks that did not diverge, increasing.
        count: Pairs to take, the first ones; all if None.

    Returns:
        Row numbers of both networks of each pair.

    Raises:
        ValueError: If there are fewer pairs than asked for, or none.
    """
    row = {int(network): i for i, network in enumerate(ids)}
    whole = [(row[i], row[i + 1]) for i in row if i % 2 == 0 and i + 1 in row]
    if not whole or (count is not None and len(whole) < count):
        raise ValueError(
            f"expected at least {count or 1} pairs of networks that did not diverge, found "
            f"{len(whole)}"
        )
    return whole[:count]


STUDY = Study("mode-connectivity", Connectivity, plan, make_tables, make_report)
