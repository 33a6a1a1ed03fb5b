"""Conservation laws in training.

What holds at every step, what moves, what asymmetry destroys, and what quantities foretell.

Part one trains networks of a zoo's populations step by step in float64 and watches the laws of
their standard architecture. Part two asks the zoo whether the conserved quantities of an
initialization tell what a network becomes.

References:
    Gluch and Urbanke 2021, arXiv 2104.05508; Kunin et al. 2021, arXiv 2012.04728; Lim et al. 2024,
    arXiv 2405.20231.
"""

import json
from functools import partial
from pathlib import Path

from studies.common.base import Study
from studies.common.computed_targets import DERIVED
from studies.common.grid import Measurement, plan_cells, population_cells
from studies.conservation import prediction, trajectories
from studies.conservation.config import Conservation
from studies.conservation.prediction import HALF_TIME, PredictionCell
from studies.conservation.report import make_report
from studies.conservation.tables import make_tables
from studies.conservation.trajectories import TrainingCell
from zoo.store.population import Population

MODULES = ("metanet", "studies.common.computed_targets", "studies.common.evaluation")


def plan(config: Conservation, out: Path) -> list[Measurement]:
    """The cells of both parts, the training runs first.

    Args:
        config: What to measure.
        out: Directory of the study.

    Returns:
        The measurements.

    Raises:
        ValueError: If a population or target is unknown, or a population has no recorded quantities
            and there is something to predict.
    """
    planned = plan_cells(trajectories.measure, population_cells(config, runs), out)
    if config.bridges:
        predicted = population_cells(config, partial(bridges, out=out))
        planned += plan_cells(prediction.measure, predicted, out, MODULES)
    return planned


def runs(config: Conservation, population: Population) -> list[TrainingCell]:
    """Training runs of a population.

    Args:
        config: What to measure.
        population: The population.

    Returns:
        A cell for each way to train and step size.
    """
    job = json.dumps(population.manifest.job, sort_keys=True)
    common = (config.batch_size, config.records, config.networks)
    cells = []
    for name, descent in config.descents.items():
        for lr in descent.lrs:
            steps = max(config.records, round(config.steps * min(descent.lrs) / lr))
            how = (name, descent.optimizer, lr, descent.momentum, descent.weight_decay)
            cells.append(TrainingCell(job, population.name, *how, steps, *common))
    return cells


def bridges(config: Conservation, population: Population, out: Path) -> list[PredictionCell]:
    """What is predicted of a population.

    Args:
        config: What to measure.
        population: The population.
        out: Directory of the study.

    Returns:
        A cell for each target.

    Raises:
        ValueError: If the population has no recorded quantities, or a target is unknown.
    """
    if not population.manifest.job.get("laws"):
        raise ValueError(
            f"{config.zoo}: no conserved quantities; expected the zoo of a job with `checkpoints` "
            "and `laws`"
        )
    known = [*population.table(population.splits[0]).columns, *DERIVED, HALF_TIME]
    if unknown := [target for target in config.targets if target not in known]:
        raise ValueError(
            f"targets: unknown target {unknown[0]!r} of population {population.name!r}; known are "
            f"{known}"
        )
    options = config.bridges, config.num_train, config.seed, config.num_bootstrap, out / "targets"
    return [
        PredictionCell(config.zoo, population.fingerprint, population.name, target, *options)
        for target in config.targets
    ]


STUDY = Study("conservation", Conservation, plan, make_tables, make_report)
