"""Conservation laws in training: what holds at every step, what moves, what asymmetry destroys, and what quantities foretell.

Part one trains networks of a zoo's populations step by step in float64 and watches the laws of
their standard architecture. Part two asks the zoo whether the conserved quantities of an
initialization tell what a network becomes.

References:
    Gluch and Urbanke 2021, arXiv 2104.05508; Kunin et al. 2021, arXiv 2012.04728; Lim et al. 2024,
    arXiv 2405.20231.
"""

import json
from pathlib import Path

import pandas as pd

from studies.common.base import keep_rows, make_zoo
from studies.common.computed_targets import DERIVED
from studies.common.grid import run_grid
from studies.conservation import prediction as conservation_bridge
from studies.conservation import trajectories as conservation_paths
from studies.conservation.config import Conservation, Descent
from studies.conservation.prediction import HALF_TIME, Bridge
from studies.conservation.report import write_report
from studies.conservation.tables import format_study
from studies.conservation.trajectories import Run
from zoo.store.population import Population, load

CONFIG = Conservation
__all__ = ["CONFIG", "Conservation", "Descent", "format_study", "run", "write_report"]


def run(
    config: Conservation, out: Path, *, workers: int | None = None, quiet: bool = False
) -> pd.DataFrame:
    """Measure every cell that is not there yet, then write `rows.parquet` and `config.yaml`.

    Args:
        config: What to measure.
        out: Directory of the study, made if it is missing.
        workers: Number of processes; as many as there are cores if None. One means this process.
        quiet: Whether to show no progress on stderr.

    Returns:
        Rows of both parts, told apart by `part`, see `conservation_paths.measure` and
        `conservation_bridge.measure`.

    Raises:
        ValueError: If a population or target is unknown, or a population has no recorded quantities
            and there is something to predict.
    """
    make_zoo(config, workers=workers, quiet=quiet)
    populations = load(config.zoo).choose(config.populations).values()
    asked = [cell for population in populations for cell in runs(config, population)]
    told = [
        cell
        for population in populations
        if config.bridges
        for cell in bridges(config, population, out)
    ]
    rows = run_grid(
        conservation_paths.measure, asked, out, name="paths", workers=workers, quiet=quiet
    ).assign(part="paths")
    if told:
        modules = ("studies.common.computed_targets", "studies.common.evaluation")
        found = run_grid(
            conservation_bridge.measure,
            told,
            out,
            name="bridges",
            modules=modules,
            workers=workers,
            quiet=quiet,
        )
        rows = pd.concat([rows, found.assign(part="bridges")], ignore_index=True)
    keep_rows(config, rows, out)
    return rows


def runs(config: Conservation, population: Population) -> list[Run]:
    """Training runs of a population.

    Args:
        config: What to measure.
        population: The population.

    Returns:
        A cell for each way to train and step size.
    """
    told = json.dumps(population.manifest.config, sort_keys=True)
    common = (config.batch_size, config.records, config.networks)
    cells = []
    for name, descent in config.descents.items():
        for lr in descent.lrs:
            steps = max(config.records, round(config.steps * min(descent.lrs) / lr))
            how = (name, descent.optimizer, lr, descent.momentum, descent.weight_decay)
            cells.append(Run(told, population.name, *how, steps, *common))
    return cells


def bridges(config: Conservation, population: Population, out: Path) -> list[Bridge]:
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
    if not population.manifest.config.get("laws"):
        raise ValueError(
            f"{config.zoo}: no conserved quantities; expected the zoo of a job with `checkpoints` and `laws`"
        )
    known = [*population.table(population.splits[0]).columns, *DERIVED, HALF_TIME]
    if unknown := [target for target in config.targets if target not in known]:
        raise ValueError(
            f"targets: unknown target {unknown[0]!r} of population {population.name!r}; known are {known}"
        )
    options = (
        config.bridges,
        config.num_train,
        config.seed,
        config.num_bootstrap,
        str(out / "targets"),
    )
    return [
        Bridge(config.zoo, population.fingerprint, population.name, target, *options)
        for target in config.targets
    ]
