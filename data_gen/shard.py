"""Train the networks of one shard and write it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64, Shaped
from torch import Tensor

from data_gen.config import Job, PopulationConfig
from data_gen.rng import key
from data_gen.sampling import as_tensor, group_rows, sample_table
from data_gen.tasks.task import Task, load_task
from data_gen.training.compilation import compilation_pays
from data_gen.training.conservation import laws_of, measure_conservation
from data_gen.training.evaluate import evaluate_networks
from data_gen.training.lanes import Lanes
from data_gen.training.memory import chunk_size, halve_until_it_fits, training_bytes
from data_gen.training.recorder import Recorder, checkpoint_steps
from data_gen.training.runs import TrainingRuns, part_bounds, parts_of
from data_gen.training.state import State
from data_gen.training.trainer import Trainer
from zoo.architectures.base import Architecture
from zoo.architectures.table import build_architecture, make_asymmetric
from zoo.conservation.laws import Law
from zoo.params import Params, stack
from zoo.store.hdf5 import write_columns
from zoo.store.schema import METRIC_COLUMNS

_SHARED_IN_LOCK_STEP = ("optimizer", "schedule", "batch_size")
Table = dict[str, Shaped[np.ndarray, "N ..."]]


@dataclass(frozen=True)
class Shard:
    """One file to be written: networks `start` to `stop - 1` of a population."""

    population: str
    split: str
    number: int
    of: int
    start: int
    stop: int

    @property
    def count(self) -> int:
        """Number of its networks."""
        return self.stop - self.start

    @property
    def name(self) -> str:
        """File name inside the population's folder."""
        return f"{self.split}-{self.number:05d}-of-{self.of:05d}.h5"

    def path(self, trajectory: bool = False) -> str:
        """Path relative to the zoo."""
        return f"{self.population}{'.trajectory' if trajectory else ''}/{self.name}"

    def paths(self, trajectory: bool) -> tuple[str, ...]:
        """Paths of all its files relative to the zoo, with or without checkpoints."""
        return (self.path(), self.path(True)) if trajectory else (self.path(),)


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
    options = {option: value for option, value in config.architecture.items() if option != "name"}
    return build_architecture(
        config.architecture["name"], options, task.input_shape, task.num_classes
    )


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
            kind = config.asymmetry["kind"]
            options = {
                option: value for option, value in config.asymmetry.items() if option != "kind"
            }
            architecture = make_asymmetric(
                architecture, kind, options, key(job.seed, "constants", kind)
            )
    except ValueError as error:
        raise ValueError(f"population {name!r}: {error}") from error
    clash = set(architecture.space.tensors) & {
        "network_id",
        "seed",
        "checkpoint_steps",
        *job.hyperparameters,
        *METRIC_COLUMNS,
    }
    if clash:
        raise ValueError(
            f"population {name!r}: tensors {sorted(clash)} are named like columns of the table; rename them"
        )
    return architecture


def full_table(job: Job, task: Task, ids: Int64[Tensor, " N"]) -> Table:
    """Hyperparameters, seed and derived numbers of steps and images of networks.

    Args:
        job: The job.
        task: The task.
        ids: Network ids.

    Returns:
        `network_id`, `seed`, every hyperparameter, `steps` and `train_size`, each `[N]`.

    Raises:
        ValueError: If there are more parts than training images.
    """
    table = sample_table(job.hyperparameters, job.seed, ids)
    total = len(task.train.y)
    parts = torch.from_numpy(parts_of(table.get("train_parts"), len(ids)))
    if int(parts.max()) > total:
        raise ValueError(
            f"train_parts: expected at most {total}, the number of training images, found {int(parts.max())}"
        )
    start, stop = part_bounds(ids, parts, total)
    train_size = np.maximum(
        1, np.round(table["train_fraction"].astype(float) * (stop - start).numpy())
    ).astype(np.int64)
    if "steps" not in table:
        steps = np.ceil(table["epochs"].astype(float) * train_size / table["batch_size"])
        table["steps"] = np.maximum(1, steps).astype(np.int64)
    seeds = np.array([key(job.seed, "network", int(i)) for i in ids], dtype=np.int64)
    return {"network_id": ids.numpy(), "seed": seeds, **table, "train_size": train_size}


