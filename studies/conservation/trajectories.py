"""Laws along training paths, step by step.

Residuals, drift of quantities, and what the drift is made of.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from data_gen.config import Job
from data_gen.shard import ShardWorker
from data_gen.table import full_table
from data_gen.training.conservation import batch_of, gradients_of
from data_gen.training.runs import TrainingRuns, draw_view
from data_gen.training.state import State
from data_gen.training.trainer import Trainer
from zoo.conservation.drift import split_drift
from zoo.conservation.laws import Law
from zoo.conservation.quantities import measure as measure_laws
from zoo.params import Params

STEP_DRIFT = "step_drift"
TERMS = ("discretization", "decay", "optimizer", "broken")


@dataclass(frozen=True)
class TrainingCell:
    """Networks to train and watch; one cell of the study.

    Attributes:
        job: Configuration of the zoo's job, JSON: task, populations, seed.
        population: Name of the population.
        descent: What the study calls the way to train.
        optimizer: Name of the optimizer.
        lr: Step size.
        momentum: Momentum.
        weight_decay: Weight decay.
        steps: Steps.
        batch_size: Images in a batch.
        records: Rows after the one at the start.
        networks: Number of networks.
    """

    job: str
    population: str
    descent: str
    optimizer: str
    lr: float
    momentum: float
    weight_decay: float
    steps: int
    batch_size: int
    records: int
    networks: int

    @property
    def name(self) -> str:
        """Population, way to train, step size."""
        return f"population {self.population!r}, trained by {self.descent!r}, lr {self.lr:g}"


def measure(cell: TrainingCell) -> pd.DataFrame:
    """Train networks and watch the laws of their standard architecture at every step.

    Args:
        cell: What to train.

    Returns:
        A row for each network, law and record. Means are over the law's neurons, heads or columns:
        `residual`, and `residual_max` the largest; `size`, the mean `|Q|` of the initialization;
        `drift`, the mean `|Q - Q(0)|`; `step_drift`, the mean change of a step until now; of each
        term of the drift, summed over all steps, the mean of its magnitude; `gap`, the largest
        difference between the drift and the sum of the terms.

    Raises:
        ValueError: If a network diverges.
    """
    job = job_of(cell)
    worker = ShardWorker(
        job, Path(), torch.device("cpu"), dtype=torch.float64, store_dtype=torch.float64
    )
    trainer = worker.trainer(cell.population)
    table = full_table(job, worker.task, torch.arange(cell.networks))
    networks, state = worker.start(trainer, table)
    watch = Watch(trainer, networks, worker.laws(cell.population), cell)
    trainer.run(networks, state, watch)
    return pd.concat(watch.rows, ignore_index=True).assign(
        population=cell.population, descent=cell.descent, lr=cell.lr, part="paths"
    )


def job_of(cell: TrainingCell) -> Job:
    """The job of a run."""
    # Task, populations and seed of the zoo's, equal hyperparameters for all networks.
    config = json.loads(cell.job)
    names = ("optimizer", "lr", "momentum", "weight_decay", "steps", "batch_size")
    job = {
        "task": config["task"],
        "seed": config["seed"],
        "populations": {cell.population: config["populations"][cell.population]},
        "hyperparameters": {name: vars(cell)[name] for name in names},
        "count": cell.networks,
        "checkpoints": 2,
        "laws": "found",
    }
    return Job.model_validate(job)


class Watch:
    """Shown the networks before the first and after every step, it keeps rows.

    Args:
        trainer: Who trains.
        networks: The networks.
        laws: The laws.
        cell: Hyperparameters, and number of records.

    Attributes:
        rows: Rows so far.
    """

    def __init__(
        self, trainer: Trainer, networks: TrainingRuns, laws: Sequence[Law], cell: TrainingCell
    ):
        self._trainer, self._networks, self._laws, self._cell = trainer, networks, laws, cell
        self._view = draw_view(networks, trainer.task, trainer.seed)
        self._kept = set(np.round(np.linspace(0, cell.steps, cell.records + 1)).tolist())
        self._start: Params = {}
        self._before: tuple[Params, Params] = ({}, {})
        # by law: each term of the drift and the change of a step, summed over the steps
        self._sums: dict[str, dict[str, Tensor]] = {}
        self._next = 0
        self.rows: list[pd.DataFrame] = []

    def __call__(self, state: State) -> None:
        """Look at the networks.

        Args:
            state: Where training stands.

        Raises:
            ValueError: If a network has diverged.
        """
        step = int(state.step[0])
        if step != self._next or bool((state.diverged_at >= 0).any()):
            raise ValueError(
                f"a network diverged by step {self._next}; choose a smaller lr than {self._cell.lr}"
            )
        self._next += 1
        params = {name: tensor.clone() for name, tensor in state.params.items()}
        batch = batch_of(self._trainer, self._networks, self._view, step)
        gradients = gradients_of(self._trainer, self._networks, params, batch)
        values, residuals = measure_laws(self._laws, params, gradients)
        if step == 0:
            self._begin(values)
        else:
            self._add(params)
        self._before = params, gradients
        if step in self._kept:
            for law, value in values.items():
                self.rows.append(self._rows(step, law, value, residuals[law]))

    def _begin(self, values: Params) -> None:
        self._start = values
        for law, value in values.items():
            self._sums[law] = {name: torch.zeros_like(value) for name in (*TERMS, STEP_DRIFT)}

    def _add(self, params: Params) -> None:
        before, gradients = self._before
        rate = torch.full((len(self._networks.ids),), self._cell.lr, dtype=torch.float64)
        decay = self._cell.weight_decay
        drifts = split_drift(self._laws, before, params, gradients, rate, decay)
        for law, drift in drifts.items():
            self._sums[law][STEP_DRIFT] += drift.total.abs()
            for term in TERMS:
                self._sums[law][term] += vars(drift)[term]

    def _rows(self, step: int, law: str, value: Tensor, residual: Tensor) -> pd.DataFrame:
        drift = value - self._start[law]
        terms = {term: self._sums[law][term] for term in TERMS}
        gap = (drift - sum(terms.values(), start=torch.zeros_like(drift))).abs()
        columns = {
            "residual": _mean(residual),
            "residual_max": residual.flatten(1).amax(1),
            "size": _mean(self._start[law].abs()),
            "drift": _mean(drift.abs()),
            STEP_DRIFT: _mean(self._sums[law][STEP_DRIFT]) / max(step, 1),
            **{term: _mean(total.abs()) for term, total in terms.items()},
            "gap": gap.flatten(1).amax(1),
        }
        place = {"network": self._networks.ids.numpy(), "law": law, "step": step}
        return pd.DataFrame(place | {name: means.numpy() for name, means in columns.items()})


def _mean(values: Tensor) -> Tensor:
    return values.flatten(1).mean(1)
