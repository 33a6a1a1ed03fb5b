"""Bayesian networks: does removing symmetry help variational inference and Markov chains?

Part one trains deep networks by variational inference, many seeds in lock step, one row for each
record of each seed. Part two runs Hamiltonian Monte Carlo on small networks from independent starts
and compares chains in weight and in function space.

References:
    Lim, Putterman, Walters, Maron and Jegelka 2024, arXiv 2405.20231, section 5.2 and table 2.
"""

from itertools import product
from pathlib import Path

from data_gen.config import PopulationConfig
from studies.bayesian import chains, variational
from studies.bayesian.config import Bayesian, Chains
from studies.bayesian.report import make_report
from studies.bayesian.tables import make_tables
from studies.common.base import Study
from studies.common.grid import Measurement, plan_cells

COMMON = (
    "task",
    "prior_std",
    "initial_std",
    "lr",
    "batch_size",
    "epochs",
    "records",
    "samples",
    "train_images",
)
"""What a cell of the variational part has from the config as it is."""


def plan(config: Bayesian, out: Path) -> list[Measurement]:
    """The cells of both parts, those of the variational part first."""
    planned = plan_cells(variational.measure, inferences(config), out, variational.HELPERS)
    if config.chains:
        planned += plan_cells(chains.measure, samplings(config.chains), out, chains.HELPERS)
    return planned


def inferences(config: Bayesian) -> list[variational.InferenceCell]:
    """Cells of the variational part.

    Args:
        config: What to measure.

    Returns:
        The cells, in the order of the config.
    """
    common = {name: vars(config)[name] for name in COMMON}
    cells = []
    for architecture, init_scale, rank, asymmetry in product(
        config.architectures, config.init_scales, config.ranks, config.asymmetries
    ):
        population = PopulationConfig(
            architecture=config.architectures[architecture], asymmetry=config.asymmetries[asymmetry]
        )
        cell = variational.InferenceCell(
            architecture=architecture,
            asymmetry=asymmetry,
            population=population,
            rank=rank,
            init_scale=init_scale,
            seeds=tuple(range(config.seeds)),
            **common,
        )
        cells.append(cell)
    return cells


def samplings(config: Chains) -> list[chains.ChainCell]:
    """Cells of the Markov chains.

    Args:
        config: What to measure.

    Returns:
        The cells, in the order of the config.
    """
    cells = []
    plain = {"name": "mlp", "hidden": list(config.hidden), "activation": config.activation}
    same = config.model_dump(exclude={"hidden", "activation", "asymmetries"})
    for name, asymmetry in config.asymmetries.items():
        population = PopulationConfig(architecture=plain, asymmetry=asymmetry)
        cells.append(chains.ChainCell(name, population, **same))
    return cells


STUDY = Study("bayesian", Bayesian, plan, make_tables, make_report)
