"""Bayesian networks: does removing symmetry help variational inference and Markov chains?

Part one trains deep networks by variational inference, many seeds in lock step, one row for each
record of each seed. Part two runs Hamiltonian Monte Carlo on small networks from independent starts
and compares chains in weight and in function space.

References:
    Lim, Putterman, Walters, Maron and Jegelka 2024, arXiv 2405.20231, section 5.2 and table 2.
"""

from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd

from data_gen.config import PopulationConfig
from studies.bayesian import chains, variational
from studies.bayesian.config import Bayesian, Chains
from studies.bayesian.report import write_report
from studies.bayesian.tables import format_study
from studies.common.base import keep_rows
from studies.common.grid import run_grid

CONFIG = Bayesian
VARIATIONAL, CHAINS = "variational", "chains"
__all__ = ["CONFIG", "Bayesian", "Chains", "format_study", "run", "write_report"]


def run(
    config: Bayesian, out: Path, *, workers: int | None = None, quiet: bool = False
) -> pd.DataFrame:
    """Measure every cell that is not there yet, then write `rows.parquet` and `config.yaml`.

    Args:
        config: What to measure.
        out: Directory of the study, made if it is missing.
        workers: Number of processes; as many as there are cores if None. One means this process.
        quiet: Whether to show no progress on stderr.

    Returns:
        Rows of both parts, told apart by `part`: of the variational part one for each architecture,
            asymmetry, rank, scale of
        the initialization, seed and record; of the chains one for each asymmetry and entry or test
        point.
    """
    progress: dict[str, Any] = {"name": "bayesian", "workers": workers, "quiet": quiet}
    found = run_grid(
        variational.measure, inferences(config), out, modules=variational.HELPERS, **progress
    )
    rows = [found.assign(part=VARIATIONAL)]
    if config.chains is not None:
        found = run_grid(
            chains.measure, samplings(config.chains), out, modules=chains.HELPERS, **progress
        )
        rows.append(found.assign(part=CHAINS))
    found = pd.concat(rows, ignore_index=True)
    keep_rows(config, found, out)
    return found


def inferences(config: Bayesian) -> list[variational.Inference]:
    """Cells of the variational part.

    Args:
        config: What to measure.

    Returns:
        The cells, in the order of the config.
    """
    asked = []
    for architecture, init_scale, rank, asymmetry in product(
        config.architectures, config.init_scales, config.ranks, config.asymmetries
    ):
        population = PopulationConfig(
            architecture=config.architectures[architecture], asymmetry=config.asymmetries[asymmetry]
        )
        cell = variational.Inference(
            architecture=architecture,
            asymmetry=asymmetry,
            task=config.task,
            population=population,
            rank=rank,
            init_scale=init_scale,
            prior_std=config.prior_std,
            initial_std=config.initial_std,
            lr=config.lr,
            batch_size=config.batch_size,
            epochs=config.epochs,
            records=config.records,
            seeds=tuple(range(config.seeds)),
            samples=config.samples,
            train_images=config.train_images,
        )
        asked.append(cell)
    return asked


def samplings(config: Chains) -> list[chains.Sampling]:
    """Cells of the Markov chains.

    Args:
        config: What to measure.

    Returns:
        The cells, in the order of the config.
    """
    asked = []
    plain = {"name": "mlp", "hidden": list(config.hidden), "activation": config.activation}
    same = config.model_dump(exclude={"hidden", "activation", "asymmetries"})
    for name, asymmetry in config.asymmetries.items():
        population = PopulationConfig(architecture=plain, asymmetry=asymmetry)
        asked.append(chains.Sampling(name, population, **same))
    return asked
