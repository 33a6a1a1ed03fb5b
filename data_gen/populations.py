"""The architectures of a job's populations."""

from data_gen.columns import COLUMNS
from data_gen.config import Job, PopulationConfig, named
from data_gen.rng import key
from data_gen.tasks.data import Task
from zoo.architectures.base import Architecture
from zoo.architectures.table import build_architecture, make_asymmetric


def build_standard(config: PopulationConfig, task: Task) -> Architecture:
    """The architecture of a population without its asymmetry.

    Args:
        config: The population.
        task: The task.

    Returns:
        The architecture, on the CPU.

    Raises:
        ValueError: If the architecture does not fit the task.
    """
    name, options = named(config.architecture, "name")
    if len(task.output_shape) != 1:
        raise ValueError(
            f"architecture {name!r} has outputs of one axis; the task needs {task.output_shape}"
        )
    return build_architecture(name, options, task.input_shape, task.output_shape[0])


def build_population(job: Job, name: str, task: Task) -> Architecture:
    """The architecture of a population, constants included.

    Args:
        job: The job.
        name: Name of the population.
        task: The task.

    Returns:
        The architecture, on the CPU. Constants depend on the job's seed and the kind of asymmetry,
        not on the name, so that populations that differ in `kappa` alone share their masks.

    Raises:
        ValueError: If the architecture does not fit the task, or an option does not fit it.
    """
    try:
        architecture = twin_of(job, name, build_standard(job.populations[name], task))
    except ValueError as error:
        raise ValueError(f"population {name!r}: {error}") from error
    columns = {"checkpoint_steps", *job.hyperparameters, *COLUMNS}
    clash = columns.intersection(architecture.space.tensors)
    if clash:
        raise ValueError(
            f"population {name!r}: tensors {sorted(clash)} are named like columns of the table; "
            "rename them"
        )
    return architecture


def twin_of(job: Job, name: str, standard: Architecture) -> Architecture:
    """The architecture of a population with its asymmetry.

    Args:
        job: The job.
        name: Name of the population.
        standard: Its architecture without the asymmetry.

    Returns:
        The architecture.

    Raises:
        ValueError: If an option does not fit the architecture.
    """
    asymmetry = job.populations[name].asymmetry
    if asymmetry is None:
        return standard
    kind, options = named(asymmetry, "kind")
    return make_asymmetric(standard, kind, options, key(job.seed, "constants", kind))
