"""Train the networks of one shard and write it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

import torch
from jaxtyping import Int64
from torch import Tensor

from data_gen.config import Job
from data_gen.populations import build_population, build_standard
from data_gen.sampling import group_rows
from data_gen.table import Table, full_table, runs_of
from data_gen.tasks.data import Task
from data_gen.tasks.task import load_task
from data_gen.training.compilation import NETWORK_STEPS_WORTH_COMPILING
from data_gen.training.conservation import laws_of, measure_conservation
from data_gen.training.evaluate import evaluate_checkpoints, evaluate_networks
from data_gen.training.lanes import Lanes
from data_gen.training.memory import chunk_size, halve_until_it_fits, training_bytes
from data_gen.training.recorder import Recorder, checkpoint_steps
from data_gen.training.runs import TrainingRuns
from data_gen.training.state import State, concatenate
from data_gen.training.trainer import Trainer
from zoo.conservation.laws import Law
from zoo.imports import Trust
from zoo.params import Params, select, stack
from zoo.store.hdf5 import write_columns
from zoo.writing.shards import Shard

_SHARED_IN_LOCK_STEP = ("optimizer", "schedule", "batch_size")


@dataclass
class ShardWorker:
    """Generates shards of a job on one device; keeps task and compiled steps between shards.

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
    _bytes: dict[tuple[object, ...], int] = field(default_factory=dict)

    @cached_property
    def task(self) -> Task:
        """The task, on the device."""
        return load_task(self.job.task).to(self.device, self.dtype)

    @cached_property
    def compilation_pays(self) -> bool:
        """Whether the populations are large enough for compiled steps: the same for all shards."""
        table = full_table(self.job, self.task, torch.arange(self.job.count))
        variants = group_rows(table, ("optimizer", "batch_size"))  # each is compiled
        return int(table["steps"].sum()) >= len(variants) * NETWORK_STEPS_WORTH_COMPILING

    def trainer(self, population: str) -> Trainer:
        """The trainer of a population, made once."""
        if population not in self._trainers:
            architecture = build_population(self.job, population, self.task)
            self._trainers[population] = Trainer(
                architecture.to(self.device, self.dtype),
                self.task,
                self.job.seed,
                compile=self.allow_compile and self.compilation_pays,
                precision=self.job.precision,
            )
        return self._trainers[population]

    def laws(self, population: str) -> tuple[Law, ...]:
        """The laws that the job wants recorded for a population, found once."""
        if self.job.laws is None:
            return ()
        if population not in self._laws:
            standard = build_standard(self.job.populations[population], self.task)
            self._laws[population] = laws_of(standard, self.task, self.job.laws)
        return self._laws[population]

    @property
    def needs_gpu(self) -> bool:
        """Whether each process needs a GPU."""
        return self.device.type == "cuda"

    def set_up(self, rank: int) -> None:
        """Import plugins, and choose the GPU of a process; processes take turns.

        Args:
            rank: Number of the process.
        """
        Trust(tuple(self.job.code), self.job.plugins or ()).take_over()
        if self.needs_gpu:
            self.device = torch.device("cuda", rank % torch.cuda.device_count())

    def complete(self, shard: Shard, report: Callable[[int], object]) -> None:
        """Train the networks of a shard and write it.

        Args:
            shard: Which one.
            report: Called with the number of networks that have just been finished.
        """
        ids = torch.arange(shard.start, shard.stop)
        table, params, trajectory = self.train(shard.population, ids, report)
        attributes = shard.attributes(self.job.sha256)
        if trajectory:
            steps = checkpoint_steps(self.job.checkpoints, table["steps"])
            moments = {"network_id": table["network_id"], "checkpoint_steps": steps}
            path = self.out / shard.path(trajectory=True)
            write_columns(path, moments | _arrays(trajectory), attributes)
        write_columns(self.out / shard.path(), table | _arrays(params), attributes)

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
            the job asks for checkpoints, trajectories `[N, T, *shape]`, with conserved quantities
            and residuals if it asks for laws; all on the CPU, parameters in `store_dtype`.
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
        return table | _arrays(metrics), params, trajectory

    def chunk_size(self, population: str, table: Table) -> int:
        """How many networks of a population train in lock step.

        Args:
            population: Its name.
            table: Rows of `full_table`, with one optimizer, schedule and batch size.

        Returns:
            Number of networks, at least 1.
        """
        shared = {name: table[name][:1] for name in _SHARED_IN_LOCK_STEP}
        key = (population, *(column.item() for column in shared.values()))
        if key not in self._bytes:
            self._bytes[key] = self._bytes_per_network(population, shared)
        compiled = self.trainer(population).compiled
        size = chunk_size(self._bytes[key], self.device, len(table["network_id"]), compiled)
        return min(size, self.max_chunk or size)

    def _bytes_per_network(self, population: str, shared: Table) -> int:
        """What a network of a population needs while it trains; the same in all shards."""
        trainer = self.trainer(population).uncompiled()
        # The first network of the job stands for all that have this optimizer and batch size.
        first = full_table(self.job, self.task, torch.arange(1)) | shared
        return training_bytes(trainer, self.runs(first), self.initial(trainer, first))

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
        recorder = self._recorder(table, initial)
        final, diverged_at = Lanes(trainer, runs, initial, size, recorder, report).run()
        metrics = evaluate_networks(trainer, runs, final, size)
        metrics |= _divergence(metrics, diverged_at, runs.steps)
        kept = {} if recorder is None else recorder.params
        trajectory = dict(kept)
        if laws:
            trajectory |= self._stored(measure_conservation(trainer, runs, laws, kept, size))
        if self.job.checkpoint_metrics:
            trajectory |= evaluate_checkpoints(trainer, runs, kept, size)
        metrics = {name: tensor.cpu() for name, tensor in metrics.items()}
        return metrics, self._stored(final), trajectory

    def _stored(self, params: Params) -> Params:
        """Tensors on the CPU, as they are stored."""
        return {name: tensor.cpu().to(self.store_dtype) for name, tensor in params.items()}

    def _recorder(self, table: Table, initial: Params) -> Recorder | None:
        """What keeps the checkpoints that the job asks for."""
        if not self.job.checkpoints:
            return None
        steps = torch.from_numpy(checkpoint_steps(self.job.checkpoints, table["steps"]))
        return Recorder(steps, initial, self.store_dtype)

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
        generators = [torch.Generator().manual_seed(int(seed)) for seed in table["seed"]]
        drawn = stack([trainer.architecture.init(generator) for generator in generators])
        return {name: tensor.to(self.device, self.dtype) for name, tensor in drawn.items()}

    def runs(self, table: Table) -> TrainingRuns:
        """Who is trained, and how; on the device.

        Args:
            table: Rows of `full_table`, with one optimizer, schedule and batch size.

        Returns:
            The networks.
        """
        return runs_of(table, self.device, self.dtype)


def _divergence(
    metrics: Params, diverged_at: Int64[Tensor, " N"], steps: Int64[Tensor, " N"]
) -> Params:
    """The columns of divergence; a network without a finite loss has diverged at its end."""
    unusable = ~torch.isfinite(metrics["train_loss"] + metrics["test_loss"])
    diverged_at = torch.where(unusable & (diverged_at < 0), steps, diverged_at)
    return {"diverged": diverged_at >= 0, "diverged_at": diverged_at}


def _arrays(params: Params) -> Table:
    return {name: tensor.numpy() for name, tensor in params.items()}


def _join(chunks: Sequence[Params], rows: list[int]) -> Params:
    """Put the networks of all chunks in the order of their rows."""
    return select(concatenate(chunks), torch.tensor(rows).argsort())
