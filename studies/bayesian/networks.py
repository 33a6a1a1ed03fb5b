"""The networks of both parts of a study of Bayesian networks."""

from collections.abc import Mapping
from typing import Any

from data_gen.config import PopulationConfig
from data_gen.populations import build_standard
from data_gen.rng import key
from data_gen.tasks.data import Task
from zoo.architectures.base import Architecture
from zoo.architectures.table import make_asymmetric


def build(population: PopulationConfig, task: Task) -> Architecture:
    """The architecture of a population; its constants are the same for all seeds.

    Args:
        population: Architecture and asymmetry.
        task: Gives the shapes of inputs and outputs.

    Returns:
        The architecture.
    """
    return with_asymmetry(build_standard(population, task), population.asymmetry)


def with_asymmetry(architecture: Architecture, asymmetry: Mapping[str, Any] | None) -> Architecture:
    """An architecture with the constants of an asymmetry; as it is if there is none."""
    if asymmetry is None:
        return architecture
    options = dict(asymmetry)
    return make_asymmetric(architecture, options.pop("kind"), options, key(0, "bayesian constants"))
