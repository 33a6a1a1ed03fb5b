"""The architectures of a job's populations."""

from data_gen.columns import COLUMNS
from data_gen.config import Job, PopulationConfig, named
from data_gen.rng import key
from data_gen.tasks.task import Task
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
    return build_architecture(name, options, task.input_shape, task.num_classes)


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
    config = job.populations[name]
    try:
        architecture = build_standard(config, task)
        if config.asymmetry is not None:
            kind, options = named(config.asymmetry, "kind")
            seed = key(job.seed, "constants", kind)
            architecture = make_asymmetric(architecture, kind, options, seed)
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