@dataclass
class ShardWorker:
    """Generates shards of a job on one device; keeps the task and compiled steps from shard to shard.

    Attributes:
        job: The job.
        out: Folder of the zoo.
        device: Where networks train.
        max_chunk: Networks in lock step, at most; by memory if None.
        allow_compile: Whether steps may be compiled.
        dtype: Floating type of training.
        store_dtype: Floating type of what `train` returns; shards are float32 always.
    """

    job: Job
    out: Path
    device: torch.device
    max_chunk: int | None = None
    allow_compile: bool = False
    dtype: torch.dtype = torch.float32
    store_dtype: torch.dtype = torch.float32
    _trainers: dict[str, Trainer] = field(default_factory=dict)
    _laws: dict[str, tuple[Law, ...]] = field(default_factory=dict)

    @cached_property
    def task(self) -> Task:
        """The task, on the device."""
        return load_task(self.job.task).to(self.device, self.dtype)

    @cached_property
    def compilation_pays(self) -> bool:
        """Whether populations of this job are large enough for compiled steps; a function of the job alone."""
        table = full_table(self.job, self.task, torch.arange(self.job.count))
        return compilation_pays(
            float(table["steps"].sum()), len(group_rows(table, ("optimizer", "batch_size")))
        )

    def trainer(self, population: str) -> Trainer:
        """The trainer of a population, made once."""
        if population not in self._trainers:
            architecture = build_population(self.job, population, self.task).to(
                self.device, self.dtype
            )
            compiled = self.allow_compile and self.compilation_pays
            self._trainers[population] = Trainer(
                architecture, self.task, self.job.seed, compiled, self.job.precision
            )
        return self._trainers[population]

    def laws(self, population: str) -> tuple[Law, ...]:
        """The laws that the job wants recorded for a population, found once."""
        if population not in self._laws:
            standard = build_standard(self.job.populations[population], self.task)
            self._laws[population] = (
                laws_of(standard, self.task, self.job.laws) if self.job.laws else ()
            )
        return self._laws[population]

    @property
    def needs_gpu(self) -> bool:
        """Whether each process needs a GPU."""
        return self.device.type == "cuda"

    def set_up(self, rank: int) -> None:
        """Choose the GPU of a process; processes take turns.

        Args:
            rank: Number of the process.
        """
        if self.needs_gpu:
            self.device = torch.device("cuda", rank % torch.cuda.device_count())

    def complete(self, shard: Shard, report: Callable[[int], object]) -> None:
        """Train the networks of a shard and write it.

        Args:
            shard: Which one.
            report: Called with the number of networks that have just been finished.
        """
        table, params, trajectory = self.train(
            shard.population, torch.arange(shard.start, shard.stop), report
        )
        attributes = {
            "population": shard.population,
            "split": shard.split,
            "shard": shard.number,
            "shards": shard.of,
            "config_sha256": self.job.sha256,
        }
        columns = {name: tensor.numpy() for name, tensor in params.items()}
        if trajectory:
            steps = {
                "network_id": table["network_id"],
                "checkpoint_steps": checkpoint_steps(self.job.checkpoints, table["steps"]),
            }
            moments = {name: tensor.numpy() for name, tensor in trajectory.items()}
            write_columns(self.out / shard.path(trajectory=True), {**steps, **moments}, attributes)
        write_columns(self.out / shard.path(), {**table, **columns}, attributes)

    def train(
        self, population: str, ids: Int64[Tensor, " N"], report: Callable[[int], object]
    ) -> tuple[Table, Params, Params]:
        """Train networks of a population, like ones in lock step.

        Args:
            population: Its name.
            ids: Network ids.
            report: Called with the number of networks that have just been finished.

        Returns:
            One row a network: the table of hyperparameters and metrics, final parameters and, if
                the job asks for checkpoints,
            trajectories `[N, T, *shape]`, with conserved quantities and residuals if it asks for
            laws; all on the CPU, parameters in `store_dtype`.
        """
        trainer = self.trainer(population)
        table = full_table(self.job, self.task, ids)
        order: list[int] = []
        results: list[tuple[Params, Params, Params]] = []
        for rows in group_rows(table, _SHARED_IN_LOCK_STEP).values():
            order += rows
            alike = {name: column[rows] for name, column in table.items()}
            train = partial(self._train_alike, trainer, self.laws(population), alike, report)
            results.append(halve_until_it_fits(train, self.chunk_size(population, alike)))
        metrics, params, trajectory = (_join(parts, order) for parts in zip(*results, strict=True))
        return (
            {**table, **{name: tensor.numpy() for name, tensor in metrics.items()}},
            params,
            trajectory,
        )

    def chunk_size(self, population: str, table: Table) -> int:
        """How many networks of a population train in lock step.

        Args:
            population: Its name.
            table: Rows of `full_table`, with one optimizer, schedule and batch size.

        Returns:
            Number of networks, at least 1.
        """
        trainer = self.trainer(population).uncompiled()
        one = {name: column[:1] for name, column in table.items()}
        needed = training_bytes(trainer, self.runs(one), self.initial(trainer, one))
        size = chunk_size(
            needed, self.device, len(table["network_id"]), self.trainer(population).compiled
        )
        return min(size, self.max_chunk or size)

    def _train_alike(
        self,
        trainer: Trainer,
        laws: tuple[Law, ...],
        table: Table,
        report: Callable[[int], object],
        size: int,
    ) -> tuple[Params, Params, Params]:
        """Metrics, final parameters and trajectories of networks that may train in lock step."""
        runs, initial = self.runs(table), self.initial(trainer, table)
        recorder = None
        if self.job.checkpoints:
            moments = torch.from_numpy(checkpoint_steps(self.job.checkpoints, table["steps"]))
            recorder = Recorder(moments, initial, self.store_dtype)
        final, diverged_at = Lanes(trainer, runs, initial, size, recorder, report).run()
        metrics = evaluate_networks(trainer, runs, final, size)
        unusable = ~torch.isfinite(metrics["train_loss"] + metrics["test_loss"])
        diverged_at = torch.where(unusable & (diverged_at < 0), runs.steps, diverged_at)
        metrics |= {"diverged": diverged_at >= 0, "diverged_at": diverged_at}
        trajectory = {} if recorder is None else recorder.params
        if laws:
            trajectory |= measure_conservation(trainer, runs, laws, trajectory, size)
        return (
            {name: tensor.cpu() for name, tensor in metrics.items()},
            {name: tensor.cpu().to(self.store_dtype) for name, tensor in final.items()},
            {name: tensor.to(self.store_dtype) for name, tensor in trajectory.items()},
        )

    def start(self, trainer: Trainer, table: Table) -> tuple[TrainingRuns, State]:
        """Networks before their first step.

        Args:
            trainer: Who is going to train them.
            table: Their rows of `full_table`, with one optimizer, schedule and batch size.

        Returns:
            Who they are, and their state.
        """
        runs = self.runs(table)
        return runs, trainer.start(runs, self.initial(trainer, table))

    def initial(self, trainer: Trainer, table: Table) -> Params:
        """Initial parameters of networks, before the scale of the initialization.

        Args:
            trainer: Who is going to train them.
            table: Their rows of `full_table`.

        Returns:
            Effective parameters `[N, *shape]` on the device.
        """
        drawn = stack(
            [
                trainer.architecture.init(torch.Generator().manual_seed(int(seed)))
                for seed in table["seed"]
            ]
        )
        return {name: tensor.to(self.device, self.dtype) for name, tensor in drawn.items()}

    def runs(self, table: Table) -> TrainingRuns:
        """Who is trained, and how.

        Args:
            table: Rows of `full_table`, with one optimizer, schedule and batch size.

        Returns:
            The networks, on the device.
        """
        numeric = ("lr", "weight_decay", "momentum", "label_smoothing", "label_noise", "init_scale")
        return TrainingRuns(
            ids=as_tensor(table["network_id"], torch.int64).to(self.device),
            hparams={name: as_tensor(table[name], self.dtype).to(self.device) for name in numeric},
            steps=as_tensor(table["steps"], torch.int64).to(self.device),
            train_size=as_tensor(table["train_size"], torch.int64).to(self.device),
            parts=torch.from_numpy(parts_of(table.get("train_parts"), len(table["network_id"]))).to(
                self.device
            ),
            optimizer=str(table["optimizer"][0]),
            schedule=str(table["schedule"][0]),
            batch_size=int(table["batch_size"][0]),
        )


def _join(chunks: Sequence[Params], rows: list[int]) -> Params:
    """Put the networks of all chunks, whose rows are given, in the order of their rows."""
    order = torch.tensor(rows).argsort()
    return {name: torch.cat([chunk[name] for chunk in chunks])[order] for name in chunks[0]}
